"""Shipping usage against a controller in the test's hand."""

import asyncio
from pathlib import Path

import orjson
import pytest

from serving.background import cancel
from serving.gateway.journal import Journal
from serving.gateway.shipping import Shipping
from serving.gateway.telemetry import GatewayMetrics
from serving.metered import UsageReceipt
from tests.serving.gateway.conftest import until
from tests.serving.gateway.test_replay import life, visit


class Stumbling:
    """A link that fails at first in a way that nobody foresaw."""

    def __init__(self) -> None:
        self.calls = 0
        self.rows: list[str] = []

    async def usage(self, body: bytes) -> UsageReceipt:
        self.calls += 1
        if self.calls == 1:
            raise KeyError("rows")
        self.rows += [row["usage_id"] for row in orjson.loads(body)["rows"]]
        return UsageReceipt(new=len(self.rows))


async def test_shipping_goes_on_after_a_fault_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.gateway.shipping.MAX_BACKOFF_S", 0.01)
    journal = Journal(tmp_path / "journal" / "gw-1")
    journal.open()
    one = visit()
    for record in life(one):
        journal.append(record)
    link = Stumbling()
    shipping = asyncio.create_task(Shipping(journal, link, GatewayMetrics()).run())
    await until(lambda: bool(link.rows))
    assert link.rows == [one.usage_id]
    assert not shipping.done()
    await cancel(shipping)
    await journal.close(delete=True)
