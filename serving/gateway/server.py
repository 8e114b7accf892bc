"""The gateway's process: its listening socket, its signals, and how it says where it listens."""

import asyncio
import gc
import signal
import socket
import time

import uvicorn
from fastapi import FastAPI

from models.errors import ConflictError
from serving.background import set_within
from serving.gateway.connection import LINGER_S, TenantConnection
from serving.gateway.handover import Handover
from serving.gateway.pages import collapse_heap
from serving.gateway.pulse import beat
from serving.logs import get_logger
from serving.settings import GatewaySettings

BACKLOG = 2048

TICK_S = 1.0
"""How old the `date` of an answer may be."""

GC_AFTER = 20_000
"""New objects after which the collector looks for cycles: a request leaves hardly any."""

IDLE_CONNECTION_S = 75
"""Longer than HTTP clients and load balancers keep theirs, so that they close first."""

log = get_logger(__name__)


class PortTakenError(ConflictError):
    """Nobody can listen where the settings say."""

    code = "port_taken"


class Server(uvicorn.Server):
    """uvicorn's server, which says in the log where it listens, once it can answer.

    Args:
        config: uvicorn's.
        handover: What it got from its supervisor, if it has one.
    """

    def __init__(self, config: uvicorn.Config, handover: Handover | None = None) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._exiting = asyncio.Event()
        super().__init__(config)
        self._handover = handover
        self._pulse: asyncio.Task[None] | None = None

    @property
    def should_exit(self) -> bool:
        """Whether it is to stop; may be set from a signal's handler, or another thread."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, wanted: bool) -> None:
        self._should_exit = wanted
        if wanted and self._loop is not None:
            self._loop.call_soon_threadsafe(self._exiting.set)

    async def main_loop(self) -> None:
        """Waits until it is to stop. uvicorn's own looks ten times a second; here it is woken, and
        sets the answers' date each TICK_S."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            await set_within(self._exiting, TICK_S)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts serving, and logs `listening` with `host`, `port` and `url`."""
        await super().startup(sockets=sockets)
        for bound in sockets or []:
            host, port = bound.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            log.info("listening", host=host, port=port, url=f"http://{shown}:{port}")
        if self._handover is not None and self.started:
            loop = asyncio.get_running_loop()
            loop.add_reader(self._handover.life, self._lose_supervisor, self._handover.life)
            self._pulse = asyncio.create_task(beat(self._handover.ready))

    def _lose_supervisor(self, life: int) -> None:
        asyncio.get_running_loop().remove_reader(life)
        log.warning("supervisor_gone")
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts nothing more, lets idle clients notice, and ends what runs.

        A request on a connection that is kept open may be on its way just now. So idle ones get
        LINGER_S, in which a request is still answered, and told to be the connection's last.
        """
        for server in self.servers:
            server.close()
        connections = [c for c in self.server_state.connections if isinstance(c, TenantConnection)]
        for connection in connections:
            connection.make_last()
        deadline_s = time.monotonic() + LINGER_S
        while any(c.idle for c in self.server_state.connections if isinstance(c, TenantConnection)):
            await asyncio.sleep(0.05)
            if time.monotonic() > deadline_s:
                break
        await super().shutdown(sockets=sockets)


def listen(settings: GatewaySettings) -> socket.socket:
    """Opens the listening socket.

    Raises:
        PortTakenError: If the address is in use, or not this machine's.
    """
    address = (settings.gateway_host, settings.gateway_port)
    family = socket.AF_INET6 if ":" in settings.gateway_host else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as exc:
        raise PortTakenError(
            f"cannot listen on {address[0]}:{address[1]}: {exc.strerror or exc}",
            hint="choose another PENSTOCK_GATEWAY_PORT, or stop what listens there",
        ) from exc


def make_server(
    app: FastAPI, settings: GatewaySettings, handover: Handover | None = None
) -> Server:
    """The server for an app, still to be run on a socket."""
    return Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=TenantConnection,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_CONNECTION_S,
            timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
        ),
        handover,
    )


def run(app: FastAPI, settings: GatewaySettings, handover: Handover | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then lets streams end within the drain time.

    Raises:
        PortTakenError: If nobody can listen there.
    """
    listening = listen(settings) if handover is None else socket.socket(fileno=handover.listening)
    # uvicorn raises the signal again after its shutdown, so that a parent sees a death by signal;
    # a drained gateway is a success, and exits with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # What is there now stays: no collection looks at it again, which takes 20 ms each time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_AFTER, 20, 50)
    log.info("heap_on_huge_pages", mib=collapse_heap() // 2**20)
    make_server(app, settings, handover).run(sockets=[listening])
