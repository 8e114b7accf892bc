"""How far a fetch has come: written by the threads that fetch, read by whoever shows it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from models.errors import UnavailableError


class FetchCancelledError(UnavailableError):
    """Nobody wants the fetch any more; what is there is kept for the next one."""

    code = "fetch_cancelled"


@dataclass(slots=True)
class Progress:
    """One fetch, in bytes."""

    total: int = 0
    """Of all files; 0 while the place has not told yet."""
    done: int = 0
    """That are on the node, those of an earlier try too."""
    fetched: int = 0
    """That came over the network this time."""
    started: bool = False
    """Whether there is something to fetch at all."""
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, total: int) -> None:
        """The place has told how much there is."""
        with self._lock:
            self.total, self.done, self.started = total, 0, True

    def found(self, size: int) -> None:
        """So many bytes are there already; fewer again where what was there is thrown away."""
        with self._lock:
            self.done += size

    def advance(self, size: int) -> None:
        """So many bytes came in."""
        with self._lock:
            self.done += size
            self.fetched += size

    def copy(self, note: str) -> None:
        """Takes over what the process that fetches says; see `note`."""
        done, _, total = note.partition("/")
        if done.isdigit() and total.isdigit():
            self.done, self.total, self.started = int(done), int(total), True

    def finish(self, total: int) -> None:
        """It is there, whoever fetched it."""
        with self._lock:
            self.total = self.done = total

    @property
    def note(self) -> str:
        """For those who wait for the same."""
        return f"{self.done}/{self.total}"

    def check(self) -> None:
        """Ends the fetch where it is not wanted any more.

        Raises:
            FetchCancelledError: If `stop` is set.
        """
        if self.stop.is_set():
            raise FetchCancelledError("the fetch was given up")


class SharedProgress(Progress):
    """Progress of threads that fetch together: one that fails ends the others.

    Args:
        inner: What is to be told.
        tell: Takes its note now and then, for the processes that wait for the same.
    """

    def __init__(self, inner: Progress, tell: Callable[[str], None]) -> None:
        super().__init__(stop=inner.stop)
        self._inner, self._tell = inner, tell
        self.failed = threading.Event()

    def found(self, size: int) -> None:
        """See Progress."""
        self._inner.found(size)

    def advance(self, size: int) -> None:
        """See Progress."""
        self._inner.advance(size)
        self._tell(self._inner.note)

    def check(self) -> None:
        """See Progress."""
        self._inner.check()
        if self.failed.is_set():
            raise FetchCancelledError("another file of the same model failed")
