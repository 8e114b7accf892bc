"""Which engine has likely seen a prompt's beginning before. Pure; the same in every gateway.

Keys are checksums of the prompt's leading blocks, each covering all bytes up to its end, and of the
session that the tenant names. A request goes by its most general key; where many requests share
that one (a system prompt), by the next, until a key's share of the traffic is one that a single
engine can bear. Keys are placed on a ring (consistent hashing): where engines come and go, few keys
move. The bound on loads is the balancer's (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing
with Bounded Loads", SODA 2018): a key whose engine has its fill goes on along the ring.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from zlib import crc32

BLOCK_BYTES = 256
"""The first block, some 64 tokens; each further one ends at twice the bytes."""

POINTS = 64
"""Places of one engine on the ring."""

HOT_SHARE = 0.5
"""A key is too hot for one engine with more than this part of an engine's equal share."""

SEEN_AT_LEAST = 16
"""Requests with a key before it can be called hot."""

HALVE_AFTER = 4096
"""Requests after which all counts are halved: what is hot is hot now."""


def keys_of(tenant: str, session: str, prefix: bytes, adapter: str = "") -> tuple[int, ...]:
    """The keys of a request, the most general first: 8 KiB take 4 us.

    Args:
        tenant: Whose prefix cache it is: organisations do not share one.
        session: What the tenant says that related requests have in common.
        prefix: The prompt's first bytes.
        adapter: Of the model: an engine has a few at hand, and caches prompts for each apart.
    """
    keys: list[int] = []
    key = crc32(tenant.encode())
    if adapter:
        keys.append(crc32(b"\1" + adapter.encode()))
        key = crc32(adapter.encode(), key)
    if session:
        key = crc32(b"\0" + session.encode("utf-8", "replace"), key)
        keys.append(key)
    begin, end = 0, BLOCK_BYTES
    while end <= len(prefix):
        key = crc32(prefix[begin:end], key)
        keys.append(key)
        begin, end = end, 2 * end
    if len(keys) == bool(adapter) and prefix:
        keys.append(crc32(prefix, key))
    return tuple(keys)


class Popularity:
    """How often each key was asked for lately."""

    def __init__(self) -> None:
        self._counts: dict[int, float] = {}
        self._requests = 0.0
        self._since_halved = 0

    def key_for(self, keys: Sequence[int], engines: int) -> int:
        """Counts a request in, and says which of its keys (at least one) it goes by."""
        self._requests += 1
        self._since_halved += 1
        if self._since_halved >= HALVE_AFTER:
            self._halve()
        bearable = max(SEEN_AT_LEAST, HOT_SHARE * self._requests / max(1, engines))
        for key in keys:
            count = self._counts[key] = self._counts.get(key, 0.0) + 1
            if count <= bearable:
                return key
        return keys[-1]

    def _halve(self) -> None:
        self._since_halved = 0
        self._requests /= 2
        self._counts = {key: n / 2 for key, n in self._counts.items() if n >= 2}


class Ring:
    """Engines around a circle of 32-bit keys."""

    def __init__(self, engine_ids: Iterable[str] = ()) -> None:
        names = list(engine_ids)
        self._engines = len(names)
        places = sorted(
            (_spread(crc32(f"{name}/{i}".encode())), name) for name in names for i in range(POINTS)
        )
        self._points = [point for point, _ in places]
        self._names = [name for _, name in places]

    def walk(self, key: int) -> Iterator[str]:
        """All engines, the one that the key belongs to first."""
        at = bisect_right(self._points, _spread(key))
        told: set[str] = set()
        for step in range(len(self._points)):
            name = self._names[(at + step) % len(self._names)]
            if name not in told:
                told.add(name)
                yield name
                if len(told) == self._engines:
                    return


def _spread(checksum: int) -> int:
    """Mixes a checksum's bits (the finaliser of MurmurHash3): CRC alone leaves neighbours near."""
    h = checksum
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return h ^ (h >> 16)
