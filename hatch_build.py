"""Compiles what is written in C, for the wheel that is being built or for the folder itself.

Without a C compiler, or Python's headers, the wheel holds Python alone: then the gateway does the
same at a higher price (docs/decisions/0010).
"""

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("serving/gateway/_passage.c")
TARGET = SOURCE.with_name("_passage.abi3.so")
FLAGS = ("-O2", "-Wall", "-Wextra", "-fPIC", "-shared")
TAG = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
"""Python 3.11's stable interface, which later ones keep."""


def can_compile() -> bool:
    """Whether there are a compiler and Python's headers."""
    headers = Path(sysconfig.get_path("include"))
    return shutil.which(_compiler()[0]) is not None and (headers / "Python.h").is_file()


def compile_module(source: Path, target: Path) -> None:
    """Makes a module of C, which replaces one that somebody may be importing.

    Raises:
        OSError: If there is no compiler.
        subprocess.CalledProcessError: If it fails; what it said is in `stderr`.
    """
    headers = f"-I{sysconfig.get_path('include')}"
    made = target.with_suffix(f".{os.getpid()}")
    command = [*_compiler(), *FLAGS, headers, str(source), "-o", str(made)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
        made.replace(target)
    finally:
        made.unlink(missing_ok=True)


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CC") or "cc")


class CompileHook(BuildHookInterface[Any]):
    """Called by hatchling, before it collects files."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles, and says that the wheel is of this platform."""
        root = Path(self.root)
        try:
            compile_module(root / SOURCE, root / TARGET)
        except (OSError, subprocess.CalledProcessError) as exc:
            said = getattr(exc, "stderr", None) or str(exc)
            self.app.display_warning(f"{SOURCE} is not compiled: {said}")
            (root / TARGET).unlink(missing_ok=True)  # of another source
            return
        build_data["artifacts"].append(str(TARGET))
        build_data["pure_python"] = False
        build_data["tag"] = TAG
