"""Who is served next: virtual token counters over keys, and queues in their order. Pure.

Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024): each key has a counter of the
tokens that it was served, divided by its weight; the waiting key with the least goes first. A key
that comes back after a pause is lifted to the least counter of those who wait (algorithm 2 there),
so that nobody saves up service by staying away. Output tokens are not known when a request is sent:
an estimate is charged, and corrected when the request is over. Between two keys that wait all the
time, weighted service differs by no more than twice the most that one of them can have in engines
at once (theorem 4.4; a property test here).
"""

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Set
from dataclasses import dataclass, field
from typing import Generic, TypeVar

KEPT_IDLE = 4096
"""Counters of keys that wait for nothing; beyond it those that say nothing any more are dropped."""

KeyT = TypeVar("KeyT", bound=Hashable)
ItemT = TypeVar("ItemT", bound=Hashable)


class VirtualCounters(Generic[KeyT]):
    """Weighted service of each key, and which waiting key has had the least: O(log keys)."""

    def __init__(self) -> None:
        self._served: dict[KeyT, float] = {}
        self._waiting: dict[KeyT, int] = {}  # the number of the key's entry in the heap
        self._heap: list[tuple[float, int, KeyT]] = []
        self._entries = 0
        self._last = 0.0  # counter of the key that stopped to wait last

    def served(self, key: KeyT) -> float:
        """The key's counter, in weighted tokens."""
        return self._served.get(key, 0.0)

    def begin(self, key: KeyT) -> None:
        """The key waits from now on; no effect if it does already."""
        if key in self._waiting:
            return
        least = self.least()
        floor = self._last if least is None else self._served[least]
        self._served[key] = max(self.served(key), floor)
        self._push(key)

    def end(self, key: KeyT) -> None:
        """The key waits no longer."""
        if self._waiting.pop(key, None) is not None:
            self._last = self._served[key]
            if len(self._served) > KEPT_IDLE + len(self._waiting):
                self._forget_idle()

    def charge(self, key: KeyT, tokens: float, weight: float = 1.0) -> None:
        """The key was served so much, or less than was charged before where `tokens` < 0."""
        if not tokens:
            return
        self._served[key] = self.served(key) + tokens / weight
        if key in self._waiting:
            self._push(key)

    def serve(self, key: KeyT, tokens: float, weight: float = 1.0) -> None:
        """The key is served so much; one that does not wait, as if it began, was charged, and
        ended."""
        if key in self._waiting:
            self.charge(key, tokens, weight)
            return
        least = self.least()
        floor = self._last if least is None else self._served[least]
        self._served[key] = self._last = max(self.served(key), floor) + tokens / weight
        if len(self._served) > KEPT_IDLE + len(self._waiting):
            self._forget_idle()

    def least(self, without: Set[KeyT] = frozenset()) -> KeyT | None:
        """The waiting key with the least service; among equals the one that waits longer.

        Args:
            without: Keys that are passed over: O(log keys) for each of them.
        """
        passed_over = []
        found = None
        while self._heap:
            _, number, key = self._heap[0]
            if self._waiting.get(key) != number:
                heapq.heappop(self._heap)
            elif key in without:
                passed_over.append(heapq.heappop(self._heap))
            else:
                found = key
                break
        for entry in passed_over:
            heapq.heappush(self._heap, entry)
        return found

    def _push(self, key: KeyT) -> None:
        self._entries += 1
        self._waiting[key] = self._entries
        heapq.heappush(self._heap, (self._served[key], self._entries, key))
        if len(self._heap) > 64 + 4 * len(self._waiting):  # mostly entries that were replaced
            live = [entry for entry in self._heap if self._waiting.get(entry[2]) == entry[1]]
            heapq.heapify(live)
            self._heap = live

    def _forget_idle(self) -> None:
        """A key below the floor would be lifted to it anyway, so its counter says nothing."""
        least = self.least()
        floor = self._last if least is None else self._served[least]
        idle = [key for key in self._served if key not in self._waiting]
        idle.sort(key=self.served)
        keep = set(idle[len(idle) // 2 :])
        for key in idle:
            if key not in keep or self._served[key] <= floor:
                del self._served[key]


@dataclass(slots=True)
class _Flow(Generic[ItemT]):
    items: OrderedDict[ItemT, None] = field(default_factory=OrderedDict)


class FairQueue(Generic[KeyT, ItemT]):
    """A queue for each key; the keys take turns after their counters."""

    def __init__(self) -> None:
        self.counters: VirtualCounters[KeyT] = VirtualCounters()
        self._flows: dict[KeyT, _Flow[ItemT]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def join(self, key: KeyT, item: ItemT) -> None:
        """Takes the last place among the key's."""
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = _Flow()
            self.counters.begin(key)
        flow.items[item] = None
        self._size += 1

    def leave(self, key: KeyT, item: ItemT) -> bool:
        """Gives a place up; false if there was none."""
        flow = self._flows.get(key)
        if flow is None or item not in flow.items:
            return False
        del flow.items[item]
        self._size -= 1
        if not flow.items:
            del self._flows[key]
            self.counters.end(key)
        return True

    def first(self, without: Set[KeyT] = frozenset()) -> ItemT | None:
        """Whose turn it is; `without` names a few keys that are passed over."""
        key = self.counters.least(without)
        return None if key is None else next(iter(self._flows[key].items))

    def newest_of(self, key: KeyT) -> list[ItemT]:
        """The key's items, those that came last first."""
        flow = self._flows.get(key)
        return [] if flow is None else list(reversed(flow.items))
