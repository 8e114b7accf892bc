"""The controller's server: where it listens, how it says so, and how it ends."""

import contextlib
import errno
import signal
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from models.errors import BadRequestError, ConflictError
from serving.controller.context import Controller
from serving.logs import get_logger

SHUTDOWN_S = 2.0
"""How long requests that run get at the end; long polls are answered at once."""

log = get_logger(__name__)


class Server(uvicorn.Server):
    """A server that tells its address, answers long polls when it ends, and ends with status 0."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="on",
                timeout_graceful_shutdown=int(SHUTDOWN_S),
                server_header=False,
            )
        )
        self._app = app

    @property
    def _controller(self) -> Controller:
        controller: Controller = self._app.state.controller
        return controller

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tells where it listens, once it does."""
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            log.info("listening", host=host, port=port)

    async def on_tick(self, counter: int) -> bool:
        """Ends a controller whose loop died."""
        return await super().on_tick(counter) or self._controller.broken

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answers the long polls first: they would hold the shutdown up."""
        self._controller.close_polls()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but without raising the signal again: an end on request is no error."""
        originals = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in originals.items():
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes any free one.

    Raises:
        ConflictError: If the port is in use.
        BadRequestError: If the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol left open, asyncio does not turn Nagle's algorithm off: answers wait 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        # Listening here and not in the server: two who bound the same port meet here.
        sock.listen(128)
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRINUSE:
            raise ConflictError(
                f"port {port} on {host} is in use",
                param="PENSTOCK_CONTROLLER_PORT",
                hint="another controller may run; choose a port with PENSTOCK_CONTROLLER_PORT",
            ) from exc
        raise BadRequestError(
            f"cannot listen on {host}:{port}: {exc.strerror or exc}",
            param="PENSTOCK_CONTROLLER_HOST",
            hint="PENSTOCK_CONTROLLER_HOST has to be an address of this machine",
        ) from exc
    return sock
