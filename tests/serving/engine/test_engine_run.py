"""One engine's life against a launcher and an engine in the test's hand."""

import os
from dataclasses import replace
from pathlib import Path

from models.errors import SourceError
from models.manifest import AdapterSpec
from serving.engine.engine_run import KEPT_LOGS
from serving.engine.launch_protocol import Exited, Forked, Refused
from serving.engine.surroundings import Surroundings
from serving.protocol import EnginePhase, GangPlace, StartPhase
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
from tests.serving.engine.watched import running


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
