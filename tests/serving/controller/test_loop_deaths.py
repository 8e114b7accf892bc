"""The control loop, with a clock turned by hand: what dies, and starts that fail."""

import pytest

from serving.protocol import EnginePhase, ModelState
from tests.serving.controller.world import World, awake

STARTING, FAILED = EnginePhase.STARTING, EnginePhase.FAILED


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
