"""The launcher's standbys: processes that have imported all and wait to become engines.

They take the fork's place where it cannot serve, as where an accelerator is initialised in the
launcher. A standby is executed anew, so it shares nothing with the launcher but a socket; what a
forked engine inherits, its request and its descriptors, comes over that socket. The other side is
`standby_child`.
"""

import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from serving import logs
from serving.engine.child import Inheritance
from serving.engine.launch_protocol import SpawnRequest

WARM = b"w"
"""What a standby says once it has imported all."""

STILLBORN_MAX = 3
"""Standbys in a row that may end before they are warm: after that no more are made."""

_log = logs.get_logger("penstock.launcher")


class Calling(BaseModel):
    """What a standby needs to become an engine, beside the descriptors that come along."""

    model_config = ConfigDict(frozen=True)

    request: SpawnRequest
    scratch_dir: Path


@dataclass(slots=True, eq=False)
class Standby:
    """One waiting process, which leads a group of its own."""

    pid: int
    line: socket.socket
    warm: bool = False

    def call(self, request: SpawnRequest, own: Inheritance) -> None:
        """Makes it an engine; one that still imports becomes it afterwards.

        Raises:
            OSError: If it is gone.
        """
        message = Calling(request=request, scratch_dir=own.scratch_dir).model_dump_json().encode()
        descriptors = [own.listener.fileno(), own.lifeline_fd, own.events_fd, own.log_fd]
        with self.line:
            self.line.setblocking(True)
            socket.send_fds(self.line, [len(message).to_bytes(4, "big")], descriptors)
            self.line.sendall(message)


class StandbyPool:
    """Keeps a number of standbys; for a single-threaded launcher.

    Args:
        size: Standbys to keep; 0 for none.
        command: The program that waits; the number of its descriptor is put after it.
    """

    def __init__(self, size: int, command: tuple[str, ...] = ()) -> None:
        self._size = size
        self._command = command or (sys.executable, "-m", "serving.engine.standby_child")
        self._waiting: list[Standby] = []
        self._stillborn = 0

    def fill(self) -> None:
        """Starts those that are missing."""
        self._look()
        while len(self._waiting) < self._size and self._stillborn < STILLBORN_MAX:
            self._waiting.append(self._make())

    def take(self) -> Standby | None:
        """A standby, warm if there is one; it is the caller's then. None: there is none."""
        self._look()
        self._waiting.sort(key=lambda standby: not standby.warm)
        return self._waiting.pop(0) if self._waiting else None

    def give_back(self, standby: Standby) -> None:
        """Takes one back that was not needed after all."""
        self._waiting.append(standby)

    def warm(self) -> int:
        """How many could become an engine at once."""
        self._look()
        return sum(standby.warm for standby in self._waiting)

    def abandon(self) -> None:
        """Closes, in a child of the launcher, what is the launcher's."""
        for standby in self._waiting:
            standby.line.close()

    def close(self) -> None:
        """Ends all standbys, for good."""
        self._size = 0
        for standby in self._waiting:
            standby.line.close()
            os.kill(standby.pid, signal.SIGKILL)
        self._waiting.clear()

    def _make(self) -> Standby:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.set_inheritable(True)
            command = [*self._command, str(theirs.fileno())]
            pid = os.posix_spawn(command[0], command, os.environ)
        ours.setblocking(False)
        _log.info("standby", pid=pid)
        return Standby(pid, ours)

    def _look(self) -> None:
        """Takes in who is warm by now, and who is gone."""
        for standby in list(self._waiting):
            try:
                said = standby.line.recv(len(WARM))
            except BlockingIOError:
                continue
            except OSError:
                said = b""
            if said:
                standby.warm, self._stillborn = True, 0
                continue
            self._waiting.remove(standby)
            standby.line.close()
            if not standby.warm:
                self._stillborn += 1
            _log.warning("standby_ended", pid=standby.pid, warm=standby.warm)
