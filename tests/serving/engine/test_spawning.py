"""Which launcher is asked for an engine, for what, and how long one that is away is waited for."""

import asyncio
from dataclasses import replace

from serving.engine.engine_run import EngineRun
from serving.engine.surroundings import Surroundings
from serving.protocol import EnginePhase
from tests.serving.engine.fakes import FakeEngine, FakeLauncher, assignment
from tests.serving.engine.watched import running


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
