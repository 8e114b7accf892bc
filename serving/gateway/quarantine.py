"""Requests that two engines died of, refused for a while by what they say. Pure."""

import hashlib

from models.errors import PenstockError

FOR_S = 600.0

KEPT = 1000


class QuarantinedError(PenstockError):
    """Engines died of this very request: it is not tried again for a while."""

    code = "request_quarantined"

    def __init__(self) -> None:
        super().__init__(
            "engines broke off on this very request twice; it is refused for some minutes"
        )


def fingerprint(model: str, body: bytes) -> str:
    """What a request is known by."""
    return hashlib.blake2b(model.encode() + b"\0" + body, digest_size=16).hexdigest()


class Quarantine:
    """The fingerprints that are refused; monotonic seconds."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until_s)

    def add(self, known_as: str, now_s: float) -> None:
        """Refuses a request from now on; beyond KEPT the oldest is let go."""
        self._until_s.pop(known_as, None)
        self._until_s[known_as] = now_s + FOR_S
        while len(self._until_s) > KEPT:
            del self._until_s[next(iter(self._until_s))]

    def check(self, model: str, body: bytes, now_s: float) -> None:
        """Costs nothing while nobody is in quarantine.

        Raises:
            QuarantinedError: If the request is.
        """
        if not self._until_s:
            return
        known_as = fingerprint(model, body)
        until_s = self._until_s.get(known_as)
        if until_s is None:
            return
        if now_s < until_s:
            raise QuarantinedError
        del self._until_s[known_as]
