"""The rows of tenants, on SQLite and on PostgreSQL."""

import itertools
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select

from models.errors import ConflictError
from serving.controller import audit
from serving.controller.audit import Act
from serving.controller.fleet_hours import Row, add_rows, read_rows
from serving.controller.identities import Identities
from serving.controller.key_store import KeyStore
from serving.controller.keys import make_record
from serving.controller.limit_store import LimitStore
from serving.controller.price_store import PriceStore
from serving.controller.share_keeper import ShareKeeper
from serving.controller.store import Store
from serving.controller.tenancy_tables import SPENT
from serving.controller.tenants import Tenants
from serving.identities import Role
from serving.limits import LimitSpec
from serving.prices import Capacity, NewGpuPrice, NewTokenPrice
from serving.shares import MeterKind, MeterReport, ShareReport
from serving.tenancy import NewAccount, NewKey, NewProject, ProjectChange, Rotation
from tests.metering.postgres import Postgres
from tests.serving.controller.databases import fresh_database

numbers = itertools.count()
AT = 1_700_000_000.0
ACT = Act(make_record("pa-operator", Role.ADMIN, "operator"), AT, "req-1")


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Store]:
    url = database_url
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("server")
        url = await fresh_database(server, f"tenants{next(numbers)}")
    store = await Store.open(url)
    yield store
    await store.close()


async def test_tenant_from_its_making_to_its_end(store: Store) -> None:
    tenants, keys, limits = Tenants(store), KeyStore(store), LimitStore(store)
    identities = Identities(store)
    version = await keys.version()
    org = await tenants.add_org("acme", ACT)
    with pytest.raises(ConflictError):
        await tenants.add_org("acme", ACT)
    project = await tenants.add_project(NewProject(org_id=org.org_id, name="web"), ACT)
    await tenants.change_project(project.project_id, ProjectChange(models=("guide",)), ACT)
    account = await tenants.add_account(
        NewAccount(project_id=project.project_id, name="batch"), ACT
    )
    issued = await keys.issue(
        NewKey(name="k", project_id=project.project_id, account_id=account.account_id), ACT
    )
    await keys.rotate(issued.key.key_id, Rotation(overlap_s=60), ACT)
    await limits.put(LimitSpec(requests_per_min=5).record(issued.key.key_id, "*"), ACT)
    await limits.put(LimitSpec(budget_month="9000000").record(issued.key.key_id, "*"), ACT)
    await identities.refresh()
    delta = identities.since(0)
    (record,) = delta.keys
    assert (record.org_id, record.models) == (org.org_id, ("guide",))
    assert record.previous is not None
    assert delta.limits[0].budget_month == 9_000_000 * 10**12
    assert await keys.version() > version
    before = identities.changes.version
    await tenants.delete_org(org.org_id, ACT)
    await identities.refresh()
    assert identities.since(before).removed == (issued.key.key_id,)
    assert len(await audit.entries(store, 100)) == 9
    await tenants.add_org("acme", ACT)


async def test_first_key_is_replaced_by_its_successor(store: Store) -> None:
    keys = KeyStore(store)
    for secret in ("pk-the-first-one", "pk-the-second-one"):
        await keys.put_first(make_record(secret, Role.INFERENCE, "tenant"), AT)
    (record,) = await keys.records()
    assert record.prefix == "pk-the-s"
    await keys.put_first(make_record("pa-the-operator", Role.ADMIN, "operator"), AT)
    admin = next(key for key in await keys.records() if key.role is Role.ADMIN)
    with pytest.raises(ConflictError):
        await keys.revoke(admin.key_id, ACT)


async def test_prices_and_fleet_hours(store: Store) -> None:
    prices = PriceStore(store)
    new = NewTokenPrice(model="guide", input="0.1", output="0.4")
    token = await prices.add_tokens(new, ACT)
    gpu = await prices.add_gpu(NewGpuPrice(accelerator="h200", per_hour="3.5"), ACT)
    book = await prices.book()
    assert book.token_price("guide", "default", AT) == token
    assert book.gpu_hour("h200", Capacity.ON_DEMAND, AT) == gpu.per_hour
    for price in (token.price_id, gpu.price_id):
        await prices.delete(price, ACT)
    assert not await prices.token_prices()
    row = Row(1, "h200", Capacity.SPOT, "guide", 3000, 1000, 1)
    for _ in range(2):
        await add_rows(store, [row])
    assert await read_rows(store, 1, 2) == [Row(1, "h200", Capacity.SPOT, "guide", 6000, 2000, 2)]


async def test_budgets_outlive_the_controller(store: Store) -> None:
    keys, limits = KeyStore(store), LimitStore(store)
    issued = await keys.issue(NewKey(name="k"), ACT)
    await limits.put(LimitSpec(budget_month="1").record(issued.key.key_id, "*"), ACT)
    identities = Identities(store)
    await identities.refresh()
    (limit,) = identities.since(0).limits
    period = time.strftime("%Y-%m", time.gmtime())

    def spend(gateway: str, used: int) -> ShareReport:
        meter = MeterReport(limit_id=limit.limit_id, kind=MeterKind.MONTH, used=used, held=used,
                            wanted=1, period=period)  # fmt: skip
        return ShareReport(gateway_id=gateway, meters=(meter,))

    first = ShareKeeper(store, identities)
    first.report(spend("gw-1", 6 * 10**11))
    await first.write()
    first.report(spend("gw-1", 7 * 10**11))
    await first.write()
    second = ShareKeeper(store, identities)
    await second.restore()
    second.book.settle()
    (share,) = second.report(spend("gw-2", 0)).shares
    assert share.granted == 3 * 10**11


async def test_budgets_of_days_and_months_that_are_over_are_forgotten(store: Store) -> None:
    identities = Identities(store)
    keeper = ShareKeeper(store, identities)
    periods = ("2026-10", "2026-11", "2026-10-30", "2026-10-31", "2026-11-01")
    for period in periods:
        kind = MeterKind.MONTH if len(period) == 7 else MeterKind.DAY
        meter = ("limit-1", kind, period)
        keeper.book.restore([(meter, "gw-1", 1)])
        keeper.book.changed.add((meter, "gw-1"))
    await keeper.write()

    async def kept() -> tuple[list[str], list[str]]:
        async with store.transaction() as db:
            rows = (await db.execute(select(SPENT.c.period))).scalars().all()
        return sorted(period for _, _, period in keeper.book.spent), sorted(rows)

    first_of_november = 1_793_491_200.0
    await keeper.forget(first_of_november + 60)  # yesterday's may still be told of
    assert await kept() == (sorted(set(periods) - {"2026-10-30"}),) * 2
    await keeper.forget(first_of_november + 86_400 + 60)
    assert await kept() == (["2026-11", "2026-11-01"],) * 2
