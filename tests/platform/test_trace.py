"""A cold start on a real platform is traced from the request to its first token."""

import json
from contextlib import suppress

import httpx
import psutil
import pytest
from openai import OpenAI

from serving.protocol import StartPhase
from tests.platform.platform import Platform, eventually

pytestmark = pytest.mark.engine

HELLO = [{"role": "user", "content": "Hello"}]
TOLERANCE = 0.02
TRIES = 3
RARE = (StartPhase.NODE_STARTED, StartPhase.HOST_STARTED, StartPhase.FETCHED)
PHASES = [phase.value for phase in StartPhase if phase not in RARE]


MANIFEST = {
    "name": "traced",
    "source": "builtin://guide",
    "engine": {"max_num_seqs": 8, "kv_cache_gib": 0.03},
}


def whole_start(platform: Platform, model: str) -> dict[str, object]:
    """The model's last start, once its first token is in it."""

    def completed() -> dict[str, object] | None:
        done = platform.penstock("trace", model, "--output", "json")
        assert done.returncode == 0, done.stderr
        starts = json.loads(done.stdout)["items"]
        return starts[-1] if starts and starts[-1]["waited_s"] is not None else None

    return eventually(completed, 5, "the first token is reported")


def phases_that_add_up(start: dict[str, object]) -> list[str]:
    """Its phases in order; they begin with the request and together take what it waited."""
    marks = start["marks"]
    assert isinstance(marks, list)
    ends_s = [mark["at_s"] for mark in marks]
    assert ends_s[0] == 0
    assert ends_s == sorted(ends_s)
    assert ends_s[-1] == pytest.approx(start["waited_s"], rel=TOLERANCE)
    return [mark["phase"] for mark in marks]


def test_phases_of_a_wake_are_ordered_and_add_up(
    platform: Platform, client: OpenAI, admin: httpx.Client
) -> None:
    assert admin.post("/models", json=MANIFEST).is_success
    try:
        # The deploy is the controller's; the gateway hears of it a few milliseconds later.
        eventually(lambda: "traced" in [m.id for m in client.models.list()], 10, "it is listed")
        chunks = client.chat.completions.create(
            model="traced", messages=HELLO, max_tokens=4, stream=True
        )
        assert list(chunks)

        assert phases_that_add_up(whole_start(platform, "traced")) == PHASES
        shown = platform.penstock("trace", "traced")
        assert all(phase in shown.stdout for phase in PHASES[1:])
        controller = f"http://127.0.0.1:{platform.state['ports']['controller']}"
        metrics = httpx.get(f"{controller}/metrics", timeout=30).text
        for phase in PHASES[1:]:
            name = "penstock_cold_start_seconds_count"
            assert f'{name}{{model="traced",phase="{phase}"}} 1.0' in metrics
    finally:
        platform.delete("traced")


def test_wake_that_waits_for_rays_next_host_tells_of_it(
    platform: Platform, client: OpenAI, admin: httpx.Client
) -> None:
    hosts = platform.items("hosts")
    gone: set[str] = set()
    assert admin.post("/models", json=MANIFEST).is_success
    try:
        eventually(lambda: "traced" in [m.id for m in client.models.list()], 10, "it is listed")
        for _ in range(TRIES):
            for host in platform.items("hosts"):
                gone.add(host["host_id"])
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(host["pid"]).kill()
            # A first try may go to a host that nobody knows to be dead; the request waits still.
            done = client.chat.completions.create(model="traced", messages=HELLO, max_tokens=1)
            assert done.choices
            phases = phases_that_add_up(whole_start(platform, "traced"))
            if StartPhase.HOST_STARTED in phases:
                break  # else a host that was on its way already took it
        assert phases[:4] == ["demand_seen", "decided", "host_started", "bound"]
        assert phases[4:] == PHASES[3:]
    finally:
        platform.delete("traced")

        def are_replaced() -> bool:
            now = {host["host_id"] for host in platform.items("hosts")}
            return len(now) == len(hosts) and not now & gone

        eventually(are_replaced, 30, "Ray has replaced the hosts")
