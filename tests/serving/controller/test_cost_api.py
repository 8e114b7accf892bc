"""Costs over HTTP: from rows of usage and hours of the fleet to OpenAI's page."""

import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import insert

from serving.controller.cost_queries import sales
from serving.controller.fleet_hours import Row, add_rows
from serving.controller.price_store import PriceStore
from serving.controller.tenancy_tables import TOKEN_PRICES
from serving.controller.usage_tables import USAGE, USAGE_HOURS
from serving.prices import Capacity
from tests.serving.controller.served import Served, serve
from tests.serving.controller.world import settings

HOUR = int(time.time() // 3600)


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with serve(settings(database_url=database_url)) as served:
        yield served


async def sell(served: Served, at: float, project_id: str, prompt: int, completion: int) -> None:
    hour = {"hour": int(at // 3600), "org_id": "org-a", "project_id": project_id, "key_id": f"{at}",
            "model": "guide", "tier": "default"}  # fmt: skip
    tokens = {"prompt": prompt, "cached": 0, "completion": completion, "reasoning": 0}
    single = {name: value for name, value in hour.items() if name != "hour"}
    more = {"usage_id": f"{at}", "attempt_id": f"{at}-1", "revision": 1, "route": "/v1/completions",
            "status": "ok", "http_status": 200, "at": at, "duration_s": 1.0, "attempts": 1,
            "engine_id": "e", "delivered": 1, "known": True, "stored_at": at}  # fmt: skip
    async with served.controller.store.transaction() as db:
        sums = {**hour, **tokens, "requests": 1, "unknown": 0, "engine_s": 1.0}
        await db.execute(insert(USAGE_HOURS).values(**sums))
        await db.execute(insert(USAGE).values(**single, **tokens, **more))


async def price(served: Served, since: float, dollars: int) -> None:
    row = {"price_id": f"price-{since}", "model": "*", "tier": "*", "since": since,
           "input": dollars, "cached": 0, "output": dollars}  # fmt: skip
    async with served.controller.store.transaction() as db:
        await db.execute(insert(TOKEN_PRICES).values(**row))


async def test_price_that_changes_within_an_hour_is_charged_request_by_request(
    served: Served,
) -> None:
    began = (HOUR - 2) * 3600
    await price(served, 0.0, 1)
    await price(served, began + 1800.0, 3)
    await sell(served, began + 100.0, "proj-a", 10, 0)
    await sell(served, began + 3000.0, "proj-a", 10, 0)
    await sell(served, began + 3700.0, "proj-a", 10, 0)
    book = await PriceStore(served.controller.store).book()
    sold = await sales(served.controller.store, HOUR - 2, HOUR, book)
    assert [(one.at, one.prompt) for one in sold] == [
        (began + 100.0, 10), (began + 3000.0, 10), (began + 3600, 10),
    ]  # fmt: skip
    page = (await served.admin.get(f"/v1/organization/costs?start_time={began - 86_400}")).json()
    amounts = [r["amount"]["value"] for bucket in page["data"] for r in bucket["results"]]
    assert sum(amounts) == pytest.approx((10 + 30 + 30) * 1e-12)


async def test_page_has_openais_shape_and_groups(served: Served) -> None:
    day = HOUR // 24 * 86_400
    await price(served, 0.0, 100_000)
    await sell(served, day - 3600.0, "proj-a", 1_000_000, 0)
    await sell(served, day - 3500.0, "proj-b", 3_000_000, 0)
    path = f"/v1/organization/costs?start_time={day - 86_400}&end_time={day}&limit=1"
    whole = (await served.admin.get(path)).json()
    assert (whole["object"], whole["has_more"], whole["next_page"]) == ("page", False, None)
    (bucket,) = whole["data"]
    (result,) = bucket["results"]
    assert (bucket["object"], bucket["start_time"]) == ("bucket", day - 86_400)
    assert result == {
        "object": "organization.costs.result",
        "amount": {"value": 0.4, "currency": "usd"},
        "line_item": None,
        "project_id": None,
    }
    grouped = (await served.admin.get(f"{path}&group_by[]=project_id&group_by=line_item")).json()
    found = {
        (r["project_id"], r["line_item"]): r["amount"]["value"]
        for r in grouped["data"][0]["results"]
    }
    assert found == {("proj-a", "guide"): 0.1, ("proj-b", "guide"): 0.3}
    only = (await served.admin.get(f"{path}&project_ids[]=proj-b")).json()
    assert only["data"][0]["results"][0]["amount"]["value"] == 0.3
    for bad in ("&group_by=user", "&bucket_width=1h", "&end_time=0", "&page=x", "&limit=0"):
        assert (await served.admin.get(path + bad)).status_code == 400
    assert (await served.tenant.get(path)).status_code == 403


async def test_report_holds_revenue_against_the_fleets_hours(served: Served) -> None:
    await served.deploy()
    await price(served, 0.0, 400_000)
    await sell(served, HOUR * 3600 + 1.0, "proj-a", 500_000, 500_000)
    held = [Row(HOUR, "h100", Capacity.ON_DEMAND, "guide", 3_600_000, 900_000)]
    await add_rows(served.controller.store, held)
    await add_rows(served.controller.store, held)
    told = (await served.admin.get("/admin/v1/costs?hours=2")).json()  # another may have begun
    (guide,) = told["models"]
    assert (guide["revenue"], guide["gpu_cost"], guide["accelerator_hours"]) == (
        "0.4",
        "4.78",
        "2.00",
    )
    assert guide["cost_per_million_tokens"] == "4.78"
    assert told["idle_share"] == 0.75
    assert (await served.admin.get("/admin/v1/costs?hours=0")).status_code == 400
