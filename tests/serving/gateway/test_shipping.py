"""Shipping usage against a controller in the test's hand."""

import asyncio
from pathlib import Path

import orjson
import pytest
from structlog.testing import capture_logs

from models.errors import UnreachableError
from serving.background import cancel
from serving.gateway.journal import LOCK, Journal
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


class Taking:
    """A link that takes everything."""

    def __init__(self) -> None:
        self.rows: list[str] = []

    async def usage(self, body: bytes) -> UsageReceipt:
        rows = [row["usage_id"] for row in orjson.loads(body)["rows"]]
        self.rows += rows
        return UsageReceipt(new=len(rows))


async def test_first_row_after_a_pause_is_shipped_without_waiting_for_the_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.gateway.shipping.ADOPTION_INTERVAL_S", 3600.0)
    monkeypatch.setattr("serving.gateway.shipping.INTERVAL_S", 0.01)
    journal = Journal(tmp_path / "journal" / "gw-1")
    journal.open()
    link = Taking()
    shipping = asyncio.create_task(Shipping(journal, link, GatewayMetrics()).run())
    for _ in range(3):
        await asyncio.sleep(0.05)  # it has looked, and found nothing
        one = visit()
        for record in life(one):
            journal.append(record)
        journal.settled.set()
        await until(lambda one=one: link.rows[-1:] == [one.usage_id])  # type: ignore[misc]
    await cancel(shipping)
    await journal.close(delete=True)


async def left_behind(folder: Path) -> str:
    """The journal of a gateway that died after one request; returns the request's name."""
    journal, one = Journal(folder), visit()
    journal.open()
    for record in life(one):
        journal.append(record)
    await journal.close(delete=False)
    return one.usage_id


class Away(Taking):
    """A link whose controller is away at first."""

    def __init__(self) -> None:
        super().__init__()
        self.tries = 0

    async def usage(self, body: bytes) -> UsageReceipt:
        self.tries += 1
        if self.tries < 3:
            raise UnreachableError("nobody answers")
        return await super().usage(body)


async def test_damage_is_counted_once_however_long_the_controller_is_away(tmp_path: Path) -> None:
    usage_id = await left_behind(tmp_path / "gw-1")
    segment = tmp_path / "gw-1" / "00000001.segment"
    data = segment.read_bytes()
    segment.write_bytes(data.replace(b'"k":"r"', b'"k":"?"'))
    link, metrics = Away(), GatewayMetrics()
    shipping = Shipping(Journal(tmp_path / "gw-own"), link, metrics)
    for _ in range(2):
        with pytest.raises(UnreachableError):
            await shipping.adopt()
    await shipping.adopt()
    assert link.rows == [usage_id]
    (lost,) = metrics.journal_lost.collect()
    assert lost.samples[0].value == 1


async def test_journal_that_cannot_be_read_keeps_no_other_from_being_taken_over(
    tmp_path: Path,
) -> None:
    first, second, third = [await left_behind(tmp_path / f"gw-{n}") for n in (1, 2, 3)]
    lock, segment = tmp_path / "gw-1" / LOCK, tmp_path / "gw-2" / "00000001.segment"
    lock.unlink()
    lock.mkdir()
    segment.rename(tmp_path / "kept")
    segment.mkdir()
    link = Taking()
    shipping = Shipping(Journal(tmp_path / "gw-own"), link, GatewayMetrics())
    with capture_logs() as logged:
        for _ in range(2):
            await shipping.adopt()
    assert link.rows == [third]
    assert not (tmp_path / "gw-3").exists()
    told = [line["folder"] for line in logged if line["event"] == "journal_not_taken_over"]
    assert told == [str(tmp_path / "gw-1"), str(tmp_path / "gw-2")]  # once, and not at each look

    lock.rmdir()
    lock.touch()
    segment.rmdir()
    (tmp_path / "kept").rename(segment)
    await shipping.adopt()
    assert sorted(link.rows) == sorted([first, second, third])
    assert [path.name for path in tmp_path.iterdir()] == []
