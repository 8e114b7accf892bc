"""Shares of limits while the controller says nothing."""

import asyncio

import pytest

from models.errors import UnreachableError
from serving.gateway import limits_shares
from serving.gateway.limits import LimitStoreDownError, WhenDown
from serving.gateway.limits_meter import Demand, Meter, Shortage
from serving.gateway.limits_rules import Rules
from serving.gateway.limits_shares import SharedMeters, ShareLink
from serving.identities import LimitRecord
from serving.limits import limit_id
from serving.shares import MeterKind, ShareReply, ShareReport

LIMIT = 10


class Silent:
    """A controller that takes reports and never answers."""

    async def shares(self, report: ShareReport) -> ShareReply:
        await asyncio.Event().wait()
        raise AssertionError


class Away:
    """A controller that cannot be reached."""

    async def shares(self, report: ShareReport) -> ShareReply:
        raise UnreachableError("nobody answers")


async def taken(link: ShareLink, when_down: WhenDown, amounts: list[int]) -> list[bool]:
    """Which of these requests pass, one after the other."""
    record = LimitRecord(limit_id=limit_id("key-1", "*"), scope_id="key-1", requests_per_min=LIMIT)
    rules = Rules((record,), ())
    meter = rules.meter(record.limit_id, MeterKind.REQUESTS)
    assert isinstance(meter, Meter)
    shared = SharedMeters(rules, link, "gw", when_down)
    telling = asyncio.create_task(shared.run())
    try:
        return [
            not isinstance(await shared.take([Demand(meter, amount)]), Shortage)
            for amount in amounts
        ]
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


@pytest.mark.parametrize("link", [Silent(), Away()])
async def test_controller_that_says_nothing_costs_no_request_where_allowed(
    link: ShareLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits_shares, "WAIT_S", 0.02)
    passed = await taken(link, WhenDown.ALLOW, [1] * (LIMIT + 2))
    assert passed == [True] * LIMIT + [False] * 2


@pytest.mark.parametrize("link", [Silent(), Away()])
async def test_controller_that_says_nothing_denies_where_that_was_chosen(
    link: ShareLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits_shares, "WAIT_S", 0.02)
    with pytest.raises(LimitStoreDownError):
        await taken(link, WhenDown.DENY, [1, 1])


async def test_request_that_never_fits_is_refused_whoever_answers() -> None:
    assert await taken(Silent(), WhenDown.DENY, [LIMIT + 1]) == [False]
