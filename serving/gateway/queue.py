"""The line of requests that wait for a slot of one model. Pure: time is an argument."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from models.errors import QueueFullError

FULL_RETRY_AFTER_S = 2.0


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place; it keeps its age when an engine breaks and it waits again."""

    start_id: str  # ours, never the tenant's: it names cold starts across the platform
    arrived_s: float  # monotonic seconds
    deadline_s: float  # monotonic seconds
    avoid: set[str] = field(default_factory=set)  # engine_ids that failed this request


TicketT = TypeVar("TicketT", bound=Ticket)


class WaitingLine(Generic[TicketT]):
    """First come, first served; one that lost its engine comes back to the head."""

    def __init__(self, max_queued: int) -> None:
        self._max_queued = max_queued
        self._tickets: OrderedDict[TicketT, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets)

    def join(self, ticket: TicketT) -> None:
        """Takes the last place.

        Raises:
            QueueFullError: If no more requests may wait.
        """
        if len(self._tickets) >= self._max_queued:
            raise QueueFullError(
                f"{len(self._tickets)} requests wait for this model already",
                retry_after_s=FULL_RETRY_AFTER_S,
            )
        self._tickets[ticket] = None

    def rejoin(self, ticket: TicketT) -> None:
        """Takes the first place, full or not: the request was let in before."""
        self._tickets[ticket] = None
        self._tickets.move_to_end(ticket, last=False)

    def leave(self, ticket: TicketT) -> None:
        """Gives the place up; nothing happens if it was given up before."""
        self._tickets.pop(ticket, None)

    def first(self) -> TicketT | None:
        """Whose turn it is."""
        return next(iter(self._tickets), None)

    def clear(self) -> list[TicketT]:
        """Sends everybody away and says who they were."""
        gone = list(self._tickets)
        self._tickets.clear()
        return gone

    def oldest_wait_s(self, now_s: float) -> float:
        """How long the first in line has been here; 0 if nobody waits."""
        head = self.first()
        return max(0.0, now_s - head.arrived_s) if head else 0.0
