"""Writes down when each token was due and when it was written: what clients are checked against."""

import io
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from loadtests.fake.timeline import Emission, Sequence


@dataclass(slots=True)
class _Entry:
    request_id: str
    arrived_s: float
    due_s: list[float] = field(default_factory=list)
    written_s: list[float] = field(default_factory=list)


class Ledger:
    """One JSON line for each finished sequence; all times are CLOCK_MONOTONIC seconds."""

    def __init__(self, path: Path) -> None:
        self._file: io.BufferedWriter = path.open("wb")
        self._entries: dict[Sequence, _Entry] = {}

    def arrived(self, sequence: Sequence, request_id: str, at_s: float) -> None:
        """A request has been read."""
        self._entries[sequence] = _Entry(request_id, at_s)

    def written(self, emission: Emission, at_s: float) -> None:
        """A token has been written to its socket."""
        entry = self._entries[emission.sequence]
        entry.due_s.append(emission.due_s)
        entry.written_s.append(at_s)
        if emission.last:
            del self._entries[emission.sequence]
            self._file.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    def forget(self, sequence: Sequence) -> None:
        """A client has left."""
        self._entries.pop(sequence, None)

    def close(self) -> None:
        """Ends the file."""
        self._file.close()
