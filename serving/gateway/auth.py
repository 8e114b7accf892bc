"""Who calls: finds the record of a key without ever having the key."""

import time
from collections.abc import Callable, Iterable

from models.errors import ForbiddenError, UnavailableError
from serving.credentials import KeyIndex, key_of
from serving.gateway.visits import Visit
from serving.identities import (
    DEFAULT_ORG,
    DEFAULT_PROJECT,
    IdentitiesDelta,
    KeyRecord,
    LimitRecord,
    Role,
    TokenPrice,
)

CALLERS = frozenset({Role.INFERENCE, Role.ADMIN, Role.OPERATOR})
"""Roles whose keys may call models; a viewer only looks on."""

Headers = Iterable[tuple[bytes, bytes]]


class ModelNotAllowedError(ForbiddenError):
    """The model is not on the key's list."""

    code = "model_not_allowed"


class SteadyClock:
    """Unix time that nobody can set: a machine's clock that jumps neither revives an expired key
    nor ends a valid one. It is taken from the machine's clock once, then counts by itself."""

    def __init__(
        self, wall: Callable[[], float] = time.time, count: Callable[[], float] = time.monotonic
    ) -> None:
        self._offset = wall() - count()
        self._count = count

    def __call__(self) -> float:
        """Unix seconds."""
        return self._count() + self._offset


class Keyring:
    """All keys, limits and prices that the controller has told of."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.clock = clock or SteadyClock()
        self.limits: dict[str, LimitRecord] = {}
        self.prices: dict[str, TokenPrice] = {}
        self.version = 0
        self.generation = 0
        """Grows with each change, for those who keep what they worked out from it."""
        self.loaded = False
        self._index = KeyIndex()

    def apply(self, delta: IdentitiesDelta) -> None:
        """Takes over a change; a key that is gone is refused from here on."""
        if delta.full:
            self._index = KeyIndex()
            self.limits, self.prices = {}, {}
            self.loaded = True
        for gone in delta.removed:
            self._index.remove(gone)
            self.limits.pop(gone, None)
            self.prices.pop(gone, None)
        for record in delta.keys:
            self._index.put(record)
        self.limits.update({limit.limit_id: limit for limit in delta.limits})
        self.prices.update({price.price_id: price for price in delta.prices})
        self.version = delta.version
        self.generation += 1

    def snapshot(self) -> IdentitiesDelta:
        """All of it, as it is kept on disk."""
        return IdentitiesDelta(
            version=self.version,
            full=True,
            keys=tuple(self._index.records()),
            limits=tuple(self.limits.values()),
            prices=tuple(self.prices.values()),
        )

    def authenticate(self, headers: Headers, query: bytes = b"") -> KeyRecord:
        """The record of the key that a request shows.

        Raises:
            UnauthenticatedError: Without a key, with more than one, with one that nobody was
                given or that has expired, or with one in the URL.
            UnavailableError: If the controller has not told of any keys yet.
        """
        if not self.loaded:
            raise UnavailableError("the gateway is starting and knows no keys yet")
        return self._index.authenticate(key_of(headers, query), self.clock())

    def admit(self, visit: Visit, headers: Headers, query: bytes = b"") -> KeyRecord:
        """Lets a caller of models in, and notes on the visit who pays.

        Raises:
            UnauthenticatedError: As `authenticate`.
            ForbiddenError: If the key's role calls no models.
            UnavailableError: If the controller has not told of any keys yet.
        """
        record = self.authenticate(headers, query)
        visit.key_id = record.key_id
        visit.org_id = record.org_id or DEFAULT_ORG
        visit.project_id = record.project_id or DEFAULT_PROJECT
        if record.role not in CALLERS:
            raise ForbiddenError(f"a key of role {record.role} may not call models")
        return record

    def get(self, key_id: str) -> KeyRecord | None:
        """The key of this id."""
        return self._index.get(key_id)


def check_model(record: KeyRecord, model: str) -> None:
    """Sees to it that the key may call the model, whether there is such a model or not.

    Raises:
        ModelNotAllowedError: If the model is not on the key's list.
    """
    if not record.may_call(model):
        shown = model if len(model) <= 200 else model[:200] + "..."
        raise ModelNotAllowedError(f"this key may not call the model {shown!r}", param="model")
