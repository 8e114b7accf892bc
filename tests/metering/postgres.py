"""A PostgreSQL of the tests' own: in a folder of its own, on a free port, killed at will."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.ports import free_port

USER = "penstock"
UNPRIVILEGED = "postgres"
START_S = 30.0


def binaries() -> Path | None:
    """The folder of PostgreSQL's programs; None where there is none."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def obstacle() -> str | None:
    """Why no server can be started here; None where one can."""
    if binaries() is None:
        return "PostgreSQL is not installed here"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL refuses to run as root, and there is no setpriv"
    if os.geteuid() == 0 and not _has_user():
        return f"PostgreSQL refuses to run as root, and there is no user {UNPRIVILEGED}"
    return None


class Postgres:
    """One server; `start` and `kill` as often as the test likes.

    Args:
        folder: Where its data and its socket go; the server's user must be able to reach it.
        durable: Data outlive the machine, and not only the server's processes.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self._folder = folder
        self._fsync = "on" if durable else "off"
        self._data = folder / "data"
        self.port = free_port()
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://{USER}@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Makes an empty cluster."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(self._folder, UNPRIVILEGED)
        self._run("initdb", "-D", str(self._data), "-U", USER, "-A", "trust", "--no-sync",
                  "-E", "UTF8", "--locale=C.UTF-8")  # fmt: skip

    def start(self) -> None:
        """Starts the server and waits until it takes connections."""
        log = (self._folder / "server.log").open("ab")
        self._server = subprocess.Popen(
            self._command("postgres", "-D", str(self._data), "-p", str(self.port), "-k",
                          str(self._folder), "-c", "listen_addresses=127.0.0.1",
                          "-c", "shared_buffers=16MB", "-c", "max_connections=60",
                          "-c", f"fsync={self._fsync}"),
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        log.close()
        ready = self._command("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
        deadline_s = time.monotonic() + START_S
        while subprocess.run(ready, check=False).returncode != 0:
            if time.monotonic() > deadline_s or self._server.poll() is not None:
                raise TimeoutError("PostgreSQL did not start")
            time.sleep(0.05)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends it; all its processes die of SIGKILL, none is asked."""
        if self._server is None:
            return
        os.killpg(self._server.pid, number)
        self._server.wait()
        self._server = None

    def stop(self) -> None:
        """Ends it at once and in good order."""
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._server.pid, signal.SIGINT)
            self._server.wait()
            self._server = None

    def client(self, program: str, *arguments: str, text: bytes = b"") -> bytes:
        """What one of PostgreSQL's programs says, which is given a text."""
        folder = binaries()
        assert folder is not None
        where = ["--host=127.0.0.1", f"--port={self.port}", f"--username={USER}"]
        command = [str(folder / program), *where, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(self._command(program, *arguments), check=True, capture_output=True)

    def _command(self, program: str, *arguments: str) -> Sequence[str]:
        folder = binaries()
        assert folder is not None
        command = [str(folder / program), *arguments]
        if os.geteuid() != 0:
            return command
        as_user = ["--reuid", UNPRIVILEGED, "--regid", UNPRIVILEGED, "--clear-groups"]
        return ["setpriv", *as_user, *command]


@contextlib.contextmanager
def running(*, durable: bool = True) -> Iterator[Postgres]:
    """A server in a folder of its own, which its user can reach; gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
    folder.chmod(0o755)
    server = Postgres(folder / "pg", durable=durable)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _has_user() -> bool:
    done = subprocess.run(["id", UNPRIVILEGED], check=False, capture_output=True)
    return done.returncode == 0
