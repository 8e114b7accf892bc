"""How the launcher makes an engine's first process: its port, its pipes, its log, the fork."""

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving.engine import child
from serving.engine.launch_protocol import SpawnRequest
from serving.engine.standby import Standby
from serving.engine.standing import Engine

BACKLOG = 2048
"""Callers that may wait for a forked engine, from its first moment on."""


@dataclass(frozen=True, slots=True)
class Newborn:
    """An engine that has just been forked."""

    engine: Engine
    port: int


def give_birth(
    request: SpawnRequest,
    scratch_root: Path,
    serve: child.Serve | None,
    abandon: Callable[[], None],
    standby: Standby | None = None,
) -> Newborn:
    """Starts an engine's first process.

    Args:
        request: The engine.
        scratch_root: Where the engine gets a folder for its temporary files.
        serve: Runs the engine in the fork; None to execute vLLM anew.
        abandon: Called in the child, to close what is the launcher's alone.
        standby: Becomes the engine instead of a new process.

    Raises:
        OSError: If the port, the log or a process cannot be had; nothing is left over then.
    """
    with contextlib.ExitStack() as on_both_sides, contextlib.ExitStack() as on_failure:
        request.log_path.parent.mkdir(parents=True, exist_ok=True)
        log_fd = os.open(request.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        on_both_sides.callback(os.close, log_fd)
        listener = on_both_sides.enter_context(_bind(request.address))
        if serve is not None or standby is not None:
            listener.listen(BACKLOG)
        port = listener.getsockname()[1]
        scratch_dir = Path(tempfile.mkdtemp(dir=scratch_root))
        on_failure.callback(shutil.rmtree, scratch_dir, ignore_errors=True)
        lifeline_read, lifeline_write = os.pipe()
        events_read, events_write = os.pipe()
        for descriptor in (lifeline_read, events_write):
            on_both_sides.callback(os.close, descriptor)
        for descriptor in (lifeline_write, events_read):
            on_failure.callback(os.close, descriptor)
        own = child.Inheritance(listener, lifeline_read, events_write, log_fd, scratch_dir)
        if standby is not None:
            standby.call(request, own)
            pid = standby.pid
        else:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()  # else the child would write what waits there once more
            pid = os.fork()
        if pid == 0:
            abandon()
            os.close(lifeline_write)
            os.close(events_read)
            if serve is not None:
                child.run_forked(request, own, serve)
            child.run_executed(request, own)
        on_failure.pop_all()
    os.set_blocking(events_read, False)
    engine = Engine(
        engine_id=request.engine_id,
        pid=pid,
        events_fd=events_read,
        lifeline_fd=lifeline_write,
        log_path=request.log_path,
        scratch_dir=scratch_dir,
        gpus=request.gpus,
    )
    return Newborn(engine, port)


def _bind(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, 0))
    except OSError:
        listener.close()
        raise
    return listener
