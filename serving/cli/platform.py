"""What a platform on this machine leaves on disk: its folders, its lock, its state file.

One platform lives in one data directory. Sockets and Ray's session go to a runtime directory with
a short path, because a Unix socket's path may have 107 bytes. `platform.json` (mode 0600) says
which processes belong to the platform; a process is known by its pid and its start time, so that
a reused pid is never taken for ours.
"""

import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from models.errors import ConflictError, UnavailableError
from serving.processes import ProcessRef
from serving.settings import ClientSettings, UpSettings

MARK_VARIABLE = "_PENSTOCK_MARK"
"""Environment variable that every process of a platform bears; no setting, hence its name."""

LONGEST_RUNTIME_DIR = 40
"""Ray adds about 65 characters for its sockets, and 107 are allowed."""


class Phase(StrEnum):
    """Where a platform is between its start and its end."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class PlatformState(BaseModel):
    """The content of `platform.json`."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: int
    """The supervisor, as in ProcessRef."""
    phase: Phase
    url: str
    mark: str
    runtime_dir: Path
    ports: dict[str, int]
    parts: dict[str, ProcessRef]
    """The parts that run, each the leader of a session of its own."""

    @property
    def supervisor(self) -> ProcessRef:
        return ProcessRef(pid=self.pid, started=self.started)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a platform keeps its things; all paths are absolute."""

    data_dir: Path
    runtime_dir: Path

    @classmethod
    def of(cls, data_dir: Path) -> "Layout":
        """The layout for a data directory; touches nothing."""
        data_dir = data_dir.absolute()
        name = f"penstock-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]}"
        base = Path(tempfile.gettempdir())
        if len(os.fsencode(base / name)) > LONGEST_RUNTIME_DIR:
            base = Path("/tmp")  # noqa: S108, the folder below it is ours alone (mode 0700)
        return cls(data_dir, base / name)

    @property
    def state_file(self) -> Path:
        return self.data_dir / "platform.json"

    @property
    def lock_file(self) -> Path:
        return self.data_dir / "platform.lock"

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def profiles_dir(self) -> Path:
        """Folder of the profiles that `penstock tune` measured."""
        return self.data_dir / "profiles"

    @property
    def cache_dir(self) -> Path:
        return self.data_dir / "cache"

    @property
    def gateway_dir(self) -> Path:
        return self.data_dir / "gateway"

    @property
    def internal_token_file(self) -> Path:
        return self.data_dir / "internal-token"

    @property
    def database_url(self) -> str:
        return f"sqlite+aiosqlite:///{self.data_dir / 'penstock.db'}"

    @property
    def launcher_socket(self) -> Path:
        return self.runtime_dir / "launcher.sock"

    def build_socket(self, build: str) -> Path:
        """Where the launcher of a further engine build listens."""
        return self.runtime_dir / f"launcher-{build}.sock"

    @property
    def ray_token_file(self) -> Path:
        return self.data_dir / "ray-token"

    @property
    def ray_dir(self) -> Path:
        return self.runtime_dir / "ray"

    def log(self, part: str) -> Path:
        """The log file of a part."""
        return self.logs_dir / f"{part}.log"

    def make(self) -> None:
        """Makes all folders, readable by the owner alone.

        Raises:
            UnavailableError: If a folder cannot be made, or the runtime folder is not ours.
        """
        folders = (
            self.data_dir,
            self.logs_dir,
            self.cache_dir,
            self.gateway_dir,
            self.runtime_dir,
        )
        for folder in folders:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as exc:
                raise UnavailableError(
                    f"cannot make the folder {folder}: {exc.strerror}",
                    hint="give another one with --data-dir",
                ) from exc
        found = self.runtime_dir.lstat()
        if found.st_uid != os.getuid() or not self.runtime_dir.is_dir():
            raise UnavailableError(
                f"{self.runtime_dir} belongs to somebody else",
                hint="set TMPDIR to a folder of your own",
            )
        self.runtime_dir.chmod(0o700)


def secret(file: Path) -> str:
    """The random secret kept in `file` (mode 0600), made when it is asked for first."""
    try:
        return file.read_text("ascii").strip()
    except FileNotFoundError:
        value = secrets.token_hex(32)
        write_private(file, value)
        return value


def write_private(file: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    temporary.replace(file)


def read_state(layout: Layout) -> PlatformState | None:
    """The state that a platform left, or None if there is none that can be read."""
    try:
        return PlatformState.model_validate_json(layout.state_file.read_text())
    except (FileNotFoundError, ValidationError):
        return None


def write_state(layout: Layout, state: PlatformState) -> None:
    """Writes the state file."""
    write_private(layout.state_file, state.model_dump_json(indent=2) + "\n")


def profiles_dir() -> Path:
    """The folder of measured profiles that commands of this shell read and write."""
    chosen = ClientSettings.load().profiles_dir
    return chosen or Layout.of(UpSettings.load().data_dir).profiles_dir


@contextmanager
def only_one(layout: Layout) -> Iterator[None]:
    """Holds the data directory for this process.

    Raises:
        ConflictError: If another platform runs in it.
    """
    with layout.lock_file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            state = read_state(layout)
            where = f" at {state.url} (pid {state.pid})" if state else ""
            raise ConflictError(
                f"a platform runs in {layout.data_dir} already{where}",
                hint=f"stop it with `penstock down --data-dir {layout.data_dir}`, "
                "or give this one another --data-dir",
            ) from None
        yield
