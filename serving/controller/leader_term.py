"""One controller's time as a leader: what it may do is asked here, and whether it still may."""

import asyncio
import time
from collections.abc import Callable

import httpx

from serving.controller.leader import Tenure
from serving.controller.leader_fence import holder_of
from serving.controller.store import Store


def ever_s() -> float:
    """Seconds on a clock that only runs forward, and on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Term:
    """From the lease's taking to its loss; in one event loop.

    Args:
        tenure: As the lease was taken.
        clock: Seconds; as `ever_s`.
    """

    def __init__(self, tenure: Tenure, clock: Callable[[], float] = ever_s) -> None:
        self.tenure = tenure
        self.over = asyncio.Event()
        """Set once it is over, for good."""
        self._clock = clock

    def leads(self) -> bool:
        """Whether this controller may act at this moment."""
        if not self.over.is_set() and not self.tenure.holds(self._clock()):
            self.over.set()
        return not self.over.is_set()

    def renewed(self, asked_s: float) -> None:
        """The lease was prolonged, by an answer to what was asked at `asked_s`."""
        self.tenure = self.tenure.renewed(asked_s)

    def guard(self, store: Store) -> None:
        """Has the store write only while the lease is ours."""
        store.guard(holder_of(self.tenure.token, self.tenure.lease_s, self.over.set))

    def transport(self, inner: httpx.AsyncBaseTransport | None) -> httpx.AsyncBaseTransport:
        """A way to others on which nothing is sent once the term is over."""
        return _WhileLeading(self, inner or httpx.AsyncHTTPTransport(trust_env=False))


class _WhileLeading(httpx.AsyncBaseTransport):
    def __init__(self, term: Term, inner: httpx.AsyncBaseTransport) -> None:
        self._term = term
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self._term.leads():
            raise httpx.ConnectError("this controller leads no longer", request=request)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()
