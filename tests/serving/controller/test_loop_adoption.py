"""The control loop, with a clock turned by hand: hosts that were there before it."""

from serving.protocol import EnginePhase, ModelState
from tests.serving.controller.world import World, awake, engine_report, registration

READY = EnginePhase.READY


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
