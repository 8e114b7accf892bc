"""An engine that is put to sleep and woken, against one in the test's hand."""

import pytest

from serving.engine.surroundings import Surroundings
from serving.protocol import EnginePhase, StartPhase
from tests.serving.engine.fakes import FakeEngine
from tests.serving.engine.watched import running

TURNS = {"/sleep", "/wake_up", "/collective_rpc", "/reset_prefix_cache"}


@pytest.mark.parametrize(
    ("level", "asked"),
    [
        (1, ["/sleep", "/wake_up", "/v1/completions"]),
        (2, ["/sleep", "/wake_up", "/collective_rpc", "/reset_prefix_cache", "/v1/completions"]),
    ],
)
async def test_engine_sleeps_and_wakes_with_a_probe_of_its_own(
    around: Surroundings, engine: FakeEngine, level: int, asked: list[str]
) -> None:
    async with running(around) as watched:
        await watched.until_phase(EnginePhase.READY)
        watched.run.rest(level, "start-e1")
        report = await watched.until_phase(EnginePhase.SLEEPING)
        assert (report.url, report.token) == (None, None)
        await engine.wait_for("/sleep")
        watched.run.rest(0, "start-2")
        report = await watched.until_phase(EnginePhase.READY)
        assert report.start_id == "start-2"
        assert report.url == "http://127.0.0.1:40000"
        assert [mark.phase for mark in report.marks] == [
            StartPhase.BOUND,
            StartPhase.ENGINE_READY,
            StartPhase.PROBED,
        ]
        assert [path for path in engine.seen if path in (*TURNS, "/v1/completions")] == asked


async def test_engine_sleeps_only_when_its_requests_have_ended(
    around: Surroundings, engine: FakeEngine
) -> None:
    async with running(around) as watched:
        await watched.until_phase(EnginePhase.READY)
        engine.in_flight = 1
        watched.run.rest(1, "start-e1")
        await watched.until_phase(EnginePhase.SLEEPING)
        await engine.wait_for("/penstock/in_flight")
        assert "/sleep" not in engine.seen
        engine.in_flight = 0
        await engine.wait_for("/sleep")


async def test_engine_that_cannot_sleep_has_failed(
    around: Surroundings, engine: FakeEngine
) -> None:
    engine.turn_status = 500
    async with running(around) as watched:
        await watched.until_phase(EnginePhase.READY)
        watched.run.rest(1, "start-e1")
        report = await watched.until_phase(EnginePhase.FAILED)
        assert report.error == "the engine answered /sleep?level=1 with 500"
