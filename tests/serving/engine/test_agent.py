"""The agent against a controller and a launcher in the test's hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import SecretStr

from models.errors import UnavailableError
from serving.engine.agent import HostAgent, Identity
from serving.engine.controller_client import ControllerClient
from serving.engine.launch_protocol import Exited
from serving.engine.surroundings import Surroundings
from serving.protocol import EnginePhase
from tests.serving.engine.fakes import (
    BIRTH,
    FORKED,
    FakeController,
    FakeEngine,
    FakeLauncher,
    FakeWeights,
    assignment,
    manifest,
)

STARTING, READY, DRAINING, STOPPED, FAILED = (
    EnginePhase.STARTING,
    EnginePhase.READY,
    EnginePhase.DRAINING,
    EnginePhase.STOPPED,
    EnginePhase.FAILED,
)


@dataclass
class Stage:
    """A host among fakes."""

    agent: HostAgent
    controller: FakeController
    launcher: FakeLauncher
    engine: FakeEngine = field(default_factory=FakeEngine)
    weights: FakeWeights = field(default_factory=FakeWeights)


@asynccontextmanager
async def staged(tmp_path: Path) -> AsyncIterator[Stage]:
    controller, launcher, engine = FakeController(), FakeLauncher(), FakeEngine()
    weights = FakeWeights()
    around = Surroundings(
        launcher=launcher,
        weights=weights,
        log_dir=tmp_path,
        address="127.0.0.1",
        drain_timeout_s=5.0,
        drain_poll_s=0.01,
        health_interval_s=0.01,
        transport=engine.transport(),
    )
    client = ControllerClient("http://controller", SecretStr("internal"), controller.transport())
    identity = Identity("host-1", "cpu", "node-1", "127.0.0.1")
    agent = HostAgent(identity, client, around)
    agent.start()
    stage = Stage(agent, controller, launcher, engine, weights)
    try:
        yield stage
    finally:
        controller.away = False
        await agent.close()


async def test_agent_registers_itself_without_an_engine(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        registration = await stage.controller.wait_for_registrations(1)
        assert (registration.host_id, registration.pool) == ("host-1", "cpu")
        assert registration.engine is None
        stage.agent.check()


async def test_assigned_engine_becomes_ready_with_url_and_token(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.controller.assign(assignment())
        report = await stage.controller.wait_for_phase(READY)
        assert report.url == "http://127.0.0.1:40000"
        assert report.token == stage.launcher.leases[0].request.token
        assert (report.revision, report.slots, report.max_model_len) == (3, 64, 2048)


async def test_weights_of_the_assignment_are_fetched_beside_the_engine(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.controller.assign(assignment(), prefetch=(manifest(),))
        await stage.controller.wait_for_phase(READY)
        assert [wanted.name for wanted in stage.weights.wanted] == ["tiny"]
        stage.weights.told.clear()
        await stage.controller.assign(assignment(), prefetch=())
        await asyncio.wait_for(stage.weights.told.wait(), 30)
        assert stage.weights.wanted == ()
        assert len(stage.launcher.leases) == 1, "the engine runs on"
    assert stage.weights.closed


def assert_in_order(told: list[EnginePhase]) -> None:
    """A report tells of the present phase: one that was short may be in none."""
    assert told == [phase for phase in (STARTING, READY, DRAINING, STOPPED) if phase in told]
    assert {READY, STOPPED} <= set(told)


async def test_withdrawn_engine_is_drained_and_its_lease_given_up(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.controller.assign(assignment())
        await stage.controller.wait_for_phase(READY)
        await stage.controller.assign(None)
        await stage.controller.wait_for_phase(STOPPED)
        assert_in_order(stage.controller.phases())
        assert stage.launcher.leases[0].given_up


async def test_changed_assignment_drains_the_old_engine_before_the_new_one_starts(
    tmp_path: Path,
) -> None:
    async with staged(tmp_path) as stage:
        await stage.controller.assign(assignment("e1"))
        await stage.controller.wait_for_phase(READY, "e1")
        await stage.controller.assign(assignment("e2"))
        await stage.controller.wait_for_phase(READY, "e2")
        told = [(r.engine_id, r.phase) for r in stage.controller.reports if r]
        of_second = [place for place, (engine_id, _) in enumerate(told) if engine_id == "e2"]
        assert told.index(("e1", STOPPED)) < of_second[0]
        first, second = stage.launcher.leases
        assert first.closed and first.request.token != second.request.token


async def test_failed_engine_is_reported_and_the_next_assignment_is_taken(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.launcher.birth = (FORKED, Exited(code=1, cause="the probe was answered with 500"))
        await stage.controller.assign(assignment("e1"))
        report = await stage.controller.wait_for_phase(FAILED, "e1")
        assert report.error == "the probe was answered with 500"
        assert report.url is None and report.token is None
        stage.launcher.birth = BIRTH
        await stage.controller.assign(assignment("e2"))
        await stage.controller.wait_for_phase(READY, "e2")


async def test_forgotten_host_registers_again_with_its_running_engine(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.controller.assign(assignment())
        await stage.controller.wait_for_phase(READY)
        stage.controller.known = False  # a controller that restarted
        registration = await stage.controller.wait_for_registrations(2)
        assert registration.engine is not None
        assert registration.engine.phase is READY
        assert registration.engine.token == stage.launcher.leases[0].request.token
        assert not stage.launcher.leases[0].given_up


async def test_engine_serves_on_while_the_controller_is_away(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.controller.assign(assignment())
        await stage.controller.wait_for_phase(READY)
        stage.controller.away = True
        stage.engine.seen.clear()
        await stage.engine.wait_for("/health")
        assert not stage.launcher.leases[0].given_up
        stage.controller.away, stage.controller.known = False, False
        await stage.controller.wait_for_registrations(2)


async def test_closing_drains_the_engine_and_says_so(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.controller.assign(assignment())
        await stage.controller.wait_for_phase(READY)
        await stage.agent.close()
        assert_in_order(stage.controller.phases())
        assert stage.launcher.leases[0].closed


async def test_check_fails_after_close(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.agent.close()
        with pytest.raises(UnavailableError, match="has ended"):
            stage.agent.check()


async def test_assigned_sleep_and_wake_reach_the_running_engine(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        wanted = assignment()
        await stage.controller.assign(wanted)
        await stage.controller.wait_for_phase(READY)
        await stage.controller.assign(wanted.model_copy(update={"sleep_level": 1}))
        await stage.controller.wait_for_phase(EnginePhase.SLEEPING)
        await stage.engine.wait_for("/sleep")
        stage.controller.reports.clear()
        await stage.controller.assign(wanted.model_copy(update={"start_id": "start-2"}))
        report = await stage.controller.wait_for_phase(READY)
        assert report.start_id == "start-2"
        assert len(stage.launcher.leases) == 1, "the same engine"
