"""The sizes of pools beside a running loop: fixed ones, and one that follows its models."""

import pytest

from models.errors import BadRequestError
from serving.controller.events import EventLog
from serving.controller.pool_sizes import check_pools, pool_spec
from serving.controller.registry import Limits, Registry
from serving.controller.store import Store
from tests.serving.controller.world import World, settings


@pytest.fixture
async def world(store: Store) -> World:
    registry = Registry(store, Limits({"cpu": 4, "h200x1": 1}, memory_gib=24.0))
    where = settings(
        pools={"cpu": 4, "h200x1": 1}, pools_min={"cpu": 0}, spare_hosts=1, host_idle_s=60.0,
        node_start_s=5.0,
    )  # fmt: skip
    return World(registry, EventLog(store), settings=where)


async def test_pool_grows_for_a_model_that_wakes_and_shrinks_when_it_sleeps(world: World) -> None:
    await world.deploy(scaling={"max": 2, "idle_timeout_s": 5.0})
    told: list[int] = []
    world.loop.pools.on_change = lambda: told.append(world.loop.pools.sizes["cpu"] or 0)
    world.run(6.0)
    assert world.loop.pools.sizes == {"cpu": 0, "h200x1": 1}
    world.ask(queued=1)
    world.run()
    assert world.loop.pools.sizes["cpu"] == 3  # two engines, for nobody knows them, and a spare one
    assert "pool_sized" in world.told
    hosts = [world.host(f"h{n}") for n in range(3)]
    world.run(0.5)
    busy = [host for host in hosts if host.assigned]
    assert len(busy) == 2
    for host in busy:
        host.start()
    world.ask()
    world.run(10.0)
    for host in busy:
        host.idle()
    assert world.loop.pools.sizes["cpu"] == 3
    world.run(65.0)
    assert world.loop.pools.sizes["cpu"] == 2  # one at a time, and it has not gone yet
    for left in (1, 0, 0):
        world.kill(world.alive[-1])
        world.run(6.0)
        assert world.loop.pools.sizes["cpu"] == left
    assert told[-1] == 0


async def test_pool_that_is_not_named_keeps_its_size(world: World) -> None:
    world.run(2.0)
    assert world.loop.pools.sizes["h200x1"] == 1
    assert world.loop.pools.last("h200x1") is None
    assert world.loop.pools.least == 1


async def test_hosts_found_at_the_start_are_not_let_go_at_once(world: World) -> None:
    await world.deploy()
    world.restart()
    world.run(3.0)
    for n in range(3):  # some come late
        world.host(f"h{n}")
        world.run(0.25)
        assert world.loop.pools.sizes["cpu"] is None  # nobody knows: Ray keeps what it has
    world.run(5.0)
    assert world.loop.pools.sizes["cpu"] == 3
    world.run(70.0)
    assert world.loop.pools.sizes["cpu"] == 2


def test_price_is_that_of_the_hardware() -> None:
    where = settings(pools={"h200x8": 2}, pools_min={"h200x8": 1}, node_start_s=100.0)
    spec = pool_spec(where, "h200x8", 2)
    assert spec.price_per_hour == pytest.approx(8 * 6.31)
    assert spec.hold_s() == pytest.approx(100.0 * (1 + 60.0 / (8 * 6.31)))


@pytest.mark.parametrize("least", [{"h100x1": 1}, {"cpu": 9}, {"cpu": -1}])
def test_impossible_minimum_is_refused(least: dict[str, int]) -> None:
    with pytest.raises(BadRequestError, match="PENSTOCK_POOLS_MIN"):
        check_pools(settings(pools={"cpu": 2}, pools_min=least))


def test_impossible_shape_is_refused() -> None:
    with pytest.raises(BadRequestError, match="no shape"):
        check_pools(settings(pools={"gpus": 2}))
