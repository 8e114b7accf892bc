"""What a request passes on its way to an engine: limits and metering hold a toll each.

A request enters each toll in order before it waits for a slot, and is settled at each in the
reverse order when it is over, however it ends.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from serving.gateway.calls import Call
from serving.gateway.visits import Visit
from serving.logs import get_logger

log = get_logger(__name__)


class Passage(Protocol):
    """One request's way through one toll."""

    def dispatched(self, visit: Visit) -> None:
        """The request is about to be sent to `visit.engine_id`, as attempt `visit.attempts`."""
        ...

    async def cleared(self) -> None:
        """Returns once the first byte of the answer may leave.

        Raises:
            PenstockError: If it may not; the tenant gets this error in place of the answer.
        """
        ...

    def settle(self, visit: Visit) -> None:
        """The request is over; `visit` says how, and which tokens it was given."""
        ...


class Free:
    """The passage of a request with which a toll has nothing to do."""

    def dispatched(self, visit: Visit) -> None:
        """Nothing to note."""

    async def cleared(self) -> None:
        """At once."""

    def settle(self, visit: Visit) -> None:
        """Nothing to settle."""


FREE = Free()


class Toll(Protocol):
    """Where requests are let through, or not."""

    async def enter(self, visit: Visit, call: Call) -> Passage:
        """Lets a request through, and reserves what it may use at most.

        Raises:
            PenstockError: If it may not pass.
        """
        ...


class Way:
    """One request's passages through all tolls; settles those that were entered when it closes."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._passages: list[Passage] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._visit.left = isinstance(error, asyncio.CancelledError)
        while self._passages:
            try:
                self._passages.pop().settle(self._visit)
            except Exception:
                # One toll's failure is no reason to leave the others unsettled, nor the tenant's.
                log.exception("toll_not_settled", **self._visit.names())

    async def enter(self, tolls: Sequence[Toll], call: Call) -> None:
        """Enters the tolls, one after the other.

        Raises:
            PenstockError: If one of them refuses; those before it are settled on closing.
        """
        for toll in tolls:
            passage = await toll.enter(self._visit, call)
            self._passages.append(passage)

    def dispatched(self) -> None:
        """The next attempt is about to be sent."""
        for passage in self._passages:
            passage.dispatched(self._visit)

    async def cleared(self) -> None:
        """Returns once the first byte may leave.

        Raises:
            PenstockError: If a toll forbids it.
        """
        for passage in self._passages:
            await passage.cleared()
