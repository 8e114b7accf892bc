"""One engine's life against a launcher and an engine in the test's hand."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import SourceError
from models.manifest import AdapterSpec
from serving.engine.engine_run import KEPT_LOGS, EngineRun
from serving.engine.launch_protocol import Exited, Forked, Refused
from serving.engine.surroundings import Surroundings
from serving.protocol import EngineAssignment, EnginePhase, EngineReport, GangPlace, StartPhase
from tests.models.adapter_files import write_adapter, write_base
from tests.serving.engine.fakes import (
    BIRTH,
    ENGINE_READY,
    FORKED,
    WEIGHTS,
    FakeEngine,
    FakeLauncher,
    FakeWeights,
    assignment,
)


class Watched:
    """An engine's run whose reports the test can wait for."""

    def __init__(self, around: Surroundings, wanted: EngineAssignment | None = None) -> None:
        self._changed = asyncio.Event()
        self.run = EngineRun(wanted or assignment(), around, self._changed.set)
        self.task = asyncio.create_task(self.run.run())

    async def until(self, holds: Callable[[EngineReport], bool]) -> EngineReport:
        async with asyncio.timeout(30):
            while not holds(self.run.report):
                await self._changed.wait()
                self._changed.clear()
        return self.run.report

    async def until_phase(self, phase: EnginePhase) -> EngineReport:
        return await self.until(lambda report: report.phase is phase)


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def around(tmp_path: Path, launcher: FakeLauncher, engine: FakeEngine) -> Surroundings:
    return Surroundings(
        launcher=launcher,
        weights=FakeWeights(),
        log_dir=tmp_path,
        address="127.0.0.1",
        drain_timeout_s=5.0,
        drain_poll_s=0.01,
        launcher_patience_s=1.0,
        health_interval_s=0.01,
        transport=engine.transport(),
    )


@asynccontextmanager
async def running(
    around: Surroundings, wanted: EngineAssignment | None = None
) -> AsyncIterator[Watched]:
    watched = Watched(around, wanted)
    try:
        yield watched
    finally:
        watched.run.stop()
        await watched.task


async def test_start_marks_its_phases_in_order_with_the_launchers_times(
    around: Surroundings,
) -> None:
    async with running(around) as watched:
        report = await watched.until_phase(EnginePhase.READY)
        assert [mark.phase for mark in report.marks] == [
            StartPhase.BOUND,
            StartPhase.FORKED,
            StartPhase.WEIGHTS,
            StartPhase.ENGINE_READY,
            StartPhase.PROBED,
        ]
        assert [mark.at for mark in report.marks][1:] == [10.0, 11.0, 12.0, 13.0]
        assert (report.pid, report.max_model_len) == (4711, 2048)


async def test_engine_has_its_adapters_before_it_is_ready_and_others_while_it_runs(
    around: Surroundings, engine: FakeEngine, tmp_path: Path
) -> None:
    write_base(tmp_path / "base")
    pirate, cat = (
        AdapterSpec(name=name, source=write_adapter(tmp_path / name).as_uri())
        for name in ("pirate", "cat")
    )
    wanted = assignment(lora={})
    source = (tmp_path / "base").as_uri()
    wanted = wanted.model_copy(
        update={"manifest": wanted.manifest.model_copy(update={"source": source}),
                "adapters": (pirate,)}
    )  # fmt: skip
    async with running(around, wanted) as watched:
        report = await watched.until_phase(EnginePhase.READY)
        assert [told.name for told in report.adapters] == ["pirate"]
        assert set(engine.adapters) == {"tiny:pirate"}
        watched.run.adapt((pirate, cat))
        await watched.until(lambda report: len(report.adapters) == 2)
        assert set(engine.adapters) == {"tiny:pirate", "tiny:cat"}


async def test_engine_is_not_ready_before_its_probe_was_answered(
    around: Surroundings, launcher: FakeLauncher, engine: FakeEngine
) -> None:
    launcher.birth = BIRTH[:3]
    async with running(around) as watched:
        await watched.until(lambda report: report.marks[-1].phase is StartPhase.ENGINE_READY)
        assert (watched.run.report.phase, watched.run.report.url) == (EnginePhase.STARTING, None)
        launcher.leases[0].say(BIRTH[3])
        report = await watched.until_phase(EnginePhase.READY)
        assert report.url == "http://127.0.0.1:40000"
        assert "/v1/completions" not in engine.seen, "it has probed itself"


async def test_executed_engine_is_asked_until_it_listens(
    around: Surroundings, launcher: FakeLauncher, engine: FakeEngine
) -> None:
    launcher.birth = (Forked(pid=1, port=2, mode="exec", at=1.0),)
    engine.healthy = False
    async with running(around) as watched:
        await watched.until(lambda report: report.marks[-1].phase is StartPhase.FORKED)
        engine.healthy = True
        report = await watched.until_phase(EnginePhase.READY)
        assert StartPhase.ENGINE_READY in [mark.phase for mark in report.marks]
        assert "/v1/completions" in engine.seen


async def test_executed_engine_that_fails_its_probe_has_failed(
    around: Surroundings, launcher: FakeLauncher, engine: FakeEngine
) -> None:
    launcher.birth = (Forked(pid=1, port=2, mode="exec", at=1.0),)
    engine.completions_status = 500
    async with running(around) as watched:
        report = await watched.until_phase(EnginePhase.FAILED)
        assert report.error == "the engine answered its probe with 500"
        assert report.url is None


async def test_spawn_request_carries_what_the_manifest_says(
    around: Surroundings, launcher: FakeLauncher, engine: FakeEngine
) -> None:
    async with running(around) as watched:
        await watched.until_phase(EnginePhase.READY)
        request = launcher.leases[0].request
        assert request.engine_id == "e1"
        assert "--served-model-name=tiny" in request.args
        assert request.memory_gib == 2.0
        assert engine.tokens == {f"Bearer {request.token}"}


async def test_refusal_fails_with_the_launchers_reason_and_hint(
    around: Surroundings, launcher: FakeLauncher
) -> None:
    launcher.birth = (Refused(reason="no memory", hint="stop another model"),)
    async with running(around) as watched:
        report = await watched.until_phase(EnginePhase.FAILED)
        assert (report.error, report.hint) == ("no memory", "stop another model")


async def test_engine_that_exits_by_itself_fails_with_its_cause(
    around: Surroundings, launcher: FakeLauncher
) -> None:
    async with running(around) as watched:
        await watched.until_phase(EnginePhase.READY)
        launcher.leases[0].say(
            Exited(signal="SIGKILL", cause="it was killed", hint="memory?", killed=True)
        )
        report = await watched.until_phase(EnginePhase.FAILED)
        assert report.killed
        assert (report.error, report.hint) == ("it was killed", "memory?")
        assert report.url is None and report.token is None


async def test_engine_fails_when_its_launcher_goes_away(
    around: Surroundings, launcher: FakeLauncher
) -> None:
    async with running(around) as watched:
        await watched.until_phase(EnginePhase.READY)
        launcher.leases[0].vanish()
        report = await watched.until_phase(EnginePhase.FAILED)
        assert report.error == "this node's launcher went away, and the engine with it"


async def test_start_waits_for_a_launcher_that_still_imports(
    around: Surroundings, launcher: FakeLauncher
) -> None:
    launcher.away_for = 1
    async with running(around) as watched:
        await watched.until_phase(EnginePhase.READY)


async def test_start_fails_when_the_launcher_stays_away(
    around: Surroundings, launcher: FakeLauncher
) -> None:
    launcher.away_for = 1000
    async with running(replace(around, launcher_patience_s=0.0)) as watched:
        report = await watched.until_phase(EnginePhase.FAILED)
        assert report.error == "this node's launcher does not answer"


async def test_three_failed_health_checks_in_a_row_end_the_engine(
    around: Surroundings, launcher: FakeLauncher, engine: FakeEngine
) -> None:
    async with running(around) as watched:
        await watched.until_phase(EnginePhase.READY)
        engine.healthy = False
        report = await watched.until_phase(EnginePhase.FAILED)
        assert report.error == "the engine failed 3 health checks in a row"
        await watched.task
        assert launcher.leases[0].given_up


async def test_broken_source_fails_before_anything_is_spawned(
    around: Surroundings, launcher: FakeLauncher
) -> None:
    broken = FakeWeights(SourceError("file:///weights is cut", hint="fetch it again"))
    async with running(replace(around, weights=broken)) as watched:
        report = await watched.until_phase(EnginePhase.FAILED)
        assert (report.error, report.hint) == ("file:///weights is cut", "fetch it again")
        assert launcher.leases == []


async def test_start_that_fetched_its_weights_says_so(around: Surroundings) -> None:
    async with running(replace(around, weights=FakeWeights(waited=True))) as watched:
        report = await watched.until_phase(EnginePhase.READY)
        phases = [mark.phase for mark in report.marks]
        assert phases[:3] == [StartPhase.BOUND, StartPhase.FETCHED, StartPhase.FORKED]


async def test_drain_waits_for_running_requests(
    around: Surroundings, launcher: FakeLauncher, engine: FakeEngine
) -> None:
    async with running(around) as watched:
        await watched.until_phase(EnginePhase.READY)
        engine.in_flight = 1
        watched.run.stop()
        await watched.until_phase(EnginePhase.DRAINING)
        await engine.wait_for("/penstock/in_flight")
        assert not launcher.leases[0].given_up
        engine.in_flight = 0
        await watched.until_phase(EnginePhase.STOPPED)
        assert launcher.leases[0].given_up


async def test_drain_ends_at_its_timeout(
    around: Surroundings, launcher: FakeLauncher, engine: FakeEngine
) -> None:
    async with running(replace(around, drain_timeout_s=0.05)) as watched:
        await watched.until_phase(EnginePhase.READY)
        engine.in_flight = 1
        watched.run.stop()
        await watched.until_phase(EnginePhase.STOPPED)
        assert launcher.leases[0].given_up


async def test_stop_during_the_start_ends_it_at_once(
    around: Surroundings, launcher: FakeLauncher
) -> None:
    launcher.birth = BIRTH[:1]
    async with running(around) as watched:
        await watched.until(lambda report: report.marks[-1].phase is StartPhase.FORKED)
        watched.run.stop()
        await watched.until_phase(EnginePhase.STOPPED)
        assert launcher.leases[0].given_up


async def test_old_logs_of_the_model_are_removed(around: Surroundings, tmp_path: Path) -> None:
    folder = tmp_path / "engines" / "tiny"
    folder.mkdir(parents=True)
    for age in range(KEPT_LOGS + 5):
        log = folder / f"old-{age}.log"
        log.touch()
        os.utime(log, (1000.0 - age, 1000.0 - age))
    async with running(around) as watched:
        report = await watched.until_phase(EnginePhase.READY)
    assert report.log_path == str(folder / "e1.log")
    left = {path.name for path in folder.iterdir()}
    assert left == {f"old-{age}.log" for age in range(KEPT_LOGS - 1)}  # and room for the new one


async def test_engine_of_another_build_is_born_at_that_builds_launcher(
    around: Surroundings, launcher: FakeLauncher
) -> None:
    other = FakeLauncher()
    wanted = assignment(build="other")
    run = EngineRun(wanted, replace(around, builds={"other": other}), lambda: None)
    task = asyncio.create_task(run.run())
    await asyncio.wait_for(other.spawned.wait(), 30)
    run.stop()
    await task
    assert launcher.leases == []


async def test_engine_of_a_build_that_the_node_lacks_fails_with_the_names(
    around: Surroundings,
) -> None:
    run = EngineRun(assignment(build="lost"), around, lambda: None)
    await run.run()
    assert run.report.phase is EnginePhase.FAILED
    assert run.report.error == "this node has no launcher of the engine build lost"
    assert "none but the platform's own" in (run.report.hint or "")


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


async def test_further_part_of_a_gang_is_ready_when_all_ranks_have_met_and_serves_nobody(
    around: Surroundings, launcher: FakeLauncher, engine: FakeEngine
) -> None:
    launcher.birth = (FORKED, WEIGHTS, ENGINE_READY)
    place = GangPlace(leader="e0", rank=1, size=2, address="127.0.0.1", port=20000)
    assigned = assignment("e0-1").model_copy(update={"gang": place})
    async with running(around, assigned) as watched:
        report = await watched.until_phase(EnginePhase.READY)
        assert report.url is None
        assert report.gang == place
        request = launcher.leases[0].request
        assert "--headless" in request.args
        assert request.environment["VLLM_HOST_IP"] == "127.0.0.1"
        launcher.leases[0].say(Exited(code=1, cause="a rank of the engine ended"))
        report = await watched.until_phase(EnginePhase.FAILED)
    assert report.error == "a rank of the engine ended"
    assert engine.seen == []


async def test_further_part_of_a_gang_ends_when_it_is_told_to(
    around: Surroundings, launcher: FakeLauncher
) -> None:
    place = GangPlace(leader="e0", rank=1, size=2, address="127.0.0.1", port=20000)
    assigned = assignment("e0-1").model_copy(update={"gang": place})
    async with running(around, assigned) as watched:
        await watched.until_phase(EnginePhase.READY)
        watched.run.stop()
        await watched.until_phase(EnginePhase.STOPPED)
    assert launcher.leases[0].given_up
