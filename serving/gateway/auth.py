"""Who calls: finds the record of a key without ever having the key."""

import hashlib
import hmac
from collections import defaultdict

from models.errors import UnauthenticatedError, UnavailableError
from serving.protocol import IdentitiesDelta, KeyRecord

SCHEME = b"bearer "


class Keyring:
    """All keys that the controller has told of, indexed by their first characters."""

    def __init__(self) -> None:
        self._by_prefix: dict[str, list[KeyRecord]] = {}
        self._prefix_lengths: tuple[int, ...] = ()
        self._seen: dict[bytes, KeyRecord] = {}  # SHA-256 of a valid key -> its record
        self.loaded = False

    def apply(self, delta: IdentitiesDelta) -> None:
        """Takes over a change; a key that is gone is refused from here on."""
        if not delta.full:
            return
        self.loaded = True
        by_prefix: defaultdict[str, list[KeyRecord]] = defaultdict(list)
        for record in delta.keys:
            by_prefix[record.prefix].append(record)
        self._by_prefix = dict(by_prefix)
        self._prefix_lengths = tuple(sorted({len(prefix) for prefix in by_prefix}))
        self._seen.clear()

    def authenticate(self, authorization: bytes | None) -> KeyRecord:
        """The record of the key in an Authorization header.

        Raises:
            UnauthenticatedError: Without a key, or with one that nobody was given.
            UnavailableError: If the controller has not told of any keys yet.
        """
        if not self.loaded:
            raise UnavailableError("the gateway is starting and knows no keys yet")
        key = _bearer(authorization)
        seen = hashlib.sha256(key).digest()
        record = self._seen.get(seen) or self._find(key)
        if record is None:
            raise UnauthenticatedError("the API key is not valid")
        self._seen[seen] = record
        return record

    def _find(self, key: bytes) -> KeyRecord | None:
        text = key.decode("latin-1")
        found: KeyRecord | None = None
        for length in self._prefix_lengths:
            for record in self._by_prefix.get(text[:length], ()):
                digest = hashlib.sha256(record.salt.encode() + key).hexdigest()
                if hmac.compare_digest(digest.encode(), record.digest.encode()):
                    found = record
        return found


def _bearer(authorization: bytes | None) -> bytes:
    if authorization is None:
        raise UnauthenticatedError("no API key was given; send `Authorization: Bearer <key>`")
    key = authorization[len(SCHEME) :].strip()
    if authorization[: len(SCHEME)].lower() != SCHEME or not key:
        raise UnauthenticatedError("the Authorization header must read `Bearer <key>`")
    return key
