"""The recorder in a real vLLM: what it counts is what vLLM says, and is there after a kill -9."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serving.engine import recorder_file as layout
from serving.engine.recorder import PATH_VARIABLE
from serving.engine.recorder_file import Slot, State
from tests.serving.engine.real import Engine, Launcher, kill, spawned

pytestmark = pytest.mark.engine

CHAT = "/v1/chat/completions"


def body(**fields: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "Count, please."}]
    return {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 8, **fields}


def name(number: int) -> str:
    return f"{number:032x}-1"


def slots(path: Path) -> dict[str, Slot]:
    """All attempts in a recorder's file."""
    file = layout.open_existing(path)
    used = range(file.words[layout.USED])
    read = [file.read(n) for n in used if file.words[layout.word(n, 0)] != State.FREE]
    file.close()
    return {slot.attempt_id: slot for slot in read if slot is not None}


def words(path: Path, *which: int) -> list[int]:
    file = layout.open_existing(path)
    found = [file.words[one] for one in which]
    file.close()
    return found


@pytest.fixture(scope="module")
def recorder_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recorder") / "e1.recorder"


@pytest.fixture(scope="module")
def engine(vllm_launcher: Launcher, tiny_model: Path, recorder_path: Path) -> Iterator[Engine]:
    log_path = recorder_path.with_suffix(".log")
    environment = {PATH_VARIABLE: str(recorder_path)}
    with spawned(vllm_launcher, tiny_model, log_path, environment=environment) as forked:
        forked.wait_until_ready()
        yield forked


def test_recorder_counts_what_vllm_says_of_each_answer(engine: Engine, recorder_path: Path) -> None:
    cases = [
        body(),
        body(n=3),
        body(max_tokens=1),
        body(stop=["e"], max_tokens=32),
        body(messages=[{"role": "user", "content": "long " * 40}]),
        {"model": "tiny", "prompt": ["one", "and two", "three"], "max_tokens": 5},
        body(tools="nonsense"),
    ]

    def ask(number: int) -> dict[str, int]:
        path = "/v1/completions" if "prompt" in cases[number] else CHAT
        with engine.client() as http:
            headers = {"x-request-id": name(number)}
            answer = http.post(path, json=cases[number], headers=headers).json()
        usage: dict[str, int] = answer.get("usage", {"prompt_tokens": 0, "completion_tokens": 0})
        return usage

    with ThreadPoolExecutor(len(cases)) as together:
        told = [*together.map(ask, range(len(cases)))]
    deadline_s = time.monotonic() + 60
    found = slots(recorder_path)
    while any(slot.ended_at == 0 for slot in found.values()) and time.monotonic() < deadline_s:
        time.sleep(0.02)  # the end is written down after the answer's last byte
        found = slots(recorder_path)
    for number, usage in enumerate(told):
        slot = found[name(number)]
        assert (slot.prompt, slot.completion) == (
            usage["prompt_tokens"],
            usage["completion_tokens"],
        ), cases[number]
        assert slot.ended_at >= slot.began_at > 0


def test_recorder_and_vllms_own_counters_agree(engine: Engine, recorder_path: Path) -> None:
    ours = words(
        recorder_path, layout.PROMPT, layout.OTHER_PROMPT, layout.COMPLETION,
        layout.OTHER_COMPLETION, layout.ENGINE_PROMPT, layout.ENGINE_COMPLETION,
    )  # fmt: skip
    prompt, other_prompt, completion, other_completion, engine_prompt, engine_completion = ours
    assert prompt + other_prompt == engine_prompt > 0
    assert completion + other_completion == engine_completion > 0
    with engine.client() as http:
        lines = http.get("/metrics").text.splitlines()
    own = {
        line.partition("{")[0]: float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(("vllm:prompt_tokens_total", "vllm:generation_tokens_total"))
    }
    assert own == {
        "vllm:prompt_tokens_total": engine_prompt,
        "vllm:generation_tokens_total": engine_completion,
    }


def test_attempt_that_a_tenant_left_has_what_was_made_until_then(
    engine: Engine, recorder_path: Path
) -> None:
    headers = {"x-request-id": name(100)}
    seen = 0
    with (
        engine.client() as http,
        http.stream(
            "POST", CHAT, json=body(stream=True, max_tokens=200), headers=headers
        ) as answer,
    ):
        for line in answer.iter_lines():
            if line and json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get(
                "content"
            ):
                seen += 1
            if seen == 5:
                break
    deadline_s = time.monotonic() + 60
    while not (slot := slots(recorder_path)[name(100)]).ended_at:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert 5 <= slot.completion < 200
    assert slot.prompt > 0


def test_attempts_of_a_killed_engine_are_known(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "e2.recorder"
    environment = {PATH_VARIABLE: str(path)}
    with spawned(vllm_launcher, tiny_model, tmp_path / "e2.log", environment=environment) as engine:
        engine.wait_until_ready()
        first = threading.Event()
        seen = 0

        def stream() -> None:
            nonlocal seen
            headers = {"x-request-id": name(1)}
            many = body(stream=True, max_tokens=230, ignore_eos=True)
            with (
                contextlib.suppress(httpx.HTTPError),
                engine.client() as http,
                http.stream("POST", CHAT, json=many, headers=headers) as answer,
            ):
                for line in answer.iter_lines():
                    seen += '"content":"' in line
                    if seen > 3:
                        first.set()

        reader = threading.Thread(target=stream)
        reader.start()
        assert first.wait(30)
        for process in engine.processes:
            kill(process)
        reader.join()
        engine.wait_for_exit()
    file = layout.open_existing(path)
    assert not file.is_written()
    file.close()
    slot = slots(path)[name(1)]
    assert slot.completion >= seen - 1, "the first event bears the role alone"
    assert slot.ended_at == 0
    assert slot.prompt > 0
