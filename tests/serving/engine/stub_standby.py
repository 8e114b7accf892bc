"""A standby that becomes one of `stub_launcher`'s engines; imports nothing large."""

import os
import socket
import sys

from serving import logs
from serving.engine.standby_child import set_apart, wait_and_become
from tests.serving.engine.stub_launcher import serve

if __name__ == "__main__":
    if os.environ.get("STUB_STANDBY") == "stillborn":
        os._exit(3)
    set_apart()
    logs.configure("launcher")
    wait_and_become(socket.socket(fileno=int(sys.argv[1])), serve)
