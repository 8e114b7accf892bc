"""Trials of a tuning run, and the journal that keeps each of them: JSON lines, synced to the disk.

A run that was killed reads its journal and does not repeat what stands there. A last line without
an end is of a trial that was being written when it died, and counts as not made.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import UpstreamError
from models.manifest import EngineArgument

Settings = dict[str, EngineArgument]
"""Engine arguments over those of the manifest; empty: the defaults."""


class TrialError(UpstreamError):
    """A trial that gave no figures: out of memory, refused arguments, an engine that died."""


class Message(BaseModel):
    """Base of what is kept."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Reading(Message):
    """One concurrency of a trial; None: could not be measured."""

    concurrency: int = Field(ge=1)
    failed: int = 0
    """Requests that were not answered."""
    output_rate: float | None = None
    """Output tokens/s."""
    ttft_p50: float | None = None
    ttft_p99: float | None = None
    tpot_p50: float | None = None
    tpot_p99: float | None = None
    itl_p50: float | None = None
    """Seconds between two events of a stream."""


class Figures(Message):
    """What a trial measured."""

    levels: tuple[Reading, ...]
    """By concurrency."""
    prefill_tokens_s: float | None = None
    """Prompt tokens/s of one request at a time."""

    def fault(self) -> str | None:
        """Why they are of no use; None where they are."""
        if not self.levels:
            return "nothing was measured"
        for level in self.levels:
            if level.failed:
                return f"{level.failed} requests failed at {level.concurrency} at once"
            for name in ("output_rate", "ttft_p99", "tpot_p50", "tpot_p99"):
                value = getattr(level, name)
                if value is None or not math.isfinite(value) or value <= 0:
                    return f"{name} at {level.concurrency} at once is no number: {value}"
        rate = self.prefill_tokens_s
        if rate is None or not math.isfinite(rate) or rate <= 0:
            return f"prefill tokens/s is no number: {rate}"
        return None


class Trial(Message):
    """One engine with one set of arguments, measured once."""

    key: str
    """Its place in the search: the same in a run that goes on after its death."""
    settings: Settings
    rounds: int = Field(ge=1)
    """How long it measured: requests of a visitor."""
    took_s: float = Field(ge=0)
    figures: Figures | None = None
    failure: str | None = None
    """Why there are no figures."""


class Runner(Protocol):
    """Whoever can carry out a trial."""

    async def run(self, settings: Settings, rounds: int, seed: int) -> Figures:
        """Starts an engine with the arguments, measures, and ends it.

        Raises:
            TrialError: If it gave no figures; the search goes on.
            UnreachableError: If nothing can be tried any more; no trial is to blame, and none kept.
        """
        ...


class Journal:
    """The trials of one tuning run, on disk.

    Args:
        path: A file, which is made with the first trial.
        sync: Brings what was written to a file's descriptor to the disk.
    """

    def __init__(self, path: Path, sync: Callable[[int], None] = os.fsync) -> None:
        self._path = path
        self._sync = sync
        self._trials: dict[str, Trial] = {}
        self._read()

    def get(self, key: str) -> Trial | None:
        """A trial that was made."""
        return self._trials.get(key)

    def trials(self) -> list[Trial]:
        """All of them, in order."""
        return list(self._trials.values())

    @property
    def spent_s(self) -> float:
        """Seconds that they took together."""
        return sum(trial.took_s for trial in self._trials.values())

    def add(self, trial: Trial) -> None:
        """Keeps a trial; it is on the disk when this returns.

        Raises:
            OSError: If it cannot be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(trial.model_dump_json().encode() + b"\n")
            file.flush()
            self._sync(file.fileno())
        self._trials[trial.key] = trial

    def _read(self) -> None:
        if not self._path.exists():
            return
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self._path, whole)
        for line in data[:whole].splitlines():
            try:
                trial = Trial.model_validate_json(line)
            except ValidationError:
                continue  # a damaged line costs one trial, not the run
            self._trials[trial.key] = trial
