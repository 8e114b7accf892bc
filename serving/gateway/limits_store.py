"""Windows that are counted in Redis: what requests want at one moment goes there as one call.

A call is on its way while others gather for the next: so the busier the gateway, the less a check
costs. Corrections wait a little for a call to ride with. What a busy key is about to ask for is
taken ahead (`limits_ahead`), so that few of its requests wait for Redis at all.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from serving.background import cancel
from serving.gateway.limits_ahead import Aheads
from serving.gateway.limits_script import (
    DIGEST,
    SCRIPT,
    Claim,
    Correction,
    Verdict,
    arguments,
    outcomes,
)
from serving.gateway.redis_link import (
    Answer,
    NoScriptError,
    RedisAddress,
    RedisLink,
    RedisLinkError,
    command,
    connect,
)
from serving.logs import get_logger

CALLS_MAX = 2
"""Calls on their way at once."""

BATCH_MAX = 128
"""Requests, and windows corrected, of one call: some milliseconds of Redis' time."""

CORRECT_S = 0.05
"""A correction is sent alone after this time."""

SWEEP_S = 0.25
RETRY_S = 0.5
"""So long after a failure nobody asks again: a Redis that hangs must not hold each request up."""

GRACE = 0.2
"""A part of the time-out: answers that came while this process was busy are read in it."""

log = get_logger(__name__)


@dataclass(slots=True)
class _Asked:
    claims: Sequence[Claim]
    at_s: float
    answered: asyncio.Future[Verdict | None]


@dataclass(slots=True)
class _Call:
    words: list[bytes]
    asked: list[_Asked]


class LimitStore:
    """Counts in Redis; `then` says in its log what becomes of requests while it is away."""

    def __init__(self, address: RedisAddress, timeout_s: float, then: str) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._then = then
        self._link: RedisLink | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._asked: list[_Asked] = []
        self._corrections: dict[tuple[bytes, int], int] = {}
        self._aheads = Aheads()
        self._calls: dict[int, asyncio.TimerHandle] = {}
        self._number = 0
        self._soon: asyncio.Handle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._down_until_s = 0.0
        self._was_down = False

    async def take(self, claims: Sequence[Claim]) -> Verdict | None:
        """Lets a request in or not; None while Redis is away."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        if now_s < self._down_until_s:
            return None
        if self._link is not None and not self._link.closed:
            known = self._aheads.known(claims, now_s)
            if known is not None:
                return known
        claims, back = self._aheads.ask(claims, now_s)
        self._give_back(back)
        if self._sweeping is None:
            self._sweeping = loop.call_later(SWEEP_S, self._sweep)
        asked = _Asked(claims, now_s, loop.create_future())
        self._asked.append(asked)
        self._flush_soon(loop)
        try:
            return await asked.answered
        except asyncio.CancelledError:
            if not asked.answered.cancelled():
                self._undo(claims, asked.answered.result())
            raise

    def correct(self, window: bytes, bucket: int, difference: int) -> None:
        """A use of before was another one. Lost where Redis is away."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._down_until_s:
            return
        place = (window, bucket)
        self._corrections[place] = self._corrections.get(place, 0) + difference
        if len(self._corrections) >= BATCH_MAX:
            self._flush_soon(loop)
        elif self._later is None:
            self._later = loop.call_later(CORRECT_S, self._flush)

    async def close(self) -> None:
        """Sends what is still to be corrected, and closes the connection."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + 2 * self._timeout_s
        self._give_back(self._aheads.let_go())
        self._flush()
        while (self._calls or self._connecting or self._corrections) and loop.time() < ends_s:
            await asyncio.sleep(0.005)
            self._give_back(self._aheads.let_go())
            self._flush()
        self._stop_timers()
        if self._sweeping is not None:
            self._sweeping.cancel()
        await cancel(self._connecting)
        if self._link is not None:
            self._link.close()
        self._give_up_waiting()

    def _sweep(self) -> None:
        """Gives back what nobody asked for."""
        loop = asyncio.get_running_loop()
        self._give_back(self._aheads.lapse(loop.time()))
        self._sweeping = loop.call_later(SWEEP_S, self._sweep) if self._aheads else None

    def _give_back(self, corrections: Sequence[Correction]) -> None:
        for window, difference, bucket in corrections:
            self.correct(window, bucket, difference)

    # --- calls --------------------------------------------------------------------------------

    def _flush_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """At the end of this turn of the loop: others may want something in it, too."""
        if self._soon is None and len(self._calls) < CALLS_MAX:
            self._soon = loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._stop_timers()
        if not self._asked and not self._corrections:
            return
        if self._link is None or self._link.closed:
            if self._connecting is None:
                self._connecting = asyncio.get_running_loop().create_task(self._connect())
            return
        while (self._asked or self._corrections) and len(self._calls) < CALLS_MAX:
            self._send(self._link, self._next_call())

    def _next_call(self) -> _Call:
        asked, self._asked = self._asked[:BATCH_MAX], self._asked[BATCH_MAX:]
        words = arguments(self._take_corrections(), [one.claims for one in asked])
        return _Call(words, asked)

    def _take_corrections(self) -> list[Correction]:
        places = list(self._corrections)[:BATCH_MAX]
        taken = [(name, self._corrections.pop((name, at)), at) for name, at in places]
        return [one for one in taken if one[1]]

    def _send(self, link: RedisLink, call: _Call) -> None:
        if call.words[0] == b"0":  # corrections that cancelled each other out
            return
        self._number += 1
        number = self._number
        loop = asyncio.get_running_loop()
        self._calls[number] = loop.call_later(self._timeout_s, self._overdue, link, number)

        def answered(answer: Answer) -> None:
            if isinstance(answer, NoScriptError):
                link.ask(command(b"EVAL", SCRIPT.encode(), *call.words), answered)
                return
            self._calls.pop(number).cancel()
            if isinstance(answer, bytes):
                self._answered(call, answer)
            else:
                for one in call.asked:
                    _tell(one, None)
                self._failed(answer or RedisLinkError("no answer"))

        link.ask(command(b"EVALSHA", DIGEST, *call.words), answered)

    def _answered(self, call: _Call, answer: bytes) -> None:
        if self._was_down:
            self._was_down = False
            log.info("limit_store_back")
        now_s = asyncio.get_running_loop().time()
        found = outcomes(answer, [one.claims for one in call.asked])
        for one, outcome in zip(call.asked, found, strict=True):
            self._aheads.note(one.claims, outcome, one.at_s, now_s)
            if not _tell(one, outcome.verdict):  # its tenant went away meanwhile
                self._undo(one.claims, outcome.verdict)
        if self._asked or len(self._corrections) >= BATCH_MAX:
            self._flush()

    def _undo(self, claims: Sequence[Claim], verdict: Verdict | None) -> None:
        if verdict is not None and not verdict.failed:
            for claim, bucket in zip(claims, verdict.buckets, strict=True):
                self.correct(claim.window, bucket, -claim.amount)

    # --- when Redis is away -------------------------------------------------------------------

    def _overdue(self, link: RedisLink, number: int) -> None:
        """A call was not answered in time; perhaps it was, and this process was busy."""
        loop = asyncio.get_running_loop()
        self._calls[number] = loop.call_later(GRACE * self._timeout_s, self._give_up, link, number)

    def _give_up(self, link: RedisLink, number: int) -> None:
        if number in self._calls:
            link.close("no answer in time")

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                self._link = await connect(self._address)
        except (OSError, TimeoutError, RedisLinkError) as exc:
            self._failed(exc)
        finally:
            self._connecting = None
        self._flush()

    def _failed(self, error: Exception) -> None:
        self._down_until_s = asyncio.get_running_loop().time() + RETRY_S
        if not self._was_down:
            self._was_down = True
            log.error("limit_store_away", reason=_reason(error), then=self._then)
        if self._link is not None:
            link, self._link = self._link, None
            link.close()
        self._corrections.clear()
        self._aheads.clear()
        self._give_up_waiting()

    def _give_up_waiting(self) -> None:
        asked, self._asked = self._asked, []
        for one in asked:
            _tell(one, None)

    def _stop_timers(self) -> None:
        for handle in (self._soon, self._later):
            if handle is not None:
                handle.cancel()
        self._soon = self._later = None


def _tell(asked: _Asked, verdict: Verdict | None) -> bool:
    """Whether anybody still waits for it."""
    if asked.answered.done():
        return False
    asked.answered.set_result(verdict)
    return True


def _reason(error: Exception) -> str:
    """For the log: what Redis said, without what it may have been asked."""
    said = str(error).partition("\n")[0][:200]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
