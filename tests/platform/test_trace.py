"""A cold start on a real platform is traced from the request to its first token."""

import json

import httpx
import pytest
from openai import OpenAI

from serving.protocol import StartPhase
from tests.platform.platform import Platform, eventually

pytestmark = pytest.mark.engine

HELLO = [{"role": "user", "content": "Hello"}]
TOLERANCE = 0.02
RARE = (StartPhase.NODE_STARTED, StartPhase.HOST_STARTED, StartPhase.FETCHED)
PHASES = [phase.value for phase in StartPhase if phase not in RARE]


def test_phases_of_a_wake_are_ordered_and_add_up(
    platform: Platform, client: OpenAI, admin: httpx.Client
) -> None:
    manifest = {
        "name": "traced",
        "source": "builtin://guide",
        "engine": {"max_num_seqs": 8, "kv_cache_gib": 0.03},
    }
    assert admin.post("/models", json=manifest).is_success
    try:
        # The deploy is the controller's; the gateway hears of it a few milliseconds later.
        eventually(lambda: "traced" in [m.id for m in client.models.list()], 10, "it is listed")
        chunks = client.chat.completions.create(
            model="traced", messages=HELLO, max_tokens=4, stream=True
        )
        assert list(chunks)

        def completed() -> dict[str, object] | None:
            done = platform.penstock("trace", "traced", "--output", "json")
            assert done.returncode == 0, done.stderr
            (start,) = json.loads(done.stdout)["items"]
            return start if start["waited_s"] is not None else None

        start = eventually(completed, 5, "the first token is reported")
        marks = start["marks"]
        assert isinstance(marks, list)
        assert [mark["phase"] for mark in marks] == PHASES
        ends_s = [mark["at_s"] for mark in marks]
        assert ends_s[0] == 0
        assert ends_s == sorted(ends_s)
        assert ends_s[-1] == pytest.approx(start["waited_s"], rel=TOLERANCE)
        shown = platform.penstock("trace", "traced")
        assert all(phase in shown.stdout for phase in PHASES[1:])
        controller = f"http://127.0.0.1:{platform.state['ports']['controller']}"
        metrics = httpx.get(f"{controller}/metrics", timeout=30).text
        for phase in PHASES[1:]:
            name = "penstock_cold_start_seconds_count"
            assert f'{name}{{model="traced",phase="{phase}"}} 1.0' in metrics
    finally:
        assert admin.delete("/models/traced").is_success
