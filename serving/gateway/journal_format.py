"""The bytes of a journal's segment: a header, then framed records; pure.

    header   8s magic "PENSTJNL" · u16 version · 36s boot id of the machine · u32 CRC-32 of these
    record   2s mark · u16 length · u32 CRC-32 of length and payload · payload (JSON)

A segment is allocated whole before it is used, so that what comes after the last record is zero.
A record that was torn or damaged is passed over up to the next mark with a good checksum.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"PENSTJNL"
VERSION = 1
MARK = b"\xa5R"

HEADER = struct.Struct("<8sH36sI")
FRAME = struct.Struct("<2sHI")
LENGTH = struct.Struct("<H")

MAX_PAYLOAD = 2**16 - 1


class NotAJournalError(ValueError):
    """The bytes do not begin as a segment of this version; the message says how."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What stands in a segment."""

    boot_id: str
    records: tuple[bytes, ...]  # payloads, in order
    lost: int  # places at which records were torn or damaged


def encode_header(boot_id: str) -> bytes:
    """The first bytes of a segment."""
    head = HEADER.pack(MAGIC, VERSION, boot_id.encode()[:36], 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head))


def encode_record(payload: bytes) -> bytes:
    """A record; its payload has at most MAX_PAYLOAD bytes."""
    length = len(payload)
    return FRAME.pack(MARK, length, zlib.crc32(payload, length)) + payload


def decode_header(data: bytes) -> str:
    """The boot id in a segment's header.

    Raises:
        NotAJournalError: If it is no segment, or one of another version.
    """
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise NotAJournalError("it is no journal of a gateway")
    _, version, boot_id, checksum = HEADER.unpack_from(data)
    if version != VERSION:
        raise NotAJournalError(f"it has version {version}; this gateway reads {VERSION}")
    if zlib.crc32(data[: HEADER.size - 4]) != checksum:
        raise NotAJournalError("its header is damaged")
    return str(boot_id.rstrip(b"\0").decode("ascii", "replace"))


def read_segment(data: bytes) -> Segment:
    """All whole records of a segment.

    Raises:
        NotAJournalError: If it is no segment, or one of another version.
    """
    boot_id = decode_header(data)
    records = []
    lost = 0
    at = HEADER.size
    for start, payload in iterate(data, at):
        lost += start != at
        records.append(payload)
        at = start + FRAME.size + len(payload)
    if data[at:].strip(b"\0"):
        lost += 1
    return Segment(boot_id, tuple(records), lost)


def iterate(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """The whole records from `at` on, each with its place."""
    while (at := data.find(MARK, at)) >= 0:
        payload = _payload_at(data, at)
        if payload is None:
            at += 1
            continue
        yield at, payload
        at += FRAME.size + len(payload)


def search(data: bytes, prefix: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole records whose payloads begin with `prefix`, each with its place; the others cost
    nothing."""
    skipped = FRAME.size - len(MARK)
    begins = re.compile(
        re.escape(MARK) + b"(?=.{%d}%b)" % (skipped, re.escape(prefix)), re.DOTALL
    )  # compiled once, and then in the cache of `re`
    for found in begins.finditer(data):
        payload = _payload_at(data, found.start())
        if payload is not None:
            yield found.start(), payload


def _payload_at(data: bytes, at: int) -> bytes | None:
    if at + FRAME.size > len(data):
        return None
    _, length, checksum = FRAME.unpack_from(data, at)
    payload = data[at + FRAME.size : at + FRAME.size + length]
    whole = len(payload) == length and zlib.crc32(payload, length) == checksum
    return payload if whole else None
