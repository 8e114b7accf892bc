"""Runs a benchmark's parts one after the other; what one of them found outlives its failure."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal asks for the end; no Exception, so that no part takes it for its own failure."""


@dataclass(frozen=True)
class End:
    """How a part ended."""

    part: str
    took_s: float
    failure: str | None = None
    interrupted: bool = False


def run_parts(parts: Mapping[str, Callable[[], None]], ends: list[End]) -> None:
    """Runs all parts, those after a failed one too; `ends` is filled as they end.

    Raises:
        Interrupted: If a signal asked for the end; the part that ran has its entry by then.
    """
    for name, part in parts.items():
        began_s = time.perf_counter()
        say(f"\n--- {name}")
        try:
            part()
        except Interrupted as exc:
            ends.append(End(name, time.perf_counter() - began_s, str(exc), interrupted=True))
            say(f"{name}: {exc} after {ends[-1].took_s:.0f} s")
            raise
        except Exception as exc:  # noqa: BLE001, it is told, and in the JSON line
            ends.append(End(name, time.perf_counter() - began_s, f"{type(exc).__name__}: {exc}"))
            say(f"{name} failed after {ends[-1].took_s:.0f} s: {ends[-1].failure}")
        else:
            ends.append(End(name, time.perf_counter() - began_s))
            say(f"{name} took {ends[-1].took_s:.0f} s")


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes the first SIGINT or SIGTERM an Interrupted, and has further ones ignored: what is
    measured with has to be taken down in peace."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        ignore_interrupts()
        raise Interrupted(f"ended by {signal.Signals(number).name}")

    before = {number: signal.signal(number, interrupt) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interrupts() -> None:
    """From now on the process ends by itself."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)


def say(text: str) -> None:
    """One line of the report, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
