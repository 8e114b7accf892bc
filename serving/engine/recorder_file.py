"""The layout of a recorder's file, and its mapping into memory; see `recorder`."""

import fcntl
import mmap
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

MAGIC = int.from_bytes(b"PENSTREC", "little")
VERSION = 2
WITHOUT_SHARES = 1
"""The version before: its attempts' names are a word longer, in the place of the share."""

# Words of the header.
(MAGIC_AT, VERSION_AT, USED, ATTEMPTS, PROMPT, COMPLETION, OTHER_PROMPT, OTHER_COMPLETION, LOST,
 ENGINE_PROMPT, ENGINE_COMPLETION, SHARED) = range(12)  # fmt: skip

WORD = 8
HEADER_WORDS = 512  # a page
SLOT_WORDS = 16

# Words of a slot.
SLOT_STATE = 0
SLOT_ID = 1
ID_WORDS = 7
(SLOT_SHARE, SLOT_PROMPT, SLOT_CACHED, SLOT_COMPLETION, SLOT_REASONING, SLOT_BEGAN, SLOT_ENDED,
 SLOT_CHECKSUM) = range(8, 16)  # fmt: skip

MAX_SLOTS = 131_072
"""16 MiB; an engine that serves 50 requests a second fills it in 40 minutes without a controller,
and beyond that it loses counts."""

GROWTH = 1024
"""Slots that are added at once."""


class State(IntEnum):
    """Who may write a slot."""

    FREE = 0  # the engine may take it
    RUNNING = 1  # the engine counts in it
    ENDED = 2  # the host is to read it


@dataclass(frozen=True, slots=True)
class Slot:
    """One attempt as it stands in the file; times in Unix seconds."""

    number: int
    attempt_id: str
    prompt: int
    cached: int
    completion: int
    reasoning: int
    began_at: float
    ended_at: float  # 0 while it runs
    share_s: float | None = None  # of the engine's time, in seconds


class NoRecorderError(ValueError):
    """The file is no recorder's, or one of another version."""


class RecorderFile:
    """A mapped file; `words` are its 64-bit words."""

    def __init__(self, fd: int, path: Path) -> None:
        self.path = path
        self._fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        self._bytes = memoryview(self._map)
        self.words = self._bytes.cast("Q")

    def grow(self, limit: int) -> Iterable[int]:
        """Takes more slots into use; none where the disk or `limit` allows none."""
        used = self.words[USED]
        more = min(GROWTH, limit - used)
        try:
            # A hole in the file would be a SIGBUS on a full disk.
            os.posix_fallocate(self._fd, place(used), more * SLOT_WORDS * WORD)
        except OSError:
            return ()
        self.words[USED] = used + more
        return range(used, used + more)

    def begin(self, slot: int, attempt_id: str, at_us: int) -> None:
        """Begins to count in a free slot; its share holds what SHARED was until it is sealed."""
        start = word(slot, SLOT_ID)
        name = attempt_id.encode().ljust(ID_WORDS * WORD, b"\0")
        self._bytes[start * WORD : (start + ID_WORDS) * WORD] = name
        for at in range(word(slot, SLOT_PROMPT), word(slot, SLOT_CHECKSUM)):
            self.words[at] = 0
        self.words[word(slot, SLOT_SHARE)] = self.words[SHARED]
        self.words[word(slot, SLOT_BEGAN)] = at_us
        self.words[word(slot, SLOT_CHECKSUM)] = zlib.crc32(name)
        self.words[word(slot, SLOT_STATE)] = State.RUNNING

    def end(self, slot: int, at_us: int) -> None:
        """Seals a slot, so that the host may read it."""
        self.words[word(slot, SLOT_SHARE)] = self.words[SHARED] - self.words[word(slot, SLOT_SHARE)]
        self.words[word(slot, SLOT_ENDED)] = at_us
        self.words[word(slot, SLOT_CHECKSUM)] = self._checksum(slot, SLOT_CHECKSUM)
        self.words[word(slot, SLOT_STATE)] = State.ENDED

    def read(self, slot: int) -> Slot | None:
        """An attempt; None where it is torn: sealed at this very moment, or never wholly begun."""
        state = self.words[word(slot, SLOT_STATE)]
        shared = self.words[VERSION_AT] != WITHOUT_SHARES
        named = SLOT_SHARE if shared else SLOT_PROMPT
        upto = SLOT_CHECKSUM if state == State.ENDED else named
        if self.words[word(slot, SLOT_CHECKSUM)] != self._checksum(slot, upto):
            return None
        start = place(slot)
        raw = bytes(self._bytes[start : start + SLOT_WORDS * WORD])
        name, *counts = struct.unpack_from("<56s7Q", raw, SLOT_ID * WORD)
        share_us, prompt, cached, completion, reasoning, began_us, ended_us = counts
        if not ended_us:  # it still holds what SHARED was at its beginning
            share_us = max(0, self.words[SHARED] - share_us)
        return Slot(
            slot, name.rstrip(b"\0").decode("ascii", "replace"), prompt, cached, completion,
            reasoning, began_us / 1e6, ended_us / 1e6, share_us / 1e6 if shared else None,
        )  # fmt: skip

    def is_written(self) -> bool:
        """Whether the engine that made the file still lives."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        """Unmaps it."""
        self.words.release()
        self._bytes.release()
        self._map.close()
        os.close(self._fd)

    def _checksum(self, slot: int, upto: int) -> int:
        start = place(slot)
        return zlib.crc32(self._bytes[start + SLOT_ID * WORD : start + upto * WORD])


def word(slot: int, at: int) -> int:
    """The number of a slot's word within the file."""
    return HEADER_WORDS + slot * SLOT_WORDS + at


def place(slot: int) -> int:
    """The byte at which a slot begins."""
    return word(slot, 0) * WORD


def create(path: Path, slots: int) -> RecorderFile:
    """Makes a file and holds its lock for as long as it is open.

    Raises:
        OSError: If that is not possible.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Named only when it is whole and locked: its host must not take it for a dead engine's.
    nameless = path.with_name(f".{path.name}")
    fd = os.open(nameless, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.posix_fallocate(fd, 0, place(0))
        os.ftruncate(fd, place(slots))
        file = RecorderFile(fd, path)
        file.words[VERSION_AT] = VERSION
        file.words[MAGIC_AT] = MAGIC
        nameless.rename(path)
    except OSError:
        os.close(fd)
        raise
    return file


def open_existing(path: Path) -> RecorderFile:
    """Maps the file of an engine, for its host.

    Raises:
        NoRecorderError: If it is none that this version reads.
        OSError: If it cannot be opened.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    if os.fstat(fd).st_size < place(0):
        os.close(fd)
        raise NoRecorderError(f"{path} is no recorder's file")
    file = RecorderFile(fd, path)
    known = (VERSION, WITHOUT_SHARES)
    if file.words[MAGIC_AT] != MAGIC or file.words[VERSION_AT] not in known:
        file.close()
        raise NoRecorderError(f"{path} is no recorder's file of version {VERSION}")
    return file
