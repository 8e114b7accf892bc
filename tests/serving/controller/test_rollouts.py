"""Canaries in the control loop, with a clock turned by hand."""

from typing import Any

from serving.controller.canary import Canary
from serving.controller.placement import Life
from serving.controller.rollout_keeper import stored_form
from serving.controller.rollouts import Rollouts
from serving.protocol import (
    DemandReport,
    EnginePhase,
    ModelDemand,
    ModelState,
    RevisionCounts,
    bucket_of,
)
from tests.serving.controller.world import FakeHost, World

CANARY = {"steps": [10, 50, 100], "step_s": 60, "min_requests": 20}


def other(**fields: Any) -> dict[str, Any]:
    """A manifest whose engine differs from the first one's, tried on a share first."""
    return {
        "engine": {"max_num_seqs": 9},
        "rollout": {"canary": CANARY},
        "scaling": {"min": 1, "max": 2, "idle_timeout_s": 600},
        **fields,
    }


async def old_and_new(world: World, hosts: int = 3, **fields: Any) -> list[FakeHost]:
    """One engine of revision 1 serves, and revision 2 has just been deployed beside it."""
    found = [world.host(f"h{number}") for number in range(hosts)]
    await world.deploy(scaling={"min": 1, "max": 2, "idle_timeout_s": 600})
    world.run()
    found[0].start()
    world.run()
    await world.deploy(**other(**fields))
    world.run()
    return found


def tell(world: World, revision: int, answered: int = 50, failed: int = 0) -> None:
    counts = RevisionCounts(
        revision=revision, answered=answered, failed=failed,
        ttft={bucket_of(0.1): answered}, tpot={bucket_of(0.01): answered},
    )  # fmt: skip
    demand = ModelDemand(model="guide", queued=0, revisions=(counts,))
    world.loop.hear(DemandReport(gateway_id="gw", models=(demand,)))


def revisions(world: World) -> list[int]:
    return sorted(endpoint.revision for endpoint in world.route().endpoints)


async def test_canary_stands_beside_the_old_revision_and_grows(world: World) -> None:
    hosts = await old_and_new(world)
    assert [host.assigned.revision for host in hosts if host.assigned] == [1, 2]
    hosts[1].start()
    world.run()
    assert revisions(world) == [1, 2]
    canary = world.route().canary
    assert canary is not None
    assert (canary.revisions, canary.share) == ((2,), 0.1)
    for share in (0.5, None):
        tell(world, 1)
        tell(world, 2)
        world.run(61.0)
        canary = world.route().canary
        assert (canary.share if canary else None) == share
    assert revisions(world) == [2]
    told = ["rollout_begun", "rollout_grown", "rollout_promoted"]
    assert [kind for kind in world.told if kind.startswith("rollout")] == told


async def test_worse_revision_loses_its_traffic_at_once(world: World) -> None:
    hosts = await old_and_new(world)
    hosts[1].start()
    world.run()
    tell(world, 1)
    tell(world, 2, answered=10, failed=15)
    world.run()
    ((canary, why),) = world.loop.rollouts.leaving()
    assert canary.stable == 1
    assert "60.0% of 25 attempts failed" in why
    assert revisions(world) == [1]
    await world.registry.apply(
        world.registry.get("guide").manifest_of(1), 0.0
    )  # as the keeper does
    world.run()
    assert world.route().canary is None
    assert revisions(world) == [1]
    assert [host.assigned.revision for host in hosts if host.assigned] == [1]


async def test_revision_that_cannot_start_leaves_the_old_one_alone(world: World) -> None:
    hosts = await old_and_new(world)
    for _ in range(3):
        world.run(120.0)
        (failing,) = [h for h in hosts if h.assigned and h.assigned.revision == 2]
        failing.report(EnginePhase.FAILED, error="bad argument")
        world.run()
    ((_, why),) = world.loop.rollouts.leaving()
    assert "does not start" in why
    assert revisions(world) == [1]


async def test_revision_whose_engines_die_under_requests_gives_way(world: World) -> None:
    hosts = await old_and_new(world)
    for _ in range(2):
        (dying,) = [h for h in hosts if h.assigned and h.assigned.revision == 2]
        dying.start()
        world.run(30.0)
        dying.report(EnginePhase.FAILED, error="killed")
        world.run(1.0)
    ((_, why),) = world.loop.rollouts.leaving()
    assert why == "2 of its engines died, 0 of the old revision's"
    assert revisions(world) == [1]


async def test_deaths_of_the_old_revisions_engines_are_not_the_new_ones(world: World) -> None:
    hosts = await old_and_new(world)
    for _ in range(3):
        (dying,) = [h for h in hosts if h.assigned and h.assigned.revision == 1]
        dying.report(EnginePhase.FAILED, error="killed")
        world.run(2.0)
        (dying,) = [h for h in hosts if h.assigned and h.assigned.revision == 1]
        dying.start()
        world.run(1.0)
    assert world.loop.rollouts.leaving() == []
    assert world.loop.rollouts.of("guide") is not None


async def test_model_that_is_deleted_while_it_goes_back_can_be_deployed_again(
    world: World,
) -> None:
    hosts = await old_and_new(world)
    hosts[1].start()
    world.run()
    tell(world, 1)
    tell(world, 2, answered=10, failed=15)
    world.run()
    assert world.loop.rollouts.leaving()
    await world.registry.delete("guide")
    world.loop.changed("guide")
    world.run()
    assert world.loop.rollouts.leaving() == []


async def test_canary_takes_free_hosts_only(world: World) -> None:
    hosts = await old_and_new(world, hosts=1)
    world.run(600.0)
    assert [host.assigned.revision for host in hosts if host.assigned] == [1]
    assert "no engine of the new revision" in world.loop.rollouts.why("guide")


async def test_canary_takes_an_idle_models_host_and_no_busy_ones(world: World) -> None:
    hosts = [world.host("h1"), world.host("h2")]
    await world.deploy(scaling={"min": 1, "max": 1})
    await world.deploy("another", scaling={"min": 0, "max": 1, "idle_timeout_s": 3600})
    world.ask("another", queued=1)
    world.run()
    for host in hosts:
        host.start()
    world.ask("another", running={"x": 1})
    world.run()
    await world.deploy(**other())
    world.run(30.0)
    assert sorted(h.assigned.manifest.name for h in hosts if h.assigned) == ["another", "guide"]
    world.ask("another")
    world.run()
    hosts[1 if hosts[0].assigned.manifest.name == "guide" else 0].idle()
    world.run(1.0)
    assert sorted(h.assigned.revision for h in hosts if h.assigned) == [1, 2]


async def test_old_engine_that_dies_beside_a_canary_comes_back_as_it_was(world: World) -> None:
    hosts = await old_and_new(world)
    hosts[1].start()
    world.run()
    hosts[0].report(EnginePhase.FAILED, error="killed")
    world.run(30.0)
    running = sorted(h.assigned.revision for h in hosts if h.assigned)
    assert running == [1, 2]


async def test_paused_canary_keeps_its_share(world: World) -> None:
    hosts = await old_and_new(world)
    hosts[1].start()
    world.run()
    assert world.loop.rollouts.pause("guide", True)
    tell(world, 1)
    tell(world, 2)
    world.run(300.0)
    assert world.route().canary.share == 0.1
    assert world.loop.rollouts.pause("guide", False)
    world.run(1.0)
    assert world.route().canary.share == 0.5
    assert not world.loop.rollouts.pause("nobody", True)


async def test_scaling_of_a_canary_goes_on_with_it(world: World) -> None:
    hosts = await old_and_new(world)
    hosts[1].start()
    world.run()
    scaling = {"min": 1, "max": 2, "idle_timeout_s": 900}
    await world.deploy(**other(scaling=scaling))
    world.run()
    canary = world.loop.rollouts.of("guide")
    assert canary is not None
    assert (canary.stable, canary.candidate) == (1, 3)
    assert revisions(world) == [1, 2]


async def test_new_revision_may_wait_for_a_host(world: World) -> None:
    host = world.host("h1")
    await world.deploy(scaling={"min": 1, "max": 1})
    world.run()
    host.start()
    world.run()
    await world.deploy(
        engine={"max_num_seqs": 9}, scaling={"min": 1, "max": 1}, rollout={"no_room": "wait"}
    )
    world.run(60.0)
    assert revisions(world) == [1]
    assert "waits for a host" in world.loop.standing("guide").reason


async def test_status_says_that_the_old_revision_went_first(world: World) -> None:
    host = world.host("h1")
    await world.deploy(scaling={"min": 1, "max": 1})
    world.run()
    host.start()
    world.run()
    await world.deploy(engine={"max_num_seqs": 9}, scaling={"min": 1, "max": 1})
    world.run()
    host.idle()
    world.run(5.0)
    standing = world.loop.standing("guide")
    assert standing.state is ModelState.WAKING
    assert "the old one's engine went first" in standing.reason
    host.start()
    world.run()
    assert world.loop.standing("guide").reason == ""


async def test_paused_rollout_leaves_old_engines_where_they_are(world: World) -> None:
    hosts = [world.host(f"h{number}") for number in range(3)]
    await world.deploy(scaling={"min": 2, "max": 2})
    world.run()
    for host in hosts[:2]:
        host.start()
    world.run()
    await world.deploy(engine={"max_num_seqs": 9}, scaling={"min": 2, "max": 2})
    world.run()
    hosts[2].start()
    world.run()
    assert revisions(world) == [1, 2]
    rollouts = world.loop.rollouts
    assert rollouts.pause("guide", True, replaces=2)
    (gone,) = [host for host in hosts if host.assigned is None]
    gone.idle()
    world.run(30.0)
    assert revisions(world) == [1, 2]
    stored = [stored_form(one) for one in rollouts.all().values()]
    assert stored == [Canary("guide", 2, 2, paused=True)]
    again = Rollouts(world.events)
    again.restore(stored)
    again.follow(world.registry.models(), {"guide": {1, 2}}, world.moment.at)
    assert again.is_held("guide")
    assert rollouts.pause("guide", False)
    for _ in range(3):
        world.run(5.0)
        for host in hosts:
            engine = world.loop.fleet.find(host.host_id)
            assert engine is not None
            if engine.leaving is not None:
                host.idle()
            elif host.assigned and engine.engine and engine.engine.life is Life.STARTING:
                host.start()
    world.run(5.0)
    assert revisions(world) == [2, 2]
    assert not rollouts.pause("guide", False)


async def test_controller_goes_on_with_a_canary_that_its_engines_show(world: World) -> None:
    hosts = await old_and_new(world)
    hosts[1].start()
    world.run()
    stored = world.loop.rollouts.all()
    rollouts = world.loop.rollouts
    rollouts.restore(stored.values())
    rollouts.follow(world.registry.models(), {"guide": {1, 2}}, world.moment.at)
    assert rollouts.of("guide") == stored["guide"]


async def test_undo_goes_past_the_canary_that_its_manifest_asks_for(world: World) -> None:
    await old_and_new(world)
    rollouts = world.loop.rollouts
    assert rollouts.of("guide") is not None
    await world.deploy(scaling={"min": 1, "max": 2, "idle_timeout_s": 600})
    world.run()
    await world.deploy(**other())
    rollouts.skip("guide", 3)  # of another revision than the one that came
    world.run()
    assert rollouts.of("guide") is not None
    await world.deploy(**other(engine={"max_num_seqs": 10}))
    rollouts.skip("guide", 5)
    world.run()
    assert rollouts.of("guide") is None
