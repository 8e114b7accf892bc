"""`python -m loadtests.gpu.part NAME PLAN FILE`: runs one part in this process, for `runner`.

What it has found so far stands in FILE at any moment: a part that is killed keeps its figures.
"""

import contextlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from loadtests.gpu import strict
from loadtests.gpu.load import LoadError
from loadtests.gpu.parts import PARTS, SkippedError
from loadtests.gpu.plan import from_json

EXPECTED = (LoadError, OSError, ValueError, LookupError)


class Record:
    """The figures of a part, on disk after each one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._document: dict[str, Any] = {"status": "running", "said": "", "figures": {}}

    def note(self, **figures: object) -> None:
        """Keeps figures."""
        self._document["figures"] |= figures
        self._write()

    def end(self, status: str, said: str = "") -> None:
        """Keeps how it went."""
        self._document |= {"status": status, "said": said}
        self._write()

    def _write(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(strict.dumps(self._document))
        new.replace(self._path)


def _ended(*_: object) -> NoReturn:
    raise SystemExit("ended from outside")


def main(name: str, plan: str, file: str) -> int:
    """Runs the part; 0 also where it failed, which the file says."""
    signal.signal(signal.SIGTERM, _ended)  # so that platforms and engines are ended too
    record = Record(Path(file))
    part, _ = PARTS[name]
    try:
        part(from_json(plan), record.note)
    except SkippedError as why:
        record.end("skipped", str(why))
    except EXPECTED as error:
        traceback.print_exc()
        record.end("failed", f"{error}" or repr(error))
    except SystemExit:
        record.end("failed", "ended from outside")
    else:
        record.end("ok")
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main(*sys.argv[1:4]))
