"""A host's side of the launcher's socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from models.errors import UnreachableError
from serving.engine.launch_protocol import (
    MAX_LINE_BYTES,
    Event,
    Hello,
    HelloRequest,
    Request,
    SpawnRequest,
    decode_event,
    encode,
)


class Lease(Protocol):
    """Holds one engine: it lives as long as the lease."""

    def events(self) -> AsyncIterator[Event]:
        """The engine's events as they come; ends after `refused` or `exited`, or when the
        launcher is gone, and the engine with it.
        """
        ...

    def give_up(self) -> None:
        """Has the engine ended; `events` goes on to the end."""
        ...

    async def close(self) -> None:
        """Breaks the connection, whatever stands."""
        ...


class Launcher(Protocol):
    """Starts engines."""

    async def spawn(self, request: SpawnRequest) -> Lease:
        """Asks for an engine.

        Raises:
            UnreachableError: If no launcher answers.
        """
        ...


class SocketLease:
    """A lease that is a connection to the launcher."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def events(self) -> AsyncIterator[Event]:
        """See `Lease.events`."""
        while True:
            try:
                line = await self._reader.readline()
            except (OSError, ValueError):
                return
            if not line.endswith(b"\n"):
                return
            yield decode_event(line)

    def give_up(self) -> None:
        """See `Lease.give_up`."""
        if not self._writer.is_closing():
            self._writer.write_eof()

    async def close(self) -> None:
        """See `Lease.close`."""
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class SocketLauncher:
    """The launcher that listens at a Unix socket.

    Args:
        path: The socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def hello(self) -> Hello:
        """Asks whether the launcher is up; it listens only when it is warm.

        Raises:
            UnreachableError: If no launcher answers.
        """
        lease = await self._connect(HelloRequest())
        try:
            async for event in lease.events():
                if isinstance(event, Hello):
                    return event
        finally:
            await lease.close()
        raise UnreachableError(f"the launcher at {self._path} does not answer")

    async def spawn(self, request: SpawnRequest) -> Lease:
        """See `Launcher.spawn`."""
        return await self._connect(request)

    async def _connect(self, request: Request) -> SocketLease:
        try:
            reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE_BYTES)
        except OSError as exc:
            raise UnreachableError(
                f"no launcher listens at {self._path}", hint="is it started, and done importing?"
            ) from exc
        writer.write(encode(request))
        return SocketLease(reader, writer)
