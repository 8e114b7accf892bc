"""A standby: imports all that engines have in common, waits, and becomes an engine when called.

Run by the launcher as `python -m serving.engine.standby_child FD`; FD is its end of a socket pair.
"""

import os
import signal
import socket
import sys
from typing import NoReturn

from models.errors import PenstockError
from serving import logs
from serving.engine import child, lifeline, vllm_adapter
from serving.engine.standby import WARM, Calling

DESCRIPTORS = 4
SIZE_BYTES = 4


def set_apart() -> None:
    """Leads a group of its own from the start, and ends with the launcher."""
    os.setsid()
    lifeline.die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def wait_and_become(line: socket.socket, serve: child.Serve) -> NoReturn:
    """Says that it is warm, waits to be called, and becomes the engine; ends if nobody calls."""
    try:
        line.sendall(WARM)
        head, descriptors, _, _ = socket.recv_fds(line, SIZE_BYTES, DESCRIPTORS)
        if len(head) < SIZE_BYTES or len(descriptors) < DESCRIPTORS:
            os._exit(0)
        message = line.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
    except OSError:  # the launcher is gone
        os._exit(0)
    line.close()
    calling = Calling.model_validate_json(message)
    listener_fd, lifeline_fd, events_fd, log_fd = descriptors
    listener = socket.socket(fileno=listener_fd)
    own = child.Inheritance(listener, lifeline_fd, events_fd, log_fd, calling.scratch_dir)
    child.run_forked(calling.request, own, serve)


def main() -> int:
    """Imports vLLM and waits; returns the exit code where that fails."""
    set_apart()
    logs.configure("launcher")
    line = socket.socket(fileno=int(sys.argv[1]))
    try:
        vllm_adapter.pre_import()
    except PenstockError as exc:
        logs.get_logger("penstock.launcher").error("standby_failed", error=str(exc), hint=exc.hint)
        return exc.exit_code
    wait_and_become(line, vllm_adapter.serve)


if __name__ == "__main__":
    os._exit(main())
