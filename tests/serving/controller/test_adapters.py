"""Adapters in the control loop: running engines are told, routes name what is loaded."""

from serving.protocol import AdapterReport, AdapterRoute, EnginePhase
from tests.serving.controller.world import World

READY = EnginePhase.READY
PIRATE = {"name": "pirate", "source": "file:///adapters/pirate"}
LOADED = AdapterReport(name="pirate", source=PIRATE["source"])
ROOM = {"lora": {}}


async def awake(world: World, **fields: object) -> None:
    world.host("h1"), world.host("h2")
    await world.deploy(scaling={"min": 1}, **fields)
    world.run()
    world.alive[0].start()
    world.run()


async def test_added_adapter_reaches_the_running_engine_and_its_route(world: World) -> None:
    await awake(world, engine=ROOM)
    (host, _), (endpoint,) = world.alive, world.route().endpoints
    version = world.loop.fleet.find("h1").changes.version  # type: ignore[union-attr]
    await world.deploy(scaling={"min": 1}, engine=ROOM, adapters=[PIRATE])
    world.run()
    assert host.assigned is not None and host.assigned.engine_id == endpoint.engine_id
    assert [spec.name for spec in host.assigned.adapters or ()] == ["pirate"]
    assert world.loop.fleet.find("h1").changes.version > version  # type: ignore[union-attr]
    assert world.route().adapters == (AdapterRoute(name="pirate"),)
    assert world.route().endpoints[0].adapters == ()

    host.report(READY, adapters=(LOADED,))
    world.run()
    assert world.route().endpoints[0].adapters == ("pirate",)
    assert world.told.count("adapter_loaded") == 1

    await world.deploy(scaling={"min": 1}, engine=ROOM)
    world.run()
    assert (world.route().adapters, world.route().endpoints[0].adapters) == ((), ())
    assert host.assigned.engine_id == endpoint.engine_id


async def test_adapter_that_no_engine_could_load_is_told_of_and_the_model_serves_on(
    world: World,
) -> None:
    await awake(world, engine=ROOM, adapters=[PIRATE])
    fault = AdapterReport(name="pirate", error="rank 64", hint="lower it")
    for _ in range(2):
        world.alive[0].report(READY, adapters=(fault,))
        world.run()
    assert world.route().adapters == (AdapterRoute(name="pirate", failed=True),)
    assert world.route().endpoints
    assert world.told.count("adapter_failed") == 1


async def test_first_adapter_of_engines_without_room_takes_a_rolling_revision(
    world: World,
) -> None:
    await awake(world)
    old = world.route().endpoints[0].engine_id
    await world.deploy(scaling={"min": 1}, adapters=[PIRATE])
    world.run()
    assert [endpoint.engine_id for endpoint in world.route().endpoints] == [old], "it serves on"
    new = world.alive[1]
    assert new.assigned is not None and new.assigned.manifest.engine.lora is not None
    new.start()
    new.report(READY, adapters=(LOADED,))
    world.run()
    (endpoint,) = world.route().endpoints
    assert endpoint.engine_id != old and endpoint.adapters == ("pirate",)


async def test_restarted_controller_tells_an_adopted_engine_its_adapters(world: World) -> None:
    await awake(world, engine=ROOM, adapters=[PIRATE])
    host = world.alive[0]
    assert host.assigned is not None and host.assigned.adapters is not None
    assert [spec.name for spec in host.assigned.adapters] == ["pirate"]
