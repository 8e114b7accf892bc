"""Models that share two hosts, in a running loop: by priority, by need, never below a minimum; and
bounds that an operator or the hour sets."""

from tests.serving.controller.world import FakeHost, World


def running(world: World) -> dict[str, int]:
    """Engines of each model."""
    return {model: len(found) for model, found in world.loop.fleet.bound_by_model().items()}


def start_all(world: World) -> None:
    for host in world.alive:
        if host.assigned is not None:
            host.start()
    world.run()


def work(world: World, model: str) -> None:
    """Requests run in every engine of the model, and some wait."""
    busy = {engine.engine_id: 4 for engine in world.loop.fleet.bound(model)}
    world.ask(model, queued=8, running=busy)


def drained(world: World, hosts: list[FakeHost]) -> None:
    for host in hosts:
        seen = world.loop.fleet.find(host.host_id)
        if seen is not None and seen.leaving is not None:
            host.idle()
    world.run(1.0)


async def test_higher_priority_takes_what_the_lower_one_has_above_its_minimum(
    world: World,
) -> None:
    hosts = [world.host("h1"), world.host("h2")]
    await world.deploy("low", scaling={"min": 1, "max": 2})
    await world.deploy("high", scaling={"max": 2, "priority": 5})
    work(world, "low")
    world.run(1.0)
    start_all(world)
    assert running(world) == {"low": 2}
    world.ask("high", queued=1)
    for _ in range(3):
        work(world, "low")
        world.run(1.0)
        drained(world, hosts)
    assert running(world) == {"low": 1, "high": 1}
    start_all(world)
    for _ in range(8):  # both want two; nobody takes anything back
        work(world, "low")
        work(world, "high")
        world.run(1.0)
        drained(world, hosts)
        assert running(world) == {"low": 1, "high": 1}


async def test_equals_share_so_that_each_has_one(world: World) -> None:
    hosts = [world.host("h1"), world.host("h2")]
    await world.deploy("rich", scaling={"max": 2})
    await world.deploy("poor", scaling={"max": 2})
    work(world, "rich")
    world.run(1.0)
    start_all(world)
    world.ask("poor", queued=1)
    for _ in range(6):
        work(world, "rich")
        world.run(1.0)
        drained(world, hosts)
    assert running(world) == {"rich": 1, "poor": 1}


async def test_hour_sets_the_bounds(world: World) -> None:
    world.host("h1")
    world.host("h2")
    await world.deploy(scaling={"max": 1, "schedule": [{"min": 2}]})
    world.run(1.0)
    assert world.loop.targets.of("guide") == 2


async def test_pause_keeps_what_runs_and_resume_lets_it_go(world: World) -> None:
    world.host("h1")
    world.host("h2")
    await world.deploy(scaling={"max": 2, "idle_timeout_s": 5.0})
    world.ask(queued=1)
    world.run(1.0)
    start_all(world)
    await world.deploy(scaling={"max": 2, "idle_timeout_s": 5.0, "paused": True})
    world.ask()
    world.run(30.0)
    assert world.loop.targets.of("guide") == 2
    assert len(world.loop.fleet.bound("guide")) == 2
    await world.deploy(scaling={"max": 2, "idle_timeout_s": 5.0, "paused": True, "min": 0})
    world.run(1.0)
    await world.deploy(scaling={"max": 2, "idle_timeout_s": 5.0})
    world.run(1.0)
    assert world.loop.targets.of("guide") == 0


async def test_pause_holds_over_a_restart_of_the_controller(world: World) -> None:
    host = world.host("h1")
    await world.deploy(scaling={"max": 1, "paused": True})
    world.ask(queued=1)
    world.run(1.0)
    assert host.assigned is None  # it slept when it was paused, and goes on to
    assert world.loop.targets.last("guide") is not None
