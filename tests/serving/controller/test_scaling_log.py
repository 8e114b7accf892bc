"""What the autoscaler decided, remembers and learned outlives the controller."""

import math
from dataclasses import replace

import pytest

from autoscaler.learning import Steps
from autoscaler.snapshot import Decision, EngineLoad, Memory, Reason, Snapshot
from serving.controller import scaling_rows
from serving.controller.capacities import Kind
from serving.controller.decisions import TargetChange
from serving.controller.demand import Counts
from serving.controller.moment import Moment
from serving.controller.recorded import DemandSecond, Recorded
from serving.controller.scaling_log import ScalingLog
from serving.controller.store import Store
from tests.serving.controller.test_capacities import GUESS
from tests.serving.controller.world import World

SEEN = Snapshot(
    at_s=5.0, ready=1, starting=0, queued=3, in_flight=0, oldest_wait_s=math.inf,
    capacity=GUESS, engines=(EngineLoad(1, 2, 0.5),),
)  # fmt: skip


def change(target: int, at: float = 100.0) -> TargetChange:
    return TargetChange(at, 0, Decision(target, Reason.BACKLOG, 0.0, target, by_backlog=1.5), SEEN)


def log_of(world: World, store: Store) -> ScalingLog:
    loop = world.loop
    return ScalingLog(store, world.registry, loop.targets, loop.recorded, lambda: world.moment)


async def test_decisions_are_stored_with_their_snapshot_as_they_were(store: Store) -> None:
    await scaling_rows.add_decisions(store, [("guide", change(2)), ("other", change(1))])
    assert await scaling_rows.read_decisions(store, "guide", 10) == [change(2)]


async def test_of_each_model_the_newest_decisions_stay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling_rows, "DECISIONS_KEPT", 3)
    await scaling_rows.add_decisions(store, [("quiet", change(9))])
    for number in range(5):
        await scaling_rows.add_decisions(store, [("guide", change(number, float(number)))])
    kept = await scaling_rows.read_decisions(store, "guide", 10)
    assert [one.at for one in kept] == [2.0, 3.0, 4.0]
    assert [one.at for one in await scaling_rows.read_decisions(store, "guide", 2)] == [3.0, 4.0]
    assert len(await scaling_rows.read_decisions(store, "quiet", 10)) == 1


async def test_demand_is_stored_by_the_second_and_for_some_days(store: Store) -> None:
    now_at = 1_000_000.0
    first = DemandSecond("guide", 999_990, 2, 100, 1, 50)
    await scaling_rows.add_demand(store, [first], now_at)
    again = DemandSecond("guide", 999_990, 1, 10, 0, 0)  # the controller restarted within it
    await scaling_rows.add_demand(store, [again, replace(again, at=999_991)], now_at)
    found = await scaling_rows.read_demand(store, "guide", 0.0)
    assert found == [DemandSecond("guide", 999_990, 3, 110, 1, 50), replace(again, at=999_991)]
    later_at = now_at + scaling_rows.DEMAND_KEPT_S
    await scaling_rows.add_demand(store, [DemandSecond("guide", int(later_at), 1)], later_at)
    assert [s.at for s in await scaling_rows.read_demand(store, "guide", 0.0)] == [int(later_at)]


def test_recorded_seconds_are_taken_when_they_are_over() -> None:
    recorded = Recorded()
    recorded.note("guide", 10.2, Counts(1, 30, 0, 0, 0))
    recorded.note("guide", 10.7, Counts(1, None, 1, 9, 0))  # a prompt of unknown length
    recorded.note("guide", 11.0, Counts())
    assert recorded.take_before(10.9) == []
    taken = recorded.take_before(11.5)
    assert taken == [DemandSecond("guide", 10, 2, 30 + 512, 1, 9)]
    recorded.put_back(taken)
    assert recorded.take_before(11.5) == taken


async def test_controller_goes_on_where_the_last_one_stopped(world: World, store: Store) -> None:
    await world.deploy(scaling={"max": 2, "idle_timeout_s": 60.0})
    log = log_of(world, store)
    world.host("h1")
    world.host("h2")
    world.ask(queued=1)
    world.run(1.0)
    assert world.loop.targets.of("guide") == 2
    await log.flush(everything=True)
    assert [c.decision.target for c in await scaling_rows.read_decisions(store, "guide", 9)] == [2]

    before = world.loop.targets.memories()["guide"]
    # The machine was rebooted: the monotonic clock begins anew, 30 s passed on the wall.
    world.moment = Moment(7.0, world.moment.at + 30.0)
    world.restart()
    later = log_of(world, store)
    await later.restore()
    memory = world.loop.targets.memories()["guide"]
    assert memory.target == 2
    assert 7.0 - memory.busy_at_s == pytest.approx(30.0 + 1000.0 - before.busy_at_s, abs=5.0)
    assert world.loop.targets.capacities.of(world.registry.get("guide")) is not None  # a guess


async def test_wall_clock_that_was_set_back_counts_as_no_time(world: World, store: Store) -> None:
    await world.deploy()
    memory = Memory(target=1, busy_at_s=-5.0, at_s=0.0, peaks=((-5.0, 1),))
    await scaling_rows.put_memories(store, {"guide": memory, "gone": memory}, world.moment.at + 999)
    await log_of(world, store).restore()
    assert world.loop.targets.memories() == {"guide": memory.shifted(world.moment.s)}


async def test_what_was_learned_is_stored_for_each_kind(world: World, store: Store) -> None:
    kind, steps = Kind("guide", 1, "cpu"), Steps(100, 100, 100, 1.0, 1.0, 5, 500, 0, 0.1)
    await scaling_rows.put_capacities(store, {kind: (8, steps)}, 1.0)
    await scaling_rows.put_capacities(store, {kind: (8, steps)}, 2.0)
    assert await scaling_rows.read_capacities(store) == {kind: (8, steps)}


async def test_memories_of_deleted_models_go(world: World, store: Store) -> None:
    await world.deploy()
    world.ask(queued=1)
    world.run()
    log = log_of(world, store)
    await log.flush(everything=True)
    assert list(await scaling_rows.read_memories(store)) == ["guide"]
    await world.registry.delete("guide")
    world.run(20.0)
    await log.flush(everything=True)
    assert await scaling_rows.read_memories(store) == {}
