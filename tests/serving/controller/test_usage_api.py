"""Usage over HTTP: handed in by gateways and hosts, read by operators."""

import csv
import io
from collections.abc import AsyncIterator

import orjson
import pytest

from serving.metered import AttemptBatch, AttemptReceipt, UsageBatch, UsageReceipt, UsageRow
from serving.usage_views import ReconcileView
from tests.serving.controller.served import Served, serve
from tests.serving.controller.test_usage_store import AT, attempt, batch, row
from tests.serving.controller.world import settings


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with serve(settings(database_url=database_url, unknown_usage="bill")) as controller:
        yield controller


async def hand_in(served: Served, *rows: UsageRow) -> int:
    body = UsageBatch(gateway_id="gw-1", rows=rows).model_dump_json()
    answer = await served.internal.post("/internal/v1/usage", content=body)
    assert answer.status_code == 200, answer.text
    return UsageReceipt.model_validate_json(answer.content).new


async def tell(served: Served, attempts: AttemptBatch) -> int:
    answer = await served.internal.post("/internal/v1/attempts", content=attempts.model_dump_json())
    return AttemptReceipt.model_validate_json(answer.content).new


async def test_batches_may_come_twice(served: Served) -> None:
    assert await hand_in(served, row(1), row(2)) == 2
    assert await hand_in(served, row(2), row(3)) == 1
    assert await tell(served, batch(attempt(1))) == 1
    assert await tell(served, batch(attempt(1))) == 0


async def test_row_that_makes_no_sense_does_not_hold_up_the_others(served: Served) -> None:
    rows = [{"usage_id": "x", "prompt": -1}, row(1).model_dump(mode="json"), "nonsense"]
    body = orjson.dumps({"gateway_id": "gw-1", "rows": rows})
    answer = await served.internal.post("/internal/v1/usage", content=body)
    assert (answer.status_code, answer.json()) == (200, {"new": 1})


@pytest.mark.parametrize("body", [b"", b"[]", b'{"rows": 3}', b"{}"])
async def test_body_that_is_no_batch_is_refused(served: Served, body: bytes) -> None:
    for path in ("usage", "attempts"):
        answer = await served.internal.post(f"/internal/v1/{path}", content=body)
        assert answer.status_code == 400


async def test_usage_is_handed_in_by_parts_of_the_platform_only(served: Served) -> None:
    for client in (served.anonymous, served.tenant, served.admin):
        for path in ("usage", "attempts"):
            assert (await client.post(f"/internal/v1/{path}", content=b"{}")).status_code == 401


async def test_tenants_do_not_read_the_platforms_usage(served: Served) -> None:
    for path in ("/admin/v1/usage", "/admin/v1/usage/export", "/admin/v1/usage/reconcile",
                 "/v1/organization/usage/completions?start_time=1"):  # fmt: skip
        assert (await served.tenant.get(path)).status_code == 403
        assert (await served.anonymous.get(path)).status_code == 401


async def test_operators_read_sums_by_what_they_ask_for(served: Served) -> None:
    await hand_in(served, row(1), row(2, key_id="key-2", completion=50))
    span = {"since": AT - 7200, "until": AT + 7200}
    answer = await served.admin.get("/admin/v1/usage", params={"by": "key", **span})
    found = {one["group"]: one["completion_tokens"] for one in answer.json()["items"]}
    assert found == {"key-2": 50, "key-1": 5}
    assert (await served.admin.get("/admin/v1/usage", params={"by": "shoe"})).status_code == 400
    bad = await served.admin.get("/admin/v1/usage", params={"since": 5, "until": 4})
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "since")


async def test_export_is_csv_or_json_lines(served: Served) -> None:
    await hand_in(served, *(row(number) for number in range(3)))
    span = {"since": AT - 1, "until": AT + 100}
    answer = await served.admin.get("/admin/v1/usage/export", params=span)
    rows = [*csv.DictReader(io.StringIO(answer.text))]
    assert [one["usage_id"] for one in rows] == [f"{number:032x}" for number in range(3)]
    assert rows[0]["completion"] == "5"
    answer = await served.admin.get("/admin/v1/usage/export", params={"format": "jsonl", **span})
    lines = [orjson.loads(line) for line in answer.text.splitlines()]
    assert [one["prompt"] for one in lines] == [10, 10, 10]
    nothing = await served.admin.get("/admin/v1/usage/export", params={"since": 1, "until": 2})
    assert nothing.text.count("\n") == 1, "the columns alone"


async def test_export_says_what_a_request_cost_and_for_how_long_engines_had_it(
    served: Served,
) -> None:
    since = {"since": AT - 1, "until": AT + 100, "format": "jsonl"}
    await hand_in(served, row(1), row(2, model="other"), row(3, known=False, completion=0))
    await tell(served, batch(attempt(1)))
    new = {"model": "guide", "input": "2", "output": "6", "since": "2001-01-01T00:00:00Z"}
    assert (await served.admin.post("/admin/v1/prices/tokens", json=new)).status_code == 201
    answer = await served.admin.get("/admin/v1/usage/export", params=since)
    lines = [orjson.loads(line) for line in answer.text.splitlines()]
    assert [one["price"] for one in lines] == ["0.00005", None, None]  # 10 x 2 + 5 x 6 millionths
    told = attempt(1)
    assert lines[0]["engine_s"] == pytest.approx(told.ended_at - told.started_at)
    assert lines[1]["engine_s"] is None


async def test_all_views_tell_what_was_charged_whatever_the_price_is_now(served: Served) -> None:
    first = {"model": "guide", "input": "2", "output": "6", "since": "2001-01-01T00:00:00Z"}
    price_id = (await served.admin.post("/admin/v1/prices/tokens", json=first)).json()["price_id"]
    await hand_in(served, row(1), row(2))
    await tell(served, batch(attempt(1, share_s=0.25), attempt(2)))
    dearer = {**first, "input": "200", "output": "600", "since": "2002-01-01T00:00:00Z"}
    assert (await served.admin.post("/admin/v1/prices/tokens", json=dearer)).status_code == 201
    assert (await served.admin.delete(f"/admin/v1/prices/{price_id}")).status_code == 204
    since = {"since": AT - 1, "until": AT + 100, "format": "jsonl"}
    answer = await served.admin.get("/admin/v1/usage/export", params=since)
    lines = [orjson.loads(line) for line in answer.text.splitlines()]
    assert [one["price"] for one in lines] == ["0.00005", "0.00005"]
    assert [one["engine_share_s"] for one in lines] == [0.25, None]
    days = {"start_time": int(AT) - 86_400, "end_time": int(AT) + 86_400}
    page = (await served.admin.get("/v1/organization/costs", params=days)).json()
    owed = [one["amount"]["value"] for day in page["data"] for one in day["results"]]
    assert owed == [pytest.approx(0.0001)]


async def test_reconcile_resolves_what_it_can_first(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hand_in(served, row(1, known=False, completion=0, status="unknown"))
    await tell(served, batch(attempt(1)))
    monkeypatch.setattr("serving.controller.usage_api.LAG_S", -1.0)
    answer = await served.admin.get("/admin/v1/usage/reconcile")
    seen = ReconcileView.model_validate_json(answer.content)
    assert (seen.requests, seen.unknown, seen.unresolved) == (1, 1, 0)


async def test_completions_are_told_as_openai_tells_them(served: Served) -> None:
    await hand_in(served, row(1), row(2, model="other"))
    query = {"start_time": int(AT) - 3600, "end_time": int(AT) + 3600, "bucket_width": "1h",
             "group_by[]": ["model"], "models[]": ["guide"]}  # fmt: skip
    answer = await served.admin.get("/v1/organization/usage/completions", params=query)
    page = answer.json()
    assert (page["object"], page["has_more"], page["next_page"]) == ("page", False, None)
    (result,) = [result for bucket in page["data"] for result in bucket["results"]]
    assert result == {
        "object": "organization.usage.completions.result", "input_tokens": 10,
        "output_tokens": 5, "input_cached_tokens": 4, "input_audio_tokens": 0,
        "output_audio_tokens": 0, "num_model_requests": 1, "project_id": None, "user_id": None,
        "api_key_id": None, "model": "guide", "batch": None, "service_tier": None,
    }  # fmt: skip


async def test_pages_of_completions_follow_one_another(served: Served) -> None:
    await hand_in(served, *(row(n, at=AT + n * 86_400) for n in range(10)))
    query: dict[str, object] = {
        "start_time": int(AT),
        "end_time": int(AT) + 10 * 86_400,
        "limit": 4,
    }
    requests, pages = 0, 0
    while True:
        answer = await served.admin.get("/v1/organization/usage/completions", params=query)
        page = answer.json()
        pages += 1
        requests += sum(r["num_model_requests"] for b in page["data"] for r in b["results"])
        if not page["has_more"]:
            break
        query["page"] = page["next_page"]
    assert (requests, pages) == (10, 3)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"start_time": 5, "end_time": 4},
        {"start_time": 1, "bucket_width": "1y"},
        {"start_time": 1, "limit": 0},
        {"start_time": 1, "limit": 32},
        {"start_time": 1, "group_by": "shoe"},
        {"start_time": 1, "page": "page_x"},
        {"start_time": "now"},
    ],
)
async def test_completions_refuse_what_makes_no_sense(
    served: Served, query: dict[str, str]
) -> None:
    answer = await served.admin.get("/v1/organization/usage/completions", params=query)
    assert answer.status_code == 400, answer.text
