"""Cheap questions to parts on this machine: is it there, does it answer.

Asked ten times a second while a platform starts, so that no HTTP client is set up for them (TLS
alone costs 20 ms each) and no proxy from the environment stands between.
"""

import http.client
import socket
from pathlib import Path

TIMEOUT_S = 1.0


def accepts(path: Path) -> bool:
    """Whether something listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(TIMEOUT_S)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def is_ok(port: int, path: str, token: str | None = None, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether a server on loopback answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
