"""The autoscaler over HTTP: decisions that stay, bounds changed in place, capacity, demand."""

from collections.abc import AsyncIterator

import pytest

from models.errors import ManifestError
from serving.controller.scaling_api import changed
from serving.scaling import ScalingChange
from tests.serving.controller.served import Served, serve
from tests.serving.controller.world import manifest, settings


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with serve(settings(database_url=database_url)) as served:
        yield served


async def test_decisions_are_told_after_a_restart_too(database_url: str) -> None:
    where = settings(database_url=database_url)
    async with serve(where) as first:
        await first.deploy(scaling={"max": 2})
        await first.demand(queued=1, arrivals=1)
        first.controller.loop.step()
        told = await first.admin.get("/admin/v1/models/guide/decisions")
        (one,) = told.json()["items"]
        assert (one["before"], one["target"], one["queued"]) == (0, 1, 1)
        assert one["prefill_tps"] > 0  # the planner's guess
    async with serve(where) as second:
        again = await second.admin.get("/admin/v1/models/guide/decisions?limit=5")
        assert again.json()["items"] == [one]
        assert second.controller.loop.targets.memories()["guide"].target == 1
        assert (await second.admin.get("/admin/v1/models/none/decisions")).status_code == 404


async def test_bounds_change_in_place_and_nothing_else_does(served: Served) -> None:
    await served.deploy(scaling={"idle_timeout_s": 60.0}, engine={"max_num_seqs": 8})
    change = {"min": 1, "max": 2, "paused": True}
    answer = await served.admin.patch("/admin/v1/models/guide/scaling", json=change)
    told = answer.json()
    assert (told["model"], told["revision"], told["changed"]) == ("guide", 2, True)
    model = served.controller.registry.get("guide")
    scaling = model.manifest.scaling
    assert (scaling.min, scaling.max, scaling.paused, scaling.idle_timeout_s) == (1, 2, True, 60.0)
    assert model.has_engine_of(1)  # what runs goes on
    same = await served.admin.patch("/admin/v1/models/guide/scaling", json={"max": 2})
    assert same.json()["changed"] is False
    assert (await served.admin.get("/admin/v1/models/guide")).json()["scaling_reason"] == "paused"


@pytest.mark.parametrize(
    ("body", "status"),
    [({"min": 5, "max": 1}, 400), ({"max": 99}, 400), ({"most": 1}, 422), ({"max": 0}, 422)],
)
async def test_impossible_bounds_are_refused(
    served: Served, body: dict[str, int], status: int
) -> None:
    await served.deploy()
    answer = await served.admin.patch("/admin/v1/models/guide/scaling", json=body)
    assert answer.status_code in (status, 400)
    assert served.controller.registry.get("guide").revision == 1


async def test_capacity_is_told_with_its_source(served: Served) -> None:
    await served.deploy()
    told = (await served.admin.get("/admin/v1/models/guide/capacity")).json()
    assert (told["source"], told["slots"], told["starts_s"]) == ("guessed", 64, [])


async def test_demand_is_told_by_the_second(served: Served) -> None:
    await served.deploy()
    await served.demand(arrivals=2, arrived_prompt_tokens=80, finished=1, finished_output_tokens=30)
    served.controller.loop.step()
    await served.controller.scaling.flush(everything=True)
    ((_, *numbers),) = (await served.admin.get("/admin/v1/models/guide/demand")).json()["seconds"]
    assert numbers == [2, 80, 1, 30]


async def test_objective_below_the_floor_is_warned_of_and_accepted(served: Served) -> None:
    slo = {"slo": {"ttft_s": 0.0001, "tpot_s": 0.0001}}
    answer = await served.deploy(scaling=slo)
    assert answer.status_code == 201
    warnings = answer.json()["warnings"]
    assert any("ttft_s 0.0001 is below one step of the engine" in w for w in warnings)
    assert any("tpot_s 0.0001" in w for w in warnings)
    assert (await served.deploy("plain")).json()["warnings"] == []


def test_change_leaves_the_rest_of_a_manifest_as_its_author_wrote_it() -> None:
    before = manifest(scaling={"max": 3, "idle_timeout_s": 9.0})
    after = changed(before, ScalingChange(min=1))
    assert after.scaling.model_fields_set == {"min", "max", "idle_timeout_s"}
    with pytest.raises(ManifestError, match="above max"):
        changed(before, ScalingChange(min=4))
