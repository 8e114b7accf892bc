"""Ports for servers that a test starts, and perhaps starts again at the same one.

Not what the kernel gives for port 0: those are also the ports of outgoing connections, and one of
them may have taken it when the server comes, or comes back.
"""

from serving.cli.ports import pick


def free_port() -> int:
    """A port of loopback at which nothing listens, and from which no connection goes out."""
    return pick("server")["server"]
