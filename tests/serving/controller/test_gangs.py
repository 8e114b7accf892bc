"""Engines that several hosts run: bound together, served by the first, ended as one."""

from typing import Any

import pytest

from models.errors import ManifestError
from serving.protocol import EnginePhase, GangPlace, ModelState
from tests.serving.controller.world import FakeHost, World, engine_report

READY, STARTING, FAILED = EnginePhase.READY, EnginePhase.STARTING, EnginePhase.FAILED
TWO = {"resources": {"tensor_parallel": 2, "hosts": 2}}


def part(host: FakeHost) -> GangPlace:
    assert host.assigned is not None
    assert host.assigned.gang is not None
    return host.assigned.gang


async def asked(world: World, hosts: int = 2, **fields: Any) -> list[FakeHost]:
    """Some hosts, and a model that is asked for."""
    found = [world.host(f"h{n}") for n in range(1, hosts + 1)]
    await world.deploy(**{**TWO, **fields})
    world.ask(queued=1)
    world.run()
    return found


async def serving(world: World, hosts: int = 2) -> list[FakeHost]:
    """A gang of the first two hosts that serves."""
    found = await asked(world, hosts)
    found[1].report(STARTING)
    found[0].start()
    found[1].report(READY, url=None, token=None)
    world.ask()
    world.run()
    assert world.route().state is ModelState.READY
    return found


async def test_gang_is_bound_whole_and_meets_at_its_first_host(world: World) -> None:
    first, second = await asked(world)
    assert (part(first).rank, part(second).rank) == (0, 1)
    assert part(first).size == 2
    assert part(first).leader == part(second).leader == first.assigned.engine_id  # type: ignore[union-attr]
    assert (part(first).address, part(first).port) == (part(second).address, part(second).port)
    assert first.assigned.start_id == second.assigned.start_id == "req-guide"  # type: ignore[union-attr]
    assert first.assigned.engine_id != second.assigned.engine_id  # type: ignore[union-attr]


async def test_gang_with_too_few_hosts_is_not_bound_at_all(world: World) -> None:
    (only,) = await asked(world, hosts=1)
    assert only.assigned is None
    assert "fewer than 2 of 1 host are free" in world.loop.standing("guide").reason
    second = world.host("h2")
    world.run()
    assert (part(only).rank, part(second).rank) == (0, 1)


async def test_gang_is_one_engine_with_one_route(world: World) -> None:
    first, _ = await serving(world)
    (endpoint,) = world.route().endpoints
    assert endpoint.engine_id == first.assigned.engine_id  # type: ignore[union-attr]
    assert [e.engine_id for e in world.loop.fleet.engines()] == [endpoint.engine_id]


@pytest.mark.parametrize("how", ["the part ends", "the host is lost", "the host forgets it"])
async def test_gang_ends_as_one_with_any_part_and_starts_anew_as_one(
    world: World, how: str
) -> None:
    first, second, third = await serving(world, hosts=3)
    before = part(first).leader
    match how:
        case "the part ends":
            second.report(FAILED, error="a rank of the engine ended")
        case "the host is lost":
            world.kill(second)
            world.run(world.settings.host_timeout_s + 1)
        case "the host forgets it":
            second.idle(), second.idle()
    world.loop.step()
    assert world.route().endpoints == ()
    host = world.loop.fleet.find("h1")
    assert host is not None
    assert host.assignment.engine is None
    assert not host.assignment.drain  # its requests can get no further
    for host in (first, second):
        host.idle()
    world.ask(queued=1)
    world.run(30)
    found = [host for host in (first, second, third) if host in world.alive and host.assigned]
    assert sorted(part(host).rank for host in found) == [0, 1]
    assert part(found[0]).leader == part(found[1]).leader != before
    assert world.told.count("engine_failed") == 1


async def test_gang_whose_first_part_ends_takes_the_others_along(world: World) -> None:
    first, second = await serving(world)
    world.ask()
    first.report(FAILED, error="killed")
    world.loop.step(), world.loop.step()
    assert first.assigned is None
    assert second.assigned is None
    assert world.told.count("engine_failed") == 1


async def test_gangs_parts_stay_until_the_first_one_has_drained(world: World) -> None:
    first, second = await serving(world)
    await world.registry.delete("guide")
    world.loop.changed("guide")
    assigned = first.assigned
    world.run()
    assert first.assigned is None
    assert part(second).rank == 1  # else its requests would end in the middle
    assert assigned is not None
    world.loop.report("h1", engine_report(assigned, EnginePhase.DRAINING))
    world.run()
    assert part(second).rank == 1
    first.idle()
    world.run()
    assert second.assigned is None


async def test_nobody_gives_way_to_a_gang_whose_own_hosts_still_drain(world: World) -> None:
    _, _, third = await serving(world, hosts=3)
    await world.deploy("other")
    world.ask("other", queued=1)
    world.run()
    third.start()
    world.ask("other")
    world.ask(queued=1)
    world.run()
    await world.deploy(**TWO, engine={"max_num_seqs": 5})  # the old gang has to go first
    world.run(3)
    assert third.assigned is not None
    assert third.assigned.manifest.name == "other"


async def test_gang_is_adopted_whole_by_a_controller_that_restarted(world: World) -> None:
    first, second = await serving(world)
    reports = [
        engine_report(h.assigned, READY, gang=h.assigned.gang, slots=4)  # type: ignore[union-attr,arg-type]
        for h in (first, second)
    ]
    leader = part(first).leader
    world.restart()
    world.alive.clear()
    for name, report in zip(("h2", "h1"), reversed(reports), strict=True):
        world.host(name, engine=report)
        world.loop.step()
    world.run(5)
    assert [e.engine_id for e in world.route().endpoints] == [leader]
    assert [part(host).rank for host in world.alive] == [1, 0]


async def test_part_of_a_gang_that_nobody_leads_is_ended(world: World) -> None:
    _, second = await serving(world)
    report = engine_report(second.assigned, READY, gang=part(second), url=None)  # type: ignore[arg-type]
    world.restart()
    world.alive.clear()
    alone = world.host("h2", engine=report)
    world.ask()
    world.run(5)
    assert alone.assigned is None


async def test_deploy_of_more_gangs_than_hosts_is_refused(world: World) -> None:
    with pytest.raises(ManifestError, match=r"3 engines need 6 hosts, but pool cpu has 2"):
        await world.deploy(**TWO, scaling={"max": 3})
