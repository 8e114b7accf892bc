"""Engines that sleep on their hosts: they wake there, give way, and go with their model."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from models.errors import ManifestError
from serving.controller.dormitory import level_of, may_stay
from serving.controller.fleet_hours import uses_of
from serving.controller.state_metrics import StateMetrics
from serving.prices import Capacity
from serving.protocol import EnginePhase, ModelState
from tests.serving.controller.world import FakeHost, World, engine_report, manifest, registration

GPU = {"accelerator": "h200", "gpus": 1}
READY, SLEEPING = EnginePhase.READY, EnginePhase.SLEEPING


async def asleep(world: World, idle: str = "sleep-host") -> FakeHost:
    """A model whose engine served, and now sleeps on the pool's only host."""
    host = world.host("g1", pool="h200x1")
    await world.deploy(resources=GPU, scaling={"idle_timeout_s": 1, "idle": idle})
    world.ask(queued=1)
    world.run()
    host.start()
    world.run()
    world.ask()
    world.run(seconds=2.0)
    return host


def level(host: FakeHost) -> int | None:
    return None if host.assigned is None else host.assigned.sleep_level


@pytest.mark.parametrize(("idle", "deep"), [("sleep-host", 1), ("sleep-discard", 2)])
async def test_engine_that_is_not_needed_sleeps_on_its_host(
    world: World, idle: str, deep: int
) -> None:
    host = await asleep(world, idle)
    assert level(host) == deep
    assert world.told[-1] == "dozed"
    host.report(SLEEPING)
    world.run()
    assert world.route().state is ModelState.ASLEEP
    assert world.route().endpoints == ()
    assert world.loop.standing("guide").reason == "its engine sleeps on g1"
    assert [engine.phase for engine in world.loop.fleet.engines()] == [SLEEPING]
    assert world.loop.fleet.bound() == []


async def test_sleeper_is_paid_for_and_counted_as_what_holds_its_accelerators(world: World) -> None:
    host = await asleep(world)
    host.report(SLEEPING)
    world.host("g2", pool="h200x1")
    world.run()
    fleet = world.loop.fleet
    uses = uses_of(fleet, {}, {"h200x1": Capacity.RESERVED})
    told = [(use.host_id, use.accelerator, use.model, use.busy) for use in uses]
    assert told == [("g1", "h200", "guide", False), ("g2", "h200", "", False)]
    registry = CollectorRegistry()
    StateMetrics(registry).read_hosts(fleet, ["h200x1"])
    held = {state: registry.get_sample_value(
        "penstock_accelerators", {"pool": "h200x1", "state": state}) for state in ("bound", "free")
    }  # fmt: skip
    assert held == {"bound": 1, "free": 1}


async def test_running_engine_is_busy_while_requests_run_under_it(world: World) -> None:
    host = await asleep(world)
    host.report(SLEEPING)
    world.ask(queued=1)
    world.run()
    assert host.assigned is not None
    (use,) = uses_of(world.loop.fleet, {host.assigned.engine_id: 2}, {})
    assert (use.model, use.busy, use.capacity) == ("guide", True, Capacity.ON_DEMAND)


async def test_sleeper_wakes_for_its_model_as_the_same_engine(world: World) -> None:
    host = await asleep(world)
    assert host.assigned is not None
    before = host.assigned
    host.report(SLEEPING)
    world.ask(queued=1)
    world.run()
    assert host.assigned is not None
    assert (host.assigned.engine_id, level(host)) == (before.engine_id, 0)
    assert world.route().state is ModelState.WAKING
    assert world.route().endpoints == ()
    host.report(READY)
    world.run()
    assert world.route().state is ModelState.READY
    assert [e.engine_id for e in world.route().endpoints] == [before.engine_id]
    assert len(world.loop.traces.of("guide")) == 2


async def test_sleeper_that_did_not_get_to_sleep_serves_nothing_before_it_says_so(
    world: World,
) -> None:
    host = await asleep(world)
    world.ask(queued=1)
    world.run()  # woken before the host told of its sleep
    assert world.route().endpoints == ()
    host.report(READY)
    world.run()
    assert len(world.route().endpoints) == 1


async def test_sleeper_gives_way_to_a_model_that_needs_its_host(world: World) -> None:
    host = await asleep(world)
    assert host.assigned is not None
    before = host.assigned.engine_id
    host.report(SLEEPING)
    await world.deploy("other", resources=GPU)
    world.ask("other", queued=1)
    world.run()
    assert host.assigned is not None
    assert (host.assigned.manifest.name, level(host)) == ("other", 0)
    assert host.assigned.engine_id != before


@pytest.mark.parametrize("change", ["deleted", "changed", "told to stop"])
async def test_sleeper_ends_when_its_model_is_no_more_what_it_was(
    world: World, change: str
) -> None:
    host = await asleep(world)
    host.report(SLEEPING)
    scaling: dict[str, Any] = {"idle_timeout_s": 1, "idle": "sleep-host"}
    match change:
        case "deleted":
            await world.registry.delete("guide")
            world.loop.changed("guide")
        case "changed":
            await world.deploy(resources=GPU, scaling=scaling, engine={"max_num_seqs": 3})
        case "told to stop":
            await world.deploy(resources=GPU, scaling={**scaling, "idle": "stop"})
    world.run()
    assert host.assigned is None


async def test_engine_that_died_in_its_sleep_is_started_anew(world: World) -> None:
    host = await asleep(world)
    assert host.assigned is not None
    before = host.assigned.engine_id
    host.report(EnginePhase.FAILED, error="killed")
    world.run()
    assert host.assigned is None
    host.idle()
    world.ask(queued=1)
    world.run()
    assert host.assigned is not None and host.assigned.engine_id != before


async def test_next_controller_finds_the_sleeper_asleep(world: World) -> None:
    host = await asleep(world)
    assert host.assigned is not None
    report = engine_report(host.assigned, SLEEPING)
    world.restart()
    world.loop.register(registration("g1", pool="h200x1", engine=report))
    world.run(seconds=3.0)
    assert level(host) == 1
    world.ask(queued=1)
    world.run()
    assert host.assigned is not None
    assert (host.assigned.engine_id, level(host)) == (report.engine_id, 0)


def test_sleep_on_a_cpu_is_refused_with_the_reason() -> None:
    with pytest.raises(ManifestError, match="needs a GPU"):
        manifest(scaling={"idle": "sleep-host"})


def test_only_current_engines_of_models_that_sleep_may_stay() -> None:
    sleeps = manifest(resources=GPU, scaling={"idle": "sleep-discard"})
    assert may_stay(sleeps, 3, 3, frozenset())
    assert may_stay(sleeps, 2, 3, frozenset({2}))
    assert not may_stay(sleeps, 2, 3, frozenset())
    assert not may_stay(manifest(), 3, 3, frozenset())
    assert [level_of(m) for m in (None, manifest(), sleeps)] == [0, 0, 2]
