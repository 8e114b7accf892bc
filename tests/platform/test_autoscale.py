"""On a real platform load brings a second engine, its end takes both away, and nothing is lost."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx
import pytest
from openai import OpenAI

from tests.platform.platform import Platform, eventually

pytestmark = pytest.mark.engine

QUESTION = [{"role": "user", "content": "What is Penstock?"}]
CALLERS = 24
MANIFEST = {
    "name": "scaled",
    "source": "builtin://guide",
    "engine": {"max_num_seqs": 4, "kv_cache_gib": 0.03},
    "scaling": {"min": 0, "max": 2, "idle_timeout_s": 3.0},
}


def test_load_brings_a_second_engine_and_its_end_takes_both_away(
    platform: Platform, client: OpenAI, admin: httpx.Client
) -> None:
    assert admin.post("/models", json=MANIFEST).is_success
    try:
        assert platform.is_listed("scaled")
        with ThreadPoolExecutor(CALLERS) as callers:
            enough = Event()
            running = [callers.submit(ask_until, enough, client) for _ in range(CALLERS)]
            try:
                eventually(lambda: ready(admin) == 2, 40, "two engines are ready")
            finally:
                enough.set()
            answers = [one.result() for one in running]
        assert all(answers)  # nobody was turned away, and nobody's answer broke off
        eventually(lambda: ready(admin) == 0, 30, "the model is asleep again")
        told = platform.penstock("explain", "scaled")
        assert told.returncode == 0, told.stderr
        lines = told.stdout.splitlines()
        assert "from 0 to 1 engine" in lines[0] or "from 0 to 2 engines" in lines[0]
        assert any("to 2 engines, because" in line and "prompt tokens" in line for line in lines)
        assert "to 0 engines, because nobody had asked for 3." in lines[-1]
        capacity = admin.get("/models/scaled/capacity").json()
        assert capacity["source"] == "learned"
        assert len(capacity["starts_s"]) >= 2
    finally:
        assert admin.delete("/models/scaled").is_success


def test_bounds_change_in_place(platform: Platform, admin: httpx.Client) -> None:
    assert admin.post("/models", json=MANIFEST | {"scaling": {"min": 1}}).is_success
    try:
        before = eventually(lambda: pids(admin), 40, "the engine is ready")
        done = platform.penstock("scale", "scaled", "--min", "2", "--max", "2")
        assert done.returncode == 0, done.stderr
        after = eventually(lambda: len(pids(admin)) == 2 and pids(admin), 40, "a second engine")
        assert before < after  # the first one still is the one that it was
        assert platform.penstock("scale", "scaled", "--min", "0", "--pause").returncode == 0
        assert admin.get("/models/scaled").json()["manifest"]["scaling"]["paused"]
    finally:
        assert admin.delete("/models/scaled").is_success


def ask_until(enough: Event, client: OpenAI) -> bool:
    """Streams, one after the other, each to its end; whether all of them had one."""
    while not enough.is_set():
        stream = client.chat.completions.create(
            model="scaled", messages=QUESTION, max_tokens=64, stream=True,
            extra_body={"min_tokens": 64},
        )  # fmt: skip
        if list(stream)[-1].choices[0].finish_reason is None:
            return False
    return True


def ready(admin: httpx.Client) -> int:
    return int(admin.get("/models/scaled").json()["engines_ready"])


def pids(admin: httpx.Client) -> set[int]:
    engines = admin.get("/engines").json()["items"]
    return {e["pid"] for e in engines if e["model"] == "scaled" and e["phase"] == "ready"}
