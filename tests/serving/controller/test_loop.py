"""The control loop, with a clock turned by hand: deploys, wakes, sleeps and all that dies."""

import asyncio
from typing import Any

import pytest

from models.manifest import parse_manifest
from serving.protocol import DemandReport, EnginePhase, ModelDemand, ModelState, StartPhase
from tests.serving.controller.world import World, engine_report, registration

READY, STARTING, FAILED = EnginePhase.READY, EnginePhase.STARTING, EnginePhase.FAILED


async def awake(world: World, **fields: Any) -> None:
    """Two hosts, the first of which serves `guide`."""
    world.host("h1"), world.host("h2")
    await world.deploy(**fields)
    world.run()
    world.ask(queued=1)
    world.run()
    world.alive[0].start()
    world.run()


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
    text = world.loop._telemetry.render(world.loop.fleet, {"guide": 1}, ["cpu"]).decode()
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


async def test_loop_rebinds_elsewhere_when_a_host_is_lost(world: World) -> None:
    await awake(world)
    first, second = world.alive
    world.kill(first)
    world.run(3.5)
    assert world.route().endpoints != ()
    world.run(1.0)
    assert world.route().endpoints == ()
    assert second.assigned is not None
    assert world.told[-3:] == ["host_lost", "engine_lost", "woken"]


async def test_loop_notices_a_host_sooner_whose_long_poll_broke_off(world: World) -> None:
    await awake(world)
    first = world.alive[0]
    seen = world.loop.fleet.find(first.host_id)
    assert seen is not None
    seen.poll_begins()
    world.kill(first)
    seen.poll_ends(world.moment.s, dropped=True)
    world.run(0.5)
    assert world.route().endpoints != ()
    world.run(0.5)
    assert world.route().endpoints == ()


async def test_loop_keeps_a_host_that_polls_or_reports_again(world: World) -> None:
    await awake(world)
    first = world.alive[0]
    seen = world.loop.fleet.find(first.host_id)
    assert seen is not None
    seen.poll_begins()
    seen.poll_ends(world.moment.s, dropped=True)
    world.run(3.0)  # it reports, as while it drains
    assert world.route().endpoints != ()
    seen.poll_begins()
    world.kill(first)
    world.run(3.5)
    assert world.route().endpoints != ()  # it has a poll open: the usual time counts


async def test_loop_takes_nobody_for_silent_after_a_pause_of_its_own(world: World) -> None:
    await awake(world)
    world.turn(60.0)  # the machine was suspended
    world.loop.step()
    assert world.route().endpoints != ()
    world.run(1.0)
    assert "host_lost" not in world.told


async def test_loop_ejects_an_engine_that_died_and_starts_another_at_once(world: World) -> None:
    await awake(world)
    first, second = world.alive
    world.turn(10.0)
    first.report(FAILED, error="killed by SIGKILL")
    world.run()
    assert world.route().endpoints == ()
    assert world.route().state is ModelState.WAKING
    assert second.assigned is not None  # at once: it had been ready for long
    assert world.told[-2:] == ["engine_failed", "woken"]


async def test_loop_counts_three_failed_starts_and_gives_up_with_the_reason(world: World) -> None:
    world.host("h1")
    world.host("h2")
    await world.deploy()
    world.run()
    world.ask(queued=1)
    used = []
    for _attempt in range(3):
        world.run(1.25)
        (host,) = [h for h in world.alive if h.assigned is not None]
        used.append(host.host_id)
        host.report(FAILED, error="no space left", hint="free some disk")
        world.run()
        host.idle()
    world.run(5.0)
    assert used == ["h1", "h2", "h1"]  # the host of the last failure is avoided
    route = world.route()
    assert route.state is ModelState.FAILED
    assert route.reason == "its engine does not start"  # the tenant learns no more
    standing = world.loop.standing("guide")
    assert "no space left (free some disk)" in standing.reason
    assert world.told.count("engine_failed") == 3
    assert world.told[-1] == "model_failed"
    assert [h.assigned for h in world.alive] == [None, None]


async def test_loop_tries_a_failed_model_again_after_a_minute_or_a_deploy(world: World) -> None:
    host = world.host("h1")
    await world.deploy()
    world.run()
    world.ask(queued=1)

    async def fail(times: int) -> None:
        for _attempt in range(times):
            world.run(1.25)
            host.report(FAILED, error="broken")
            world.run()
            host.idle()

    await fail(3)
    world.run(59.0)
    assert host.assigned is None
    world.run(2.0)
    assert host.assigned is not None
    await fail(1)
    assert world.route().state is ModelState.FAILED
    await world.deploy()
    world.run()
    assert host.assigned is not None
    assert world.route().state is ModelState.WAKING


async def test_loop_waits_longer_after_each_failed_start(world: World) -> None:
    host = world.host("h1")
    await world.deploy()
    world.run()
    world.ask(queued=1)
    world.run()
    waits = []
    for _attempt in range(2):
        host.report(FAILED, error="broken")
        world.run()
        host.idle()
        failed_s = world.moment.s
        while host.assigned is None:
            world.run()
            world.turn(0.05)
        waits.append(world.moment.s - failed_s)
    assert waits[0] == pytest.approx(0.2, abs=0.11)
    assert waits[1] == pytest.approx(1.0, abs=0.11)


async def test_loop_gives_up_on_an_engine_that_does_not_get_ready(world: World) -> None:
    host = world.host("h1")
    await world.deploy()
    world.run()
    world.ask(queued=1)
    world.run()
    host.report(STARTING)
    world.run(179.0)
    assert host.assigned is not None
    world.run(1.5)
    assert host.assigned is None
    assert "it was not ready in time" in world.loop.standing("guide").reason


async def test_loop_misses_an_engine_that_its_host_does_not_speak_of(world: World) -> None:
    await awake(world)
    host = world.alive[0]
    host.idle()
    world.run()
    assert world.route().endpoints != ()  # one report may cross another
    host.idle()
    world.run()
    assert world.route().endpoints == ()
    assert "engine_failed" in world.told


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


async def test_loop_adopts_what_runs_after_a_restart(world: World) -> None:
    await awake(world, scaling={"idle_timeout_s": 30.0})
    assert world.alive[0].assigned is not None
    ran = engine_report(world.alive[0].assigned, READY)
    version = world.loop.routes.changes.version
    world.restart()
    assert world.loop.routes.changes.version >= version
    world.ask(queued=1)
    world.loop.step()
    assert not world.loop.settled  # nothing is bound or told before the hosts are here
    world.alive.clear()
    first = world.host("h1", engine=ran)
    world.host("h2")
    world.host("g1", pool="h200x1")
    world.loop.step()
    assert world.loop.settled  # all have registered: no need to wait longer
    assert first.assigned is not None
    assert first.assigned.engine_id == ran.engine_id
    assert [e.engine_id for e in world.route().endpoints] == [ran.engine_id]
    assert world.told[-1] != "woken"
    world.ask(queued=0)
    world.run(29.0)
    assert world.route().state is ModelState.READY  # its idle time began anew
    world.run(2.0)
    assert world.route().state is ModelState.ASLEEP


async def test_loop_waits_for_missing_hosts_for_the_grace_time_only(world: World) -> None:
    await world.deploy()
    world.restart()
    world.host("h1")
    world.ask(queued=1)
    world.run(2.25)
    assert not world.loop.settled
    world.run(0.5)
    assert world.alive[0].assigned is not None


async def test_loop_does_not_adopt_an_engine_of_an_unknown_model_or_revision(world: World) -> None:
    await awake(world)
    assert world.alive[0].assigned is not None
    ran = engine_report(world.alive[0].assigned, READY)
    stray = world.host("h3", engine=ran.model_copy(update={"model": "gone"}))
    other = world.host("h4", engine=ran.model_copy(update={"revision": 9}))
    world.run()
    assert (stray.assigned, other.assigned) == (None, None)
    stray_host = world.loop.fleet.find("h3")
    assert stray_host is not None
    assert not stray_host.is_free


async def test_loop_unbinds_a_second_engine_that_comes_back_after_it_was_replaced(
    world: World,
) -> None:
    await awake(world)
    first, second = world.alive
    assert first.assigned is not None
    ran = engine_report(first.assigned, READY)
    world.kill(first)
    world.run(4.5)
    second.start()
    world.run()
    assert not world.loop.report("h1", ran)  # unknown: it has to register
    world.alive.append(first)
    world.loop.register(registration("h1", engine=ran))
    world.run()
    assert len(world.loop.fleet.bound("guide")) == 1


async def test_loop_takes_a_new_process_under_an_old_id_for_a_new_host(world: World) -> None:
    await awake(world)
    world.loop.register(registration("h1", pid=77))
    world.run()
    assert "host_lost" in world.told
    assert world.alive[0].assigned is None or world.route().endpoints == ()


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
