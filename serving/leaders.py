"""Which of several controllers to ask: the one that leads, found by asking any of them.

A standby answers 503 and, to whoever shows the internal token, names the leader in LEADER_HEADER.
Who asked goes there, and comes back to the addresses of its settings when the leader is gone.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from models.errors import BadRequestError

LEADER_HEADER = "x-penstock-leader"
"""Base URL of the controller that leads, in a standby's answer; empty: it knows of none."""

TRIES = 2
"""A request is sent so often at most: to a standby, and to whom that one names."""


class Controllers:
    """The controllers' addresses, and the one that is asked now.

    Args:
        urls: Base URLs with commas between; a name that stands for all of them, as a Service of
            Kubernetes is, needs no other beside it.

    Raises:
        BadRequestError: If there is no URL in it.
    """

    def __init__(self, urls: str) -> None:
        self._known = tuple(url.strip().rstrip("/") for url in urls.split(",") if url.strip())
        if not self._known:
            raise BadRequestError(
                "PENSTOCK_CONTROLLER_URL names no controller", param="PENSTOCK_CONTROLLER_URL"
            )
        self._next = 0
        self.url = self._known[0]
        self._asking: dict[asyncio.Timeout, str] = {}

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[str]:
        """The address to ask now, for as long as it is thought to lead.

        A controller that stands still would hold a long poll up until its time is over: whoever
        notices first ends the conversations of all.

        Raises:
            TimeoutError: If another conversation noticed that it does not answer.
        """
        async with asyncio.timeout(None) as patience:
            self._asking[patience] = self.url
            try:
                yield self.url
            finally:
                del self._asking[patience]

    def refused(self, asked: str, leader: str | None) -> bool:
        """Whether the answer of `asked` is a standby's, and somebody else is to be asked at once.

        Args:
            leader: LEADER_HEADER of the answer; None: it is the answer of one that leads.
        """
        if leader is None:
            return False
        if asked == self.url:  # else another conversation knew it first
            leader = leader.rstrip("/")
            self._go(leader if leader and leader != asked else self._another())
        return self.url != asked

    def is_away(self, asked: str) -> None:
        """The controller at `asked` did not answer: another one is asked next."""
        if asked == self.url:
            self._go(self._another())

    def _another(self) -> str:
        """The next of the settings' addresses; also after a leader that one of them had named."""
        if self.url in self._known:
            self._next = (self._known.index(self.url) + 1) % len(self._known)
        return self._known[self._next]

    def _go(self, url: str) -> None:
        if url == self.url:
            return
        self.url = url
        now_s = asyncio.get_running_loop().time() if self._asking else 0.0
        for patience, asked in self._asking.items():
            if asked != url and patience.when() is None:
                patience.reschedule(now_s)
