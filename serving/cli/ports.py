"""Free ports on loopback, and what to say about one that is taken."""

import random
import socket

from models.errors import ConflictError, UnavailableError

BELOW_EPHEMERAL = range(20_000, 32_000)
"""Connections never get these as their own port, so that a part finds its port free again when
it is restarted (Linux gives out 32768 and up)."""

TRIES = 200


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def pick(*names: str) -> dict[str, int]:
    """A free port for each name, all different.

    Raises:
        UnavailableError: If none is found.
    """
    found: dict[str, int] = {}
    for _ in range(TRIES):
        if len(found) == len(names):
            return found
        port = random.choice(BELOW_EPHEMERAL)  # noqa: S311, no secret
        if port not in found.values() and is_free(port):
            found[names[len(found)]] = port
    raise UnavailableError("no free port was found", hint="see what listens with `ss -ltn`")


def require_free(port: int) -> None:
    """Checks the port that the operator asked for.

    Raises:
        ConflictError: If something listens there.
    """
    if not is_free(port):
        raise ConflictError(
            f"port {port} is in use",
            hint="give another one with --port, or --port 0 for any free one",
        )
