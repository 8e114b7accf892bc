"""An engine's first process, between the fork and vLLM: sets itself apart and reports its end."""

import contextlib
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from models.errors import PenstockError
from serving import logs
from serving.engine import causes, lifeline, shared_memory
from serving.engine.guard import TOKEN_VARIABLE
from serving.engine.launch_protocol import Died, Reached, SpawnRequest, encode
from serving.protocol import StartPhase

LIFELINE_VARIABLE = "PENSTOCK_ENGINE_LIFELINE"
"""Environment variable of an executed engine: the descriptor of the pipe that it watches."""

OOM_SCORE_ADJ = 500
"""Where memory runs out, the kernel shall take an engine, not the launcher or the controller."""


class Mark(Protocol):
    """Notes, with the present time, that a phase of the start was reached."""

    def __call__(self, phase: StartPhase, /, max_model_len: int | None = None) -> None: ...


Serve = Callable[[tuple[str, ...], socket.socket, Mark], None]
"""Runs an engine in this process: arguments, listening socket, mark. It marks PROBED once it has
answered a request of its own."""


@dataclass(frozen=True, slots=True)
class Inheritance:
    """The descriptors that an engine's first process gets from the launcher."""

    listener: socket.socket
    lifeline_fd: int
    """Read end of the pipe that the launcher holds open while the engine may live."""
    events_fd: int
    """Write end of the pipe for the engine's events."""
    log_fd: int
    """File for the engine's output."""
    scratch_dir: Path
    """Folder for temporary files; the launcher removes it when the engine is gone."""


def run_forked(request: SpawnRequest, own: Inheritance, serve: Serve) -> NoReturn:
    """Becomes the engine, in this process: the child of a fork, or a standby."""

    def mark(phase: StartPhase, /, max_model_len: int | None = None) -> None:
        reached = Reached(phase=phase, at=time.time(), max_model_len=max_model_len)
        os.write(own.events_fd, encode(reached))

    code = 1
    try:
        _set_apart(request, own)
        lifeline.watch(own.lifeline_fd)
        logs.configure("engine")
        serve(request.args, own.listener, mark)
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except PenstockError as exc:
        os.write(own.events_fd, encode(Died(cause=str(exc), hint=exc.hint)))
    except BaseException as exc:  # noqa: BLE001, whatever it is, it must not run on in the launcher
        traceback.print_exc()
        # An exception that only tells of another process's failure is explained by the log.
        if not causes.is_consequence(str(exc)):
            cause = causes.of_text(str(exc) or type(exc).__name__)
            os.write(own.events_fd, encode(Died(cause=cause.sentence, hint=cause.hint)))
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run_executed(request: SpawnRequest, own: Inheritance) -> NoReturn:
    """Becomes the engine by executing vLLM anew; to be called in the child of a fork."""
    try:
        _set_apart(request, own)
        host, port = own.listener.getsockname()[:2]
        # Bound and not listening: it keeps the port for vLLM, which binds it again.
        for descriptor in (own.listener.fileno(), own.lifeline_fd):
            os.set_inheritable(descriptor, True)
        os.environ[LIFELINE_VARIABLE] = str(own.lifeline_fd)
        command = [sys.executable, "-m", "serving.engine.exec_child", *request.args]
        os.execv(sys.executable, [*command, f"--host={host}", f"--port={port}"])  # noqa: S606
    except BaseException:  # noqa: BLE001, whatever it is, it must not run on in the launcher
        traceback.print_exc()
    finally:
        os._exit(1)


def _set_apart(request: SpawnRequest, own: Inheritance) -> None:
    if os.getsid(0) != os.getpid():  # a standby leads its group already
        os.setsid()
    null_fd = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null_fd, 0)
    os.dup2(own.log_fd, 1)
    os.dup2(own.log_fd, 2)
    os.close(null_fd)
    os.close(own.log_fd)
    Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ), "ascii")
    os.environ.update(request.environment)
    os.environ[TOKEN_VARIABLE] = request.token
    os.environ["TMPDIR"] = str(own.scratch_dir)
    tempfile.tempdir = None  # it keeps what it has found out in the launcher
    shared_memory.name_after(own.scratch_dir)
