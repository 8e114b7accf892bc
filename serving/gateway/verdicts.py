"""Of what engines died, as far as the controller knows.

A request that two engines died of goes into quarantine, for it may be its doing. Where engines are
killed, by an operator or by a test, requests that were in two of them by chance are innocent: the
launcher sees the signal, and whether the kernel was short of memory, and the controller tells.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

PATIENCE_S = 1.0
"""For the controller's word: it takes some 0.2 s from an engine's death, and the word on the first
of two deaths is mostly there already."""

KEPT = 1000


class Verdicts:
    """The engines that somebody killed.

    Args:
        patience_s: How long the word on a death is waited for.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._killed: OrderedDict[str, None] = OrderedDict()
        self._news = asyncio.Event()

    def note(self, engine_ids: Iterable[str]) -> None:
        """Somebody killed these."""
        for engine_id in engine_ids:
            if engine_id not in self._killed:
                self._killed[engine_id] = None
                self._news.set()
        while len(self._killed) > KEPT:
            self._killed.popitem(last=False)

    def known(self, died: Iterable[str]) -> list[str]:
        """Of the engines that died those that nobody is known to have killed."""
        return [engine_id for engine_id in died if engine_id not in self._killed]

    async def without_killed(self, died: list[str]) -> list[str]:
        """As `known`, after some time for the controller to say that any of them was killed."""
        try:
            async with asyncio.timeout(self._patience_s):
                while len(left := self.known(died)) == len(died):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return died
        return left
