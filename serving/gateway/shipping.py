"""Carries settled usage from the journals to the controller: our own, and those of the dead.

What is sent is read from the journal again, so that a controller or a database that is away for
hours costs disk and no memory. A batch may arrive twice; the controller counts each row once.
"""

import asyncio
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from models.errors import UnreachableError
from serving.background import set_within
from serving.gateway.journal import LOCK, SUFFIX, Journal, boot_id, remove_folder
from serving.gateway.journal_format import (
    FRAME,
    MAX_PAYLOAD,
    NotAJournalError,
    Segment,
    read_segment,
    search,
)
from serving.gateway.replay import SETTLED, Replayed, replay
from serving.gateway.telemetry import GatewayMetrics
from serving.logs import get_logger
from serving.metered import UsageReceipt

INTERVAL_S = 0.5
MAX_BACKOFF_S = 5.0
ADOPTION_INTERVAL_S = 5.0
"""How often we look for journals whose gateway is dead."""

ROWS_A_BATCH = 500
READ_BYTES = 512 * 1024

ASIDE = ".aside"
"""Ends the name of a segment that this version cannot read; an operator has to look."""

log = get_logger(__name__)


class UsageLink(Protocol):
    """The controller, as shipping sees it."""

    async def usage(self, body: bytes) -> UsageReceipt:
        """Sends a UsageBatch in JSON.

        Raises:
            UnreachableError: If it was not stored, or nobody said so.
        """
        ...


class Shipping:
    """Ships until it is cancelled.

    Args:
        journal: Our own.
        link: The controller.
        metrics: Gets the losses of the journals that are taken over.
    """

    def __init__(self, journal: Journal, link: UsageLink, metrics: GatewayMetrics) -> None:
        self._journal = journal
        self._link = link
        self._metrics = metrics
        self._gateway_id = journal.folder.name
        self._stuck: dict[str, str] = {}  # why journals cannot be taken over, by folder, as logged

    async def run(self) -> None:
        """Ships what is settled, and adopts orphaned journals, until it is cancelled.

        What is settled after a while of nothing goes at once, what follows it each INTERVAL_S.
        A crash of ours is logged and begun anew.
        """
        backoff_s = INTERVAL_S
        next_adoption_s = 0.0
        loop = asyncio.get_running_loop()
        while True:
            self._journal.settled.clear()
            try:
                await self.ship()
                if loop.time() >= next_adoption_s:
                    await self.adopt()
                    next_adoption_s = loop.time() + ADOPTION_INTERVAL_S
                backoff_s = INTERVAL_S
            except UnreachableError as exc:
                if backoff_s == INTERVAL_S:
                    log.warning("usage_waits", reason=str(exc), hint=exc.hint)
                backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)
            except OSError as exc:
                log.error("journal_unreadable", reason=str(exc))
                backoff_s = MAX_BACKOFF_S
            except Exception:  # one journal that we stumble over must not hold up all that follow
                log.exception("shipping_crashed", gateway_id=self._gateway_id)
                backoff_s = MAX_BACKOFF_S
            self._metrics.journal_backlog.set(self._journal.backlog_bytes)
            await asyncio.sleep(backoff_s)
            if backoff_s == INTERVAL_S:  # else what is there is tried again
                await set_within(self._journal.settled, next_adoption_s - loop.time())

    async def ship(self) -> None:
        """Sends all that is settled in our own journal.

        Raises:
            UnreachableError: If the controller did not take it; nothing is lost by that.
        """
        for segment in self._journal.written:
            end = segment.end  # what comes meanwhile goes with the next shipment
            while segment.shipped < end:
                start = segment.shipped
                data = os.pread(segment.fd, min(READ_BYTES, end - start), start)
                rows, read = _settled_in(data)
                await self._send(rows)
                segment.shipped = start + read
        self._journal.drop_shipped()

    async def finish(self, timeout_s: float) -> bool:
        """Sends what is left at the end of the process; False if some remains for a successor."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.ship()
        except (UnreachableError, TimeoutError):
            return False
        return self._journal.booked == 0

    async def adopt(self) -> None:
        """Takes over the journals of gateways that died: settles, sends and removes them.

        One that cannot be read is told in the log, kept, and looked at again the next time; the
        others do not wait for it.

        Raises:
            UnreachableError: If the controller did not take them; they are kept.
        """
        own = self._journal.folder
        folders = sorted(own.parent.iterdir()) if own.parent.is_dir() else []
        self._stuck = {path: why for path, why in self._stuck.items() if Path(path) in folders}
        for folder in folders:
            if folder == own or folder.name.startswith("."):
                continue
            try:
                if folder.is_dir():
                    await self._adopt(folder)
                self._stuck.pop(str(folder), None)
            except UnreachableError:
                raise
            except Exception as exc:
                reason = f"{type(exc).__name__}: {exc}"
                if self._stuck.get(str(folder)) != reason:  # each reason once: we try again soon
                    self._stuck[str(folder)] = reason
                    log.exception("journal_not_taken_over", folder=str(folder), reason=reason)

    async def _adopt(self, folder: Path) -> None:
        try:
            lock_fd = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # only what was put aside is left of it
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left, lost = await asyncio.to_thread(_read_orphan, folder)
            rows = [row.model_dump_json().encode() for row in left.orphans]
            await self._send([*left.settled, *rows])
            remove_folder(folder)
            if lost:  # told once, however often it was read until the controller took it
                self._metrics.journal_lost.inc(lost)
                log.error("journal_damaged", folder=str(folder), lost=lost)
            log.info(
                "journal_taken_over", folder=str(folder), settled=len(left.settled),
                open=len(left.orphans),
            )  # fmt: skip
        except BlockingIOError:
            return  # its gateway lives
        finally:
            os.close(lock_fd)

    async def _send(self, rows: Sequence[bytes]) -> None:
        head = b'{"gateway_id":"%s","rows":[' % self._gateway_id.encode()
        for start in range(0, len(rows), ROWS_A_BATCH):
            batch = rows[start : start + ROWS_A_BATCH]
            await self._link.usage(head + b",".join(batch) + b"]}")


def _read_orphan(folder: Path) -> tuple[Replayed, int]:
    """What a dead gateway left behind, and how many of its records make no sense."""
    segments = [*_segments(folder)]
    left = replay(
        (payload for segment in segments for payload in segment.records),
        machine_crashed=any(segment.boot_id != boot_id() for segment in segments),
    )
    return left, sum(segment.lost for segment in segments) + left.unreadable


def _settled_in(data: bytes) -> tuple[list[bytes], int]:
    """The settled rows among whole records, and up to where all of them have been found.

    A record that is cut off at the end of READ_BYTES is left for the next time.
    """
    rows = []
    read = len(data) - FRAME.size - MAX_PAYLOAD if len(data) == READ_BYTES else len(data)
    for start, payload in search(data, SETTLED):
        read = max(read, start + FRAME.size + len(payload))
        rows.append(payload)
    return rows, read


def _segments(folder: Path) -> Iterator[Segment]:
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            yield read_segment(path.read_bytes())
        except NotAJournalError as exc:
            aside = path.with_name(path.name + ASIDE)
            path.rename(aside)
            log.error("journal_put_aside", path=str(aside), reason=str(exc))
