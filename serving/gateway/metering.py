"""The toll that meters: reserves each request in the journal, and settles it there.

A few records of some hundred bytes for each request, nothing for a chunk. What was settled is
carried to the controller by `shipping`.
"""

import asyncio
import time
from types import TracebackType
from typing import Literal, Self

import orjson

from serving.background import cancel
from serving.gateway import replay
from serving.gateway.calls import Call
from serving.gateway.journal import Journal, JournalError, Segment
from serving.gateway.shipping import Shipping, UsageLink
from serving.gateway.telemetry import GatewayMetrics
from serving.gateway.tolls import FREE, Passage
from serving.gateway.visits import Visit
from serving.logs import get_logger
from serving.metered import UsageStatus
from serving.settings import GatewaySettings

Unmetered = Literal["refuse", "serve"]
"""What becomes of requests while usage cannot be recorded."""

FOLDER = "journal"
"""In the gateway's state folder: one folder for each gateway that shares it."""

LAST_SHIPMENT_S = 3.0
"""How long a gateway that ends tries to hand over what is settled; the rest is a successor's."""

log = get_logger(__name__)


class Metering:
    """A gateway's metering, to be used inside `async with`; `toll` is where requests pass."""

    def __init__(
        self, gateway_id: str, settings: GatewaySettings, link: UsageLink, metrics: GatewayMetrics
    ) -> None:
        self._journal = Journal(settings.gateway_state_dir / FOLDER / gateway_id)
        self._shipping = Shipping(self._journal, link, metrics)
        self._task: asyncio.Task[None] | None = None
        self.toll = Meter(self._journal, settings.unmetered, metrics)

    async def __aenter__(self) -> Self:
        try:
            self._journal.open()
        except OSError as exc:  # it is tried again with each request
            log.error("journal_not_opened", folder=str(self._journal.folder), reason=str(exc))
        self._task = asyncio.create_task(self._shipping.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await cancel(self._task)
        all_shipped = await self._shipping.finish(LAST_SHIPMENT_S)
        await self._journal.close(delete=all_shipped)


class Meter:
    """The toll of one gateway.

    Args:
        journal: This gateway's, open.
        unmetered: Whether to refuse or to serve while the journal cannot be written.
        metrics: Counts what was served unmetered, and what was settled how.
    """

    def __init__(self, journal: Journal, unmetered: Unmetered, metrics: GatewayMetrics) -> None:
        self._journal = journal
        self._unmetered = unmetered
        self._metrics = metrics

    async def enter(self, visit: Visit, call: Call) -> Passage:
        """Keeps room for what is to be noted of a request.

        Raises:
            JournalError: If it cannot be recorded, and the operator does not serve it all the same.
        """
        try:
            self._journal.book()
        except JournalError as exc:
            if self._unmetered == "refuse":
                log.error("request_refused_unmetered", reason=exc.hint)
                raise
            self._metrics.unmetered.inc()
            log.error("request_served_unmetered", usage_id=visit.usage_id, reason=exc.hint)
            return FREE
        return Metered(self._journal, self._metrics, visit, call)


class Metered:
    """The passage of a request that is being metered."""

    __slots__ = ("_at", "_call", "_journal", "_metrics", "_pinned", "_reserved", "_usage_id")

    def __init__(self, journal: Journal, metrics: GatewayMetrics, visit: Visit, call: Call) -> None:
        self._journal = journal
        self._metrics = metrics
        self._usage_id = visit.usage_id
        self._call = call
        self._at = time.time()
        self._pinned: list[Segment] = []
        self._reserved = 0  # number of the record; 0 before the first attempt

    def dispatched(self, visit: Visit) -> None:
        """Notes an attempt, and with the first one who pays for it. The disk begins with it when
        the request has been sent: until then the kernel would take our core for it.

        Raises:
            JournalError: If the disk fails.
        """
        if self._reserved:
            self._append(replay.attempt(visit))
            return
        self._reserved = self._append(replay.reserved(visit, self._call, self._at))
        asyncio.get_running_loop().call_soon(self._journal.commit_soon)

    async def cleared(self) -> None:
        """Notes that bytes may leave, and waits until the reservation outlives the machine.

        Raises:
            JournalError: If the disk fails.
        """
        self._append(replay.opened(self._usage_id))
        await self._journal.durable(self._reserved)

    def settle(self, visit: Visit) -> None:
        """Notes how the request ended and what it took."""
        status, tier = status_of(visit), self._call.service_tier or ""
        try:
            self._append(settled(visit, status, tier, self._at, time.monotonic()))
        except JournalError as exc:
            # The disk broke under a request that was let in; a successor will find it unsettled.
            log.critical("usage_not_settled", usage_id=self._usage_id, reason=str(exc))
        self._metrics.settled_of(status.value).inc()
        for segment in self._pinned:
            segment.pins -= 1
        self._journal.unbook()
        self._journal.settled.set()

    def _append(self, payload: bytes) -> int:
        number, segment = self._journal.append(payload)
        if not self._pinned or self._pinned[-1] is not segment:
            self._pinned.append(segment)
            segment.pins += 1
        return number


def status_of(visit: Visit) -> UsageStatus:
    """How a request ended."""
    if visit.cut:
        return UsageStatus.CUT
    if visit.complete:
        return UsageStatus.COMPLETE if visit.status < 400 else UsageStatus.FAILED
    return UsageStatus.CANCELLED if visit.left else UsageStatus.FAILED


def settled(visit: Visit, status: UsageStatus, tier: str, at: float, now_s: float) -> bytes:
    """The row of a request that is over; `at` in Unix, `now_s` in monotonic seconds.

    A request whose first byte never left took nothing. Where one left, the engine's own count
    holds; where the engine could not say it, the recorder will, and what was delivered bounds it. A
    server elsewhere has no recorder: where it told nothing of a stream, what was delivered is what
    it took, and its prompt is guessed, as the whole of an answer that did not stream.
    """
    first_byte_s = visit.first_byte_s
    billed = first_byte_s is not None and status is not UsageStatus.FAILED
    tokens = visit.tokens if billed else None
    row: dict[str, object] = {
        "k": "s", "usage_id": visit.usage_id, "org_id": visit.org_id,
        "project_id": visit.project_id, "key_id": visit.key_id, "model": visit.model,
        "tier": tier,
        "revision": visit.revision, "route": visit.route, "status": status.value,
        "http_status": visit.status, "at": at,
        "ttft_s": None if first_byte_s is None else round(first_byte_s - visit.began_s, 6),
        "duration_s": round(now_s - visit.began_s, 6), "attempts": visit.attempts,
        "engine_id": visit.engine_id, "delivered": visit.delivered,
        "known": not billed or tokens is not None or not visit.is_recorded,
        "estimated": billed and (visit.estimated or (tokens is None and not visit.is_recorded)),
    }  # fmt: skip
    if billed and tokens is None:
        row["completion"] = visit.delivered  # until the recorder tells, or where there is none
        row["prompt"] = 0 if visit.is_recorded else visit.prompt_guess
    if tokens is not None:
        row["prompt"], row["cached"] = tokens.prompt, tokens.cached
        row["completion"], row["reasoning"] = tokens.completion, tokens.reasoning
    return orjson.dumps(row)
