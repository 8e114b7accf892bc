"""The gateway's process: its listening socket, its signals, and how it says where it listens."""

import gc
import signal
import socket

import uvicorn
from fastapi import FastAPI

from models.errors import ConflictError
from serving.gateway.connection import TenantConnection
from serving.logs import get_logger
from serving.settings import GatewaySettings

BACKLOG = 2048

GC_AFTER = 20_000
"""New objects after which the collector looks for cycles: a request leaves hardly any."""

IDLE_CONNECTION_S = 75
"""Longer than HTTP clients and load balancers keep theirs, so that they close first."""

log = get_logger(__name__)


class PortTakenError(ConflictError):
    """Nobody can listen where the settings say."""

    code = "port_taken"


class Server(uvicorn.Server):
    """uvicorn's server, which says in the log where it listens, once it can answer."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts serving, and logs `listening` with `host`, `port` and `url`."""
        await super().startup(sockets=sockets)
        for bound in sockets or []:
            host, port = bound.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            log.info("listening", host=host, port=port, url=f"http://{shown}:{port}")


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


def make_server(app: FastAPI, settings: GatewaySettings) -> Server:
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
        )
    )


def run(app: FastAPI, settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT, then lets streams end within the drain time.

    Raises:
        PortTakenError: If nobody can listen there.
    """
    listening = listen(settings)
    # uvicorn raises the signal again after its shutdown, so that a parent sees a death by signal;
    # a drained gateway is a success, and exits with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # What is there now stays: no collection looks at it again, which takes 20 ms each time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_AFTER, 20, 50)
    make_server(app, settings).run(sockets=[listening])
