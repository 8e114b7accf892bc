"""Hands the whole process over to a module with a command line of its own."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def hand_over(module: str, arguments: Sequence[str], **settings: str) -> NoReturn:
    """Becomes `python -m module arguments`, with `settings` added to the environment.

    An exec, not a child: such a module wants the processor, the terminal and Ctrl-C to itself.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # -P, as for all our processes: what lies in the current folder is not imported.
    command = [sys.executable, "-P", "-m", module, *arguments]
    os.execve(sys.executable, command, os.environ | settings)  # noqa: S606, there is no shell
