"""Pools against a dashboard of our own that behaves as Ray's does."""

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import httpx
import pytest

from models.errors import BadRequestError, UnreachableError
from serving.controller.events import EventLog
from serving.controller.pools import PoolKeeper, pool_args
from serving.controller.store import Store
from tests.serving.controller.fake_ray import FakeRay

Keep = Callable[[Mapping[str, int | None]], PoolKeeper]


@pytest.fixture
def ray() -> FakeRay:
    return FakeRay()


@pytest.fixture
def events(store: Store) -> EventLog:
    return EventLog(store)


@pytest.fixture
async def keep(ray: FakeRay, events: EventLog, tmp_path: Path) -> AsyncIterator[Keep]:
    token_path = tmp_path / "auth_token"
    token_path.write_text("ray-token\n")
    keepers = []

    def make(pools: Mapping[str, int | None]) -> PoolKeeper:
        transport = httpx.ASGITransport(ray.app)
        keepers.append(PoolKeeper(pools, "http://ray", token_path, events, transport))
        return keepers[-1]

    yield make
    for keeper in keepers:
        await keeper.close()


async def settle(keeper: PoolKeeper) -> int:
    """Rounds until the keeper is content."""
    for rounds in range(1, 10):
        if await keeper.check(0.0):
            return rounds
    raise AssertionError("the pools never settled")


async def kinds(store: Store, events: EventLog) -> list[tuple[str, str]]:
    await events.flush()
    return [(event.kind, event.message) for event in await store.events(100)]


async def test_pools_are_made_with_their_number_of_hosts(ray: FakeRay, keep: Keep) -> None:
    await settle(keep({"cpu": 2, "h200x8": 1}))
    (put,) = ray.puts
    assert put["proxy_location"] == "Disabled"
    cpu, gpu = put["applications"]
    assert cpu == {
        "name": "penstock-cpu",
        "route_prefix": None,
        "import_path": "serving.engine.host:build_pool",
        "args": {"pool": "cpu", "gpus": 0, "num_cpus": 1.0, "accelerator": "cpu"},
        "external_scaler_enabled": True,
        "deployments": [{"name": "EngineHost", "num_replicas": 2}],
    }
    assert gpu["args"] == {"pool": "h200x8", "gpus": 8, "num_cpus": 1.0, "accelerator": "h200"}
    assert ray.scales == []


async def test_pools_that_are_as_they_shall_be_are_left_alone(ray: FakeRay, keep: Keep) -> None:
    await settle(keep({"cpu": 2}))
    assert await keep({"cpu": 2}).check(0.0)
    assert len(ray.puts) == 1


async def test_pools_are_scaled_without_a_new_put(ray: FakeRay, keep: Keep) -> None:
    await settle(keep({"cpu": 2}))
    await settle(keep({"cpu": 3}))
    assert len(ray.puts) == 1
    assert ray.scales == [("penstock-cpu", "EngineHost", 3)]


async def test_pools_may_have_no_host_at_all(ray: FakeRay, keep: Keep) -> None:
    await settle(keep({"cpu": 0}))
    assert ray.puts[0]["applications"][0]["deployments"][0]["num_replicas"] == 1
    assert ray.scales == [("penstock-cpu", "EngineHost", 0)]


async def test_pools_leave_other_applications_in_the_list(ray: FakeRay, keep: Keep) -> None:
    theirs = {"name": "theirs", "import_path": "their:app", "runtime_env": {"env_vars": {"A": "b"}}}
    ray.applications["theirs"] = {
        "status": "RUNNING", "deployed_app_config": theirs, "deployments": {},
    }  # fmt: skip
    ray.applications["by-hand"] = {
        "status": "RUNNING", "deployed_app_config": None, "deployments": {},
    }  # fmt: skip
    await settle(keep({"cpu": 1}))
    assert ray.puts[0]["applications"][0] == theirs


async def test_pools_come_back_when_somebody_deleted_them(ray: FakeRay, keep: Keep) -> None:
    keeper = keep({"cpu": 1})
    await settle(keeper)
    ray.applications.clear()
    await settle(keeper)
    assert "penstock-cpu" in ray.applications


async def test_pools_follow_a_changed_shape(ray: FakeRay, keep: Keep) -> None:
    await settle(keep({"cpu": 1}))
    ray.applications["penstock-cpu"]["deployed_app_config"]["args"]["num_cpus"] = 7
    await settle(keep({"cpu": 1}))
    assert len(ray.puts) == 2


async def test_pools_tell_of_an_application_that_does_not_deploy(
    ray: FakeRay, keep: Keep, store: Store, events: EventLog
) -> None:
    keeper = keep({"cpu": 1})
    await settle(keeper)
    app = ray.applications["penstock-cpu"]
    app.update(status="DEPLOY_FAILED", message="No module named 'serving'\nat line 1")
    assert await keeper.check(0.0)
    assert await keeper.check(0.0)
    assert len(ray.puts) == 1
    assert not await keeper.check(30.0)  # once more after half a minute
    assert len(ray.puts) == 2
    app.update(status="RUNNING")
    assert await keeper.check(30.0)
    assert (await kinds(store, events))[-3:] == [
        ("pool_failed", "pool cpu: No module named 'serving'"),
        ("pool_scaled", "asked Ray for the pools cpu (1)"),
        ("pool_recovered", "Ray has all pools again"),
    ]


async def test_pools_tell_when_ray_is_away(ray: FakeRay, keep: Keep) -> None:
    ray.away = True
    with pytest.raises(UnreachableError, match=r"503 to GET .*the GCS may be down"):
        await keep({"cpu": 1}).check(0.0)


async def test_pools_tell_when_the_token_is_wrong_or_missing(
    ray: FakeRay, keep: Keep, tmp_path: Path
) -> None:
    ray.token = "another"
    with pytest.raises(UnreachableError, match="401"):
        await keep({"cpu": 1}).check(0.0)
    (tmp_path / "auth_token").unlink()
    with pytest.raises(UnreachableError, match="No such file"):
        await keep({"cpu": 1}).check(0.0)


@pytest.mark.parametrize("pool", ["", "gpu", "x4", "h200x", "h200x0", "h200x-1"])
def test_pool_args_refuse_what_is_no_shape(pool: str) -> None:
    with pytest.raises(BadRequestError, match="is no shape"):
        pool_args(pool)


def test_pool_args_read_the_shape_from_the_name() -> None:
    assert pool_args("rtx-6000x2")["accelerator"] == "rtx-6000"
    assert pool_args("gb200x4")["gpus"] == 4


async def test_size_that_changes_is_told_to_ray_and_none_leaves_it_alone(
    ray: FakeRay, keep: Keep
) -> None:
    sizes: dict[str, int | None] = {"cpu": 2, "h200x1": None}
    keeper = keep(sizes)
    await settle(keeper)
    ray.applications["penstock-h200x1"]["deployments"]["EngineHost"]["target_num_replicas"] = 5
    sizes["cpu"] = 4
    await settle(keeper)
    assert ray.scales == [("penstock-cpu", "EngineHost", 4)]
    # What has to be put anew keeps the hosts that it has.
    del ray.applications["penstock-cpu"]
    await settle(keeper)
    kept = {
        app["name"]: app["deployments"][0]["num_replicas"] for app in ray.puts[-1]["applications"]
    }
    assert kept == {"penstock-cpu": 4, "penstock-h200x1": 5}
