"""Keys as they come in: where a caller may put one, and whose it is.

Whoever guesses keys learns nothing from the clock: each search computes the same digests, whether
the beginning of the key is known or not, and compares them in constant time.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import NamedTuple

from models.errors import UnauthenticatedError
from serving.identities import KeyRecord, KeySecret, Role

SCHEME = b"bearer "
LONGEST_KEY = 512

IN_QUERY = re.compile(
    rb"(?:^|&)(?:api[-_.]?key|key|token|access[-_]?token|authorization)=|=(?:pk|pa)-", re.IGNORECASE
)
"""A key in a URL stands in the logs of everybody on the way."""


class _Stored(NamedTuple):
    record: KeyRecord
    salt: bytes
    digest: bytes
    expires_at: float | None


class Match(NamedTuple):
    """Whose key it is, and until when."""

    record: KeyRecord
    expires_at: float | None


def digest_of(salt: str, key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256((salt + key).encode()).hexdigest()


def key_of(headers: Iterable[tuple[bytes, bytes]], query: bytes = b"") -> bytes:
    """The one key that a request shows, in `Authorization: Bearer` or, as Anthropic's clients do
    it, in `x-api-key`.

    Args:
        headers: With lower-case names.
        query: The query string, in which no key may stand.

    Raises:
        UnauthenticatedError: If there is none, more than one, or one in the wrong place.
    """
    found: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            key = value[len(SCHEME) :].strip()
            if value[: len(SCHEME)].lower() != SCHEME or not key:
                raise UnauthenticatedError("the Authorization header must read `Bearer <key>`")
        elif name == b"x-api-key":
            key = value.strip()
        else:
            continue
        if found is not None:
            raise UnauthenticatedError("more than one API key was given; send one")
        found = key
    if query and IN_QUERY.search(query):
        raise UnauthenticatedError(
            "an API key may not stand in the URL, where it ends up in logs; revoke it and send "
            "the new one as `Authorization: Bearer <key>`"
        )
    if not found:
        raise UnauthenticatedError("no API key was given; send `Authorization: Bearer <key>`")
    return found


class KeyIndex:
    """Finds the record of a key by its first characters and its digest."""

    def __init__(self, records: Iterable[KeyRecord] = ()) -> None:
        self._by_prefix: dict[bytes, tuple[_Stored, ...]] = {}
        self._records: dict[str, KeyRecord] = {}
        self._lengths: dict[int, int] = {}  # length of a prefix -> how many have it
        decoy = KeyRecord(key_id="", name="", role=Role.VIEWER, prefix="", salt="", digest="")
        self._decoys = (_Stored(decoy, b"0" * 32, b"0" * 32, None),)
        self.digests = 0
        """How many were computed; the tests look at it."""
        for record in records:
            self.put(record)

    def __len__(self) -> int:
        return len(self._records)

    def records(self) -> list[KeyRecord]:
        """All keys, in the order in which they came."""
        return list(self._records.values())

    def get(self, key_id: str) -> KeyRecord | None:
        """The key of this id."""
        return self._records.get(key_id)

    def put(self, record: KeyRecord) -> None:
        """Adds a key, or takes over its change."""
        self.remove(record.key_id)
        self._records[record.key_id] = record
        for secret in _secrets(record):
            prefix = secret.prefix.encode()
            until = [at for at in (secret.expires_at, record.expires_at) if at is not None]
            stored = _Stored(
                record,
                secret.salt.encode(),
                bytes.fromhex(secret.digest),
                min(until, default=None),
            )
            self._by_prefix[prefix] = (*self._by_prefix.get(prefix, ()), stored)
            self._lengths[len(prefix)] = self._lengths.get(len(prefix), 0) + 1

    def remove(self, key_id: str) -> None:
        """Forgets a key; nothing happens where there is none."""
        record = self._records.pop(key_id, None)
        if record is None:
            return
        for secret in _secrets(record):
            prefix = secret.prefix.encode()
            here = self._by_prefix.get(prefix, ())
            left = tuple(stored for stored in here if stored.record.key_id != key_id)
            if left:
                self._by_prefix[prefix] = left
            else:
                self._by_prefix.pop(prefix, None)
            self._lengths[len(prefix)] -= 1
            if not self._lengths[len(prefix)]:
                del self._lengths[len(prefix)]

    def find(self, key: bytes) -> Match | None:
        """Whose key it is; None if nobody was given it."""
        if len(key) > LONGEST_KEY:
            return None
        found: Match | None = None
        for length in self._lengths:
            for stored in self._by_prefix.get(key[:length], self._decoys):
                self.digests += 1
                digest = hashlib.sha256(stored.salt + key).digest()
                if hmac.compare_digest(digest, stored.digest):
                    found = Match(stored.record, stored.expires_at)
        return found

    def authenticate(self, key: bytes, at: float) -> KeyRecord:
        """The record of a key that is valid at this moment (Unix seconds).

        Raises:
            UnauthenticatedError: If nobody was given it, or it has expired.
        """
        match = self.find(key)
        if match is None:
            raise UnauthenticatedError("the API key is not valid")
        if match.expires_at is not None and at >= match.expires_at:
            raise UnauthenticatedError("the API key has expired")
        return match.record


def _secrets(record: KeyRecord) -> list[KeySecret]:
    present = KeySecret(prefix=record.prefix, salt=record.salt, digest=record.digest)
    return [present] if record.previous is None else [present, record.previous]
