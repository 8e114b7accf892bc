"""A version that only grows, and the long polls that wait for it to."""

import asyncio
import time
from collections.abc import Coroutine

from serving.background import set_within


def first_version() -> int:
    """A version above all that an earlier process of ours gave out.

    Milliseconds since 1970: a process would have to make 1,000 changes a second all its life to
    overtake its successor. A clock that was set back costs gateways one full snapshot.
    """
    return time.time_ns() // 1_000_000


class Changes:
    """A version and those who wait for it to change; for one event loop."""

    def __init__(self, version: int | None = None) -> None:
        self.version = first_version() if version is None else version
        self._changed = asyncio.Event()

    def bump(self) -> int:
        """Makes the next version and wakes everybody who waits."""
        self.version += 1
        self.wake()
        return self.version

    def wake(self) -> None:
        """Wakes everybody who waits without a new version, as at the end of the process."""
        self._changed.set()
        self._changed = asyncio.Event()

    def woken(self, timeout_s: float) -> Coroutine[None, None, bool]:
        """Waits for the next `bump` or `wake` from this call on, also where a task is made of it,
        which begins later; False if none came in time."""
        return set_within(self._changed, timeout_s)
