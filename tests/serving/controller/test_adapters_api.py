"""`/admin/v1/models/{name}/adapters` over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.models.adapter_files import write_adapter, write_base
from tests.serving.controller.served import Served, serve
from tests.serving.controller.world import settings


@pytest.fixture
async def served(database_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    base = write_base(tmp_path / "base")
    async with serve(settings(database_url=database_url, pools={"cpu": 2})) as served:
        deployed = await served.deploy("mine", source=base.as_uri())
        assert deployed.status_code == 201, deployed.text
        yield served


async def put(served: Served, name: str, folder: Path) -> httpx.Response:
    body = {"source": folder.as_uri()}
    return await served.admin.put(f"/admin/v1/models/mine/adapters/{name}", json=body)


async def test_adapters_are_added_listed_and_removed(served: Served, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a")
    added = await put(served, "pirate", folder)
    assert (added.status_code, added.json()["changed"]) == (200, True)
    assert (await put(served, "pirate", folder)).json()["changed"] is False
    (listed,) = (await served.admin.get("/admin/v1/models/mine/adapters")).json()["items"]
    assert (listed["served"], listed["loaded"], listed["engines"]) == ("mine:pirate", 0, 0)
    gone = await served.admin.delete("/admin/v1/models/mine/adapters/pirate")
    assert (gone.status_code, gone.json()["revision"]) == (200, 3)
    model = (await served.admin.get("/admin/v1/models/mine")).json()
    assert model["manifest"]["engine"]["lora"]["at_once"] == 4, "the room stays"
    again = await served.admin.delete("/admin/v1/models/mine/adapters/pirate")
    assert again.status_code == 404
    kinds = [
        entry["action"] for entry in (await served.admin.get("/admin/v1/audit")).json()["items"]
    ]
    assert kinds.count("model.adapters") == 2


@pytest.mark.parametrize(
    ("adapter", "said"), [({"rank": 64}, "rank 64"), ({"width": 16}, "another base model")]
)
async def test_adapter_of_wrong_rank_or_base_is_refused_and_changes_nothing(
    served: Served, tmp_path: Path, adapter: dict[str, int], said: str
) -> None:
    refused = await put(served, "pirate", write_adapter(tmp_path / "a", **adapter))
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "invalid_adapter")
    assert error["param"] == "adapters.pirate" and said in error["message"]
    model = (await served.admin.get("/admin/v1/models/mine")).json()
    assert (model["revision"], model["manifest"].get("adapters", [])) == (1, [])


async def test_bad_names_and_models_are_refused(served: Served, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a")
    assert (await put(served, "Pirate", folder)).status_code == 400
    body = {"source": folder.as_uri()}
    unknown = await served.admin.put("/admin/v1/models/none/adapters/a", json=body)
    assert unknown.status_code == 404
    assert (await served.tenant.get("/admin/v1/models/mine/adapters")).status_code == 403


async def test_folder_that_only_hosts_may_have_is_a_warning(served: Served, tmp_path: Path) -> None:
    told = await put(served, "pirate", tmp_path / "elsewhere")
    assert (told.status_code, "as seen from the controller" in told.json()["warnings"][0]) == (
        200, True,
    )  # fmt: skip
