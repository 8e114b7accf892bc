"""One host's connection to the launcher: the line that it sends, and what it is told."""

import socket
from dataclasses import dataclass

from models.errors import BadRequestError
from serving.engine.launch_protocol import MAX_LINE_BYTES, Event, SpawnRequest, encode
from serving.engine.standing import Engine


@dataclass(slots=True, eq=False)
class Caller:
    """A connection; the lease of its engine, once there is one."""

    connection: socket.socket
    received: bytes = b""
    waiting: SpawnRequest | None = None
    engine: Engine | None = None

    def read(self) -> bytes | None:
        """What has come in; empty at its end, None where nothing has."""
        try:
            return self.connection.recv(1 << 16)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def line(self, data: bytes) -> bytes | None:
        """Takes in what was read; its request, once that is whole.

        Raises:
            BadRequestError: If it is too long.
        """
        self.received += data
        line, newline, _ = self.received.partition(b"\n")
        if newline:
            return line
        if len(self.received) > MAX_LINE_BYTES:
            raise BadRequestError("the request is too long")
        return None

    def tell(self, event: Event) -> None:
        """Sends an event, if the host still reads."""
        try:
            self.connection.sendall(encode(event))
        except OSError:  # gone, or it does not read: its end of file is handled elsewhere
            return
