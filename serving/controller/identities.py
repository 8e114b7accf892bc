"""What gateways know of tenants, in memory and in step with the store, and its deltas."""

import asyncio
import time

from serving.background import set_within
from serving.controller.database import DatabaseError
from serving.controller.key_store import KeyStore
from serving.controller.limit_store import LimitStore
from serving.controller.price_store import PriceStore
from serving.controller.store import Store
from serving.controller.versioned import VersionedTable
from serving.credentials import KeyIndex
from serving.identities import IdentitiesDelta, KeyRecord, LimitRecord, TokenPrice
from serving.logs import get_logger

LOOK_S = 0.25
"""Tenants may be changed by another process: a second controller, `serving.controller.keys`. One
number in the database says whether they were."""

EVERYTHING_S = 600.0
"""All is read anew after this time, changed or not: keys expire."""

TOMBSTONES_MAX = 10_000

Thing = KeyRecord | LimitRecord | TokenPrice

log = get_logger(__name__)


class Identities:
    """Keys, limits and prices, with a version that grows as they change."""

    def __init__(self, store: Store) -> None:
        self._keys = KeyStore(store)
        self._limits = LimitStore(store)
        self._prices = PriceStore(store)
        self._index = KeyIndex()
        self._things: VersionedTable[Thing] = VersionedTable(TOMBSTONES_MAX)
        self.changes = self._things.changes
        self._stored_version = -1
        self._read_s = 0.0
        self._reading = asyncio.Lock()

    async def refresh(self) -> None:
        """Reads everything anew.

        Raises:
            DatabaseError: If the store does not answer; what was last known stays.
        """
        async with self._reading:
            stored_version = await self._keys.version()
            new: dict[str, Thing] = {
                key.key_id: key for key in await self._keys.records(time.time())
            }
            new |= {limit.limit_id: limit for limit in await self._limits.records()}
            new |= {price.price_id: price for price in await self._prices.token_prices()}
            self._stored_version = stored_version
            self._read_s = time.monotonic()
            self._take(new)

    async def refresh_or_later(self) -> None:
        """As `refresh`, after a write whose answer must not be lost; `run` does what fails."""
        try:
            await self.refresh()
        except DatabaseError as exc:
            log.warning("keys_not_read", error=str(exc))

    async def run(self, stop: asyncio.Event) -> None:
        """Refreshes until it is stopped; cancelled amid a query it would leave a thread behind."""
        while not await set_within(stop, LOOK_S):
            try:
                old = time.monotonic() - self._read_s > EVERYTHING_S
                if old or await self._keys.version() != self._stored_version:
                    await self.refresh()
            except DatabaseError as exc:
                log.warning("keys_not_read", error=str(exc))

    def since(self, after: int) -> IdentitiesDelta:
        """What changed after a version; everything where that version is unknown."""
        delta = self._things.since(after)
        return IdentitiesDelta(
            version=delta.version,
            full=delta.full,
            keys=tuple(thing for thing in delta.things if isinstance(thing, KeyRecord)),
            limits=tuple(thing for thing in delta.things if isinstance(thing, LimitRecord)),
            prices=tuple(thing for thing in delta.things if isinstance(thing, TokenPrice)),
            removed=delta.removed,
        )

    def authenticate(self, key: bytes, at: float) -> KeyRecord:
        """The record of a key that is valid at this moment (Unix seconds).

        Raises:
            UnauthenticatedError: If nobody was given it, or it has expired.
        """
        return self._index.authenticate(key, at)

    def keys(self) -> list[KeyRecord]:
        """All keys."""
        return [thing for thing in self._things if isinstance(thing, KeyRecord)]

    def limits(self) -> dict[str, LimitRecord]:
        """All limits by their id."""
        return {t.limit_id: t for t in self._things if isinstance(t, LimitRecord)}

    def _take(self, new: dict[str, Thing]) -> None:
        replaced = self._things.replace(new)
        for thing_id in replaced.changed:
            if isinstance(thing := new[thing_id], KeyRecord):
                self._index.put(thing)
        for thing_id in replaced.removed:
            self._index.remove(thing_id)
