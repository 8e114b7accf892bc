"""The drill of docs/operations/backup.md: dump, lose everything, restore, start the controller."""

import time
from collections.abc import Iterator

import pytest

from models.errors import UnauthenticatedError
from models.manifest import parse_manifest
from serving.controller import usage_queries
from serving.controller.app import running
from serving.controller.keys import ensure_keys_async
from serving.controller.usage_queries import Span
from serving.controller.usage_store import UsageStore
from serving.metered import UsageRow, UsageStatus
from serving.settings import ControllerSettings
from serving.usage_views import GroupBy, UsageView
from tests.metering.postgres import Postgres
from tests.serving.controller.databases import fresh_database, postgres

ADMIN_KEY, API_KEY = "pa-drill-0123456789", "pk-drill-0123456789"
ALL_TIME = Span(0, 2e9)
AT = 1_700_000_000.0


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running_server:
        yield running_server


def settings(url: str) -> ControllerSettings:
    return ControllerSettings(internal_token="t" * 16, controller_port=0, database_url=url)


def usage(number: int) -> UsageRow:
    return UsageRow(
        usage_id=f"{number:032x}", org_id="org-1", project_id="proj-1", key_id="key-1",
        model="guide", status=UsageStatus.COMPLETE, http_status=200, at=AT + number, attempts=1,
        engine_id="e1", prompt=10, cached=4, completion=number, duration_s=0.5,
    )  # fmt: skip


async def totals(url: str) -> list[UsageView]:
    async with running(settings(url)) as controller:
        return await usage_queries.sums_by(controller.store, GroupBy.MODEL, ALL_TIME)


async def test_platform_is_rebuilt_from_a_dump(server: Postgres) -> None:
    url = await fresh_database(server, "drill")
    await ensure_keys_async(url, ADMIN_KEY, API_KEY)
    guide = parse_manifest({"name": "guide", "source": "builtin://guide", "scaling": {"max": 2}})
    async with running(settings(url)) as controller:
        await controller.registry.apply(guide, time.time())
        stored = UsageStore(controller.store, "forgive")
        assert await stored.add_usage([usage(n) for n in range(1, 101)], AT) == 100
    before = await totals(url)
    assert before[0].completion_tokens == 5050

    dump = server.client("pg_dump", "--format=custom", "drill")
    server.client("dropdb", "drill")
    server.client("createdb", "drill")
    server.client("pg_restore", "--clean", "--if-exists", "--dbname=drill", text=dump)

    assert await totals(url) == before
    async with running(settings(url)) as controller:
        now = time.time()
        assert controller.identities.authenticate(ADMIN_KEY.encode(), now).role == "admin"
        assert controller.identities.authenticate(API_KEY.encode(), now).role == "inference"
        with pytest.raises(UnauthenticatedError):
            controller.identities.authenticate(b"pk-another-0123456789", now)
        assert controller.registry.get("guide").manifest == guide
        # What a gateway's journal ships again, the dump had already: it counts once.
        stored = UsageStore(controller.store, "forgive")
        assert await stored.add_usage([usage(100), usage(101)], AT) == 1
