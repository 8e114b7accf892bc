"""The control loop, with a clock turned by hand: deploys, wakes, sleeps and revisions."""

import asyncio

from models.manifest import parse_manifest
from serving.protocol import DemandReport, EnginePhase, ModelDemand, ModelState, StartPhase
from tests.serving.controller.world import World, awake, engine_report

FAILED = EnginePhase.FAILED


async def test_loop_wakes_a_model_on_demand_and_routes_it_when_it_is_ready(world: World) -> None:
    host = world.host("h1")
    await world.deploy()
    world.run()
    assert world.route().state is ModelState.ASLEEP
    assert host.assigned is None

    world.ask(queued=1)
    world.loop.step()  # one round is enough
    assert host.assigned is not None
    assert host.assigned.start_id == "req-guide"
    assert world.route().state is ModelState.WAKING

    host.start()
    world.loop.step()
    route = world.route()
    assert route.state is ModelState.READY
    assert [e.engine_id for e in route.endpoints] == [host.assigned.engine_id]
    assert route.endpoints[0].slots == 64
    assert route.max_model_len == 512
    assert world.told[-2:] == ["woken", "ready"]


async def test_loop_hands_out_the_manifest_with_its_profile_filled_in(world: World) -> None:
    host = world.host("h1")
    await world.deploy(profile="latency")
    world.run()
    world.ask(queued=1)
    world.run()
    assert host.assigned is not None
    assert host.assigned.manifest.engine.max_num_seqs == 8
    assert host.assigned.manifest.engine.args["max_num_batched_tokens"] == 1024


async def test_loop_decides_on_demand_without_waiting_for_its_tick(world: World) -> None:
    host = world.host("h1")
    await world.deploy()
    task = asyncio.create_task(world.loop.run())
    await asyncio.sleep(0)
    world.ask(queued=1)
    for _ in range(5):  # turns of the event loop, in which no time passes for a timer
        await asyncio.sleep(0)
    assert host.assigned is not None
    task.cancel()


async def test_loop_marks_each_phase_of_a_start_in_order(world: World) -> None:
    await awake(world)
    (engine,) = world.loop.fleet.bound()
    unseen = (
        StartPhase.NODE_STARTED, StartPhase.HOST_STARTED, StartPhase.FETCHED,
        StartPhase.FIRST_TOKEN,
    )  # fmt: skip
    reached = [phase for phase in StartPhase if phase not in unseen]
    assert sorted(engine.marks, key=list(StartPhase).index) == reached
    marks = [engine.marks[phase] for phase in reached]
    assert marks == sorted(marks)
    text = world.telemetry.render(world.loop.fleet, {"guide": 1}, ["cpu"]).decode()
    assert 'penstock_cold_start_seconds_count{model="guide",phase="routed"} 1.0' in text
    assert 'penstock_engines{model="guide",phase="ready"} 1.0' in text
    assert 'penstock_hosts{pool="cpu",state="free"} 1.0' in text


async def test_loop_puts_an_idle_model_to_sleep(world: World) -> None:
    await awake(world, scaling={"idle_timeout_s": 5.0})
    world.ask(queued=0)
    world.run(4.5)
    assert world.route().state is ModelState.READY
    world.run(1.0)
    assert world.route().state is ModelState.ASLEEP
    assert world.route().endpoints == ()
    assert world.alive[0].assigned is None
    assert world.told[-1] == "slept"


async def test_loop_gives_a_draining_host_no_new_engine(world: World) -> None:
    await awake(world, scaling={"idle_timeout_s": 1.0})
    first, second = world.alive
    assert first.assigned is not None
    ran = first.assigned
    world.ask(queued=0)
    world.run(1.5)
    world.loop.report(first.host_id, engine_report(ran, EnginePhase.DRAINING))
    world.ask(queued=1)
    world.run()
    assert first.assigned is None
    assert second.assigned is not None


async def test_loop_holds_while_no_gateway_tells(world: World) -> None:
    await awake(world, scaling={"idle_timeout_s": 1.0})
    world.has_gateway = False
    world.run(10.0)
    assert world.route().state is ModelState.READY


async def test_loop_keeps_the_minimum_running_without_any_demand(world: World) -> None:
    host = world.host("h1")
    await world.deploy(scaling={"min": 1, "idle_timeout_s": 1.0})
    world.run()
    assert host.assigned is not None
    assert world.told[-1] == "bound"
    host.start()
    world.run(5.0)
    assert world.route().state is ModelState.READY


async def test_loop_gives_an_idle_models_host_to_one_that_waits(world: World) -> None:
    host = world.host("h1")
    await world.deploy()
    await world.deploy("other")
    world.run()
    world.ask(queued=1)
    world.run()
    host.start()
    world.ask(queued=0, running={"e": 1})
    world.ask("other", queued=1)
    world.run()
    assert host.assigned is not None
    assert host.assigned.manifest.name == "guide"  # it works
    assert "none of 1 host is free" in world.loop.standing("other").reason
    assert world.route("other").reason == "no host is free"

    ran = host.assigned
    world.ask(queued=0)
    world.run()
    assert host.assigned is None
    world.loop.report(host.host_id, engine_report(ran, EnginePhase.DRAINING))
    world.run()
    host.idle()
    world.run()
    assert host.assigned is not None
    assert host.assigned.manifest.name == "other"
    assert world.route("guide").state is ModelState.ASLEEP


async def test_loop_tells_once_that_no_host_is_free(world: World) -> None:
    await world.deploy()
    world.ask(queued=1)
    world.run(1.5)
    assert "no_host" not in world.told
    world.run(10.0)
    assert world.told.count("no_host") == 1
    world.host("h1")
    world.run()
    assert world.told[-1] == "woken"


async def test_loop_replaces_a_revision_new_before_old(world: World) -> None:
    await awake(world)
    first, second = world.alive
    assert await world.deploy(engine={"max_num_seqs": 8}) == 2
    world.run()
    assert second.assigned is not None
    assert second.assigned.revision == 2
    assert [e.revision for e in world.route().endpoints] == [1]
    second.start()
    world.run()
    assert [e.revision for e in world.route().endpoints] == [2]
    assert first.assigned is None


async def test_loop_restarts_nothing_when_only_scaling_changes(world: World) -> None:
    await awake(world)
    before = world.alive[0].assigned
    assert await world.deploy(scaling={"max": 2}) == 2
    world.run()
    assert world.alive[0].assigned == before
    assert world.alive[1].assigned is not None  # the second engine that is wanted now
    assert world.alive[1].assigned.revision == 2


async def test_loop_keeps_serving_the_old_revision_when_the_new_one_fails(world: World) -> None:
    await awake(world)
    await world.deploy(source="file:///nowhere")
    for _attempt in range(3):
        world.run(1.25)
        second = world.alive[1]
        second.report(FAILED, error="/nowhere is not a folder")
        world.run()
        second.idle()
    world.run(1.0)
    assert [e.revision for e in world.route().endpoints] == [1]
    assert "is not a folder" in world.loop.standing("guide").reason


async def test_loop_stops_engines_of_a_deleted_model(world: World) -> None:
    await awake(world)
    version = world.loop.routes.changes.version
    await world.registry.delete("guide")
    world.loop.changed("guide")
    world.run()
    assert world.alive[0].assigned is None
    delta = world.loop.routes.since(version)
    assert (delta.full, delta.models, delta.removed) == (False, (), ("guide",))


async def test_loop_binds_nothing_to_a_host_that_shuts_down(world: World) -> None:
    await awake(world)
    first, second = world.alive
    first.report(EnginePhase.DRAINING)
    world.run()
    assert "engine_failed" not in world.told
    assert second.assigned is not None
    world.loop.report("h1", None)
    await world.deploy("other")
    world.ask("other", queued=1)
    world.run()
    assert first.assigned is None


async def test_loop_grants_leases_for_ready_engines_only(world: World) -> None:
    await awake(world)
    assert world.alive[0].assigned is not None
    reply = world.loop.hear(DemandReport(gateway_id="gw"))
    assert reply.leases == {world.alive[0].assigned.engine_id: 72}


async def test_loop_shares_the_slots_of_servers_elsewhere_among_gateways(world: World) -> None:
    """No look-ahead: such a server refuses what is too much, where an engine has a queue."""
    world.has_gateway = False
    document = {
        "name": "gpt", "endpoints": [{"url": "https://a"}, {"url": "https://b"}],
        "engine": {"max_num_seqs": 4},
    }  # fmt: skip
    await world.registry.apply(parse_manifest(document), world.moment.at)
    world.loop.changed("gpt")
    world.run()
    busy = DemandReport(gateway_id="gw-1", models=(ModelDemand(model="gpt", queued=3),))
    assert set(world.loop.hear(busy).leases.values()) == {4}
    idle = world.loop.hear(DemandReport(gateway_id="gw-2"))
    assert idle.leases == {"gpt-endpoint-0": 1, "gpt-endpoint-1": 1}
    assert set(world.loop.hear(busy).leases.values()) == {3}
