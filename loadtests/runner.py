"""Runs sessions against a server, closed-loop or open-loop, and collects their outcomes.

Closed loop: a fixed number of visitors, the next one coming when one leaves; it finds out what a
server gives at a concurrency. Open loop: visitors come at given times whatever the server does, as
real ones; a request that is sent late was still due when it was due, and the lag is reported.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from loadtests.alarm import Alarm
from loadtests.client import Ask
from loadtests.measure import Outcome
from loadtests.workload import Session

Measure = Callable[[Ask, float], Awaitable[Outcome]]
"""Sends a request that was due at a time and measures it: `Client.measure`."""

OnOutcome = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Run:
    """What a run has brought; times in monotonic seconds."""

    started_s: float
    ended_s: float
    outcomes: tuple[Outcome, ...]
    """In order of completion."""

    @property
    def duration_s(self) -> float:
        """From the start to the end of the last request."""
        return self.ended_s - self.started_s


class _Collector:
    """Runs visitors and keeps what they bring."""

    def __init__(self, measure: Measure, on_outcome: OnOutcome | None) -> None:
        self.outcomes: list[Outcome] = []
        self._measure = measure
        self._on_outcome = on_outcome

    async def visit(self, session: Session, due_s: float | None) -> None:
        """One visitor from the first request to the last; without `due_s`, due now."""
        last: Outcome | None = None
        while (ask := session.next(last)) is not None:
            if last is not None:
                due_s = time.monotonic() + ask.delay_s
                await asyncio.sleep(ask.delay_s)
            last = await self._measure(ask, time.monotonic() if due_s is None else due_s)
            self.outcomes.append(last)
            if self._on_outcome is not None:
                self._on_outcome(last)

    def run(self, started_s: float) -> Run:
        return Run(started_s, time.monotonic(), tuple(self.outcomes))


async def closed_loop(
    measure: Measure,
    sessions: Iterator[Session],
    *,
    concurrency: int,
    requests: int | None = None,
    duration_s: float | None = None,
    on_outcome: OnOutcome | None = None,
) -> Run:
    """Keeps `concurrency` visitors busy until `requests` visitors have come or the time is up;
    who has come by then is served to the end.

    Raises:
        ValueError: No visitors, or no end.
    """
    if concurrency < 1:
        raise ValueError("a closed loop has at least one visitor")
    if requests is None and duration_s is None:
        raise ValueError("a closed loop ends after some requests or some time")
    if (requests is not None and requests < 1) or (duration_s is not None and duration_s <= 0):
        raise ValueError("a run takes at least one request and more than no time")
    collector = _Collector(measure, on_outcome)
    started_s = time.monotonic()
    ends_s = float("inf") if duration_s is None else started_s + duration_s
    left = requests

    async def visitor() -> None:
        nonlocal left
        while (left is None or left > 0) and time.monotonic() < ends_s:
            if left is not None:
                left -= 1
            session = next(sessions, None)
            if session is None:
                return
            await collector.visit(session, None)

    async with asyncio.TaskGroup() as visitors:
        for _ in range(concurrency):
            visitors.create_task(visitor())
    return collector.run(started_s)


async def open_loop(
    measure: Measure,
    sessions: Iterable[Session],
    times_s: Sequence[float],
    *,
    on_outcome: OnOutcome | None = None,
) -> Run:
    """Sends a visitor at each of `times_s`, which count from the start and are in order.

    Raises:
        ValueError: No time at all.
    """
    if not times_s:
        raise ValueError("nobody arrives in this run: the rate or the duration is too small")
    # Made before the start: making a long prompt takes as long as some requests' whole lag.
    ready = [session for session, _at_s in zip(sessions, times_s, strict=False)]
    collector = _Collector(measure, on_outcome)
    pacer = Pacer()
    started_s = time.monotonic()
    try:
        async with asyncio.TaskGroup() as visitors:
            for at_s, session in zip(times_s, ready, strict=False):
                await pacer.until(started_s + at_s)
                visitors.create_task(collector.visit(session, started_s + at_s))
    finally:
        pacer.close()
    return collector.run(started_s)


class Pacer:
    """Lets one task sleep until exact times."""

    def __init__(self) -> None:
        self._alarm = Alarm(self._ring)
        self._woken: asyncio.Future[None] | None = None

    async def until(self, at_s: float) -> None:
        """Returns at `at_s` (monotonic seconds), at once where that has passed."""
        if at_s <= time.monotonic():
            return
        self._woken = asyncio.get_running_loop().create_future()
        self._alarm.set(at_s)
        await self._woken

    def close(self) -> None:
        """Frees the timer."""
        self._alarm.close()

    def _ring(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
