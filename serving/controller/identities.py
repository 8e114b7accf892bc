"""The keys in memory, kept up to date with the store: for the admin API and for gateways."""

import asyncio

from models.errors import ForbiddenError, UnauthenticatedError
from serving.controller.changes import Changes, stopped_within
from serving.controller.database import DatabaseError
from serving.controller.keys import find_key
from serving.controller.store import Store
from serving.logs import get_logger
from serving.protocol import IdentitiesDelta, KeyRecord, Role

REFRESH_S = 1.0
"""Keys may be changed by another process, such as `python -m serving.controller.keys`."""

log = get_logger(__name__)


class Identities:
    """All keys, with a version that grows as they change."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: tuple[KeyRecord, ...] = ()
        self.changes = Changes()

    async def refresh(self) -> None:
        """Reads the keys anew.

        Raises:
            DatabaseError: If the store does not answer; the last keys stay valid.
        """
        keys = await self._store.keys()
        if keys != self._keys:
            self._keys = keys
            self.changes.bump()

    async def run(self, stop: asyncio.Event) -> None:
        """Refreshes until it is stopped; cancelled amid a query it would leave a thread behind."""
        while not await stopped_within(stop, REFRESH_S):
            try:
                await self.refresh()
            except DatabaseError as exc:
                log.warning("keys_not_read", error=str(exc))

    def since(self, after: int) -> IdentitiesDelta:
        """All keys, or none where the caller has this version."""
        version = self.changes.version
        if after == version:
            return IdentitiesDelta(version=version, full=False)
        return IdentitiesDelta(version=version, full=True, keys=self._keys)

    def require_admin(self, key: str | None) -> KeyRecord:
        """The record of an operator's key.

        Raises:
            UnauthenticatedError: If there is no key, or nobody was given it.
            ForbiddenError: If it is a tenant's.
        """
        if not key:
            raise UnauthenticatedError(
                "an admin key is needed: Authorization: Bearer pa-...",
                hint="set PENSTOCK_ADMIN_KEY",
            )
        record = find_key(self._keys, key)
        if record is None:
            raise UnauthenticatedError("the key is not known", hint="check PENSTOCK_ADMIN_KEY")
        if record.role is not Role.ADMIN:
            raise ForbiddenError(
                "this key may call models, not operate the platform",
                hint="use the admin key (PENSTOCK_ADMIN_KEY)",
            )
        return record
