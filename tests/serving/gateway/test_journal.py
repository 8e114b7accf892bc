"""The journal: what is appended is there, survives damage, and never outgrows its disk."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.gateway import journal as journal_module
from serving.gateway.disk_sync import Done, ThreadSync
from serving.gateway.journal import BOOKED_BYTES, Journal, JournalError
from serving.gateway.journal_format import (
    HEADER,
    MARK,
    NotAJournalError,
    encode_header,
    encode_record,
    read_segment,
    search,
)

SMALL = 64 * 1024


class BadAtFirst(ThreadSync):
    """A disk whose first commit fails."""

    def __init__(self) -> None:
        super().__init__()
        self._is_first = True

    def sync(self, fds: Sequence[int], done: Done) -> None:
        if self._is_first:
            self._is_first = False
            error = OSError(5, "Input/output error")
            asyncio.get_running_loop().call_soon(done, error)
        else:
            super().sync(fds, done)


def payloads(folder: Path) -> list[bytes]:
    """All records of a journal's folder."""
    found: list[bytes] = []
    for path in sorted(folder.glob("*.segment")):
        segment = read_segment(path.read_bytes())
        assert segment.lost == 0
        found += segment.records
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path / "journal" / "gw-1", SMALL)
    made.open()
    return made


async def test_journal_holds_what_was_appended_even_if_nobody_closed_it(journal: Journal) -> None:
    journal.book()
    for number in range(100):
        journal.append(b"record %d" % number)
    assert payloads(journal.folder) == [b"record %d" % number for number in range(100)]
    await journal.close(delete=True)
    assert not journal.folder.exists()


async def test_commit_makes_everything_durable_that_came_before_it(journal: Journal) -> None:
    first, _ = journal.append(b"one")
    last, segment = journal.append(b"two")
    await journal.durable(first)
    await journal.durable(last)
    assert segment.synced == segment.end
    await journal.durable(first)  # at once
    await journal.close(delete=True)


async def test_journal_turns_to_a_new_segment_and_drops_what_is_shipped(journal: Journal) -> None:
    _, first = journal.append(b"x" * 1000)
    first.pins += 1
    while journal.append(b"x" * 1000)[1] is first:
        first.shipped = first.end
    first.shipped = first.end
    journal.drop_shipped()
    assert first.path.exists(), "an open request has a record in it"
    first.pins -= 1
    journal.drop_shipped()
    assert not first.path.exists()
    await journal.close(delete=True)


async def test_booked_requests_find_room_on_a_full_disk(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full from the moment at which many requests were let in."""
    for _ in range(40):
        journal.book()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(JournalError) as refused:
        for _ in range(1000):
            journal.book()
    assert refused.value.status == 503
    assert "No space left" in str(refused.value.hint)
    for _ in range(40):
        for _ in range(4):
            journal.append(b"x" * (BOOKED_BYTES // 4 - 8))
    await journal.close(delete=True)


async def test_journal_takes_no_more_once_the_disk_is_free_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(JournalError):
            for _ in range(1000):
                journal.book()
    journal.book()
    await journal.close(delete=True)


async def test_commits_follow_each_other_whenever_somebody_asks(journal: Journal) -> None:
    for _ in range(20):
        first, _ = journal.append(b"first")
        journal.commit_soon()
        second, _ = journal.append(b"second")
        journal.commit_soon()
        third, _ = journal.append(b"third")
        async with asyncio.timeout(30):
            await asyncio.gather(*map(journal.durable, (third, first, second)))
        number, _ = journal.append(b"nobody waits for it")
        journal.commit_soon()
        await asyncio.sleep(0.003)
    async with asyncio.timeout(30):
        await journal.durable(number)
    await journal.close(delete=True)


async def test_commit_that_failed_before_anybody_waited_fails_those_who_ask(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "journal" / "gw-1", SMALL, disk=BadAtFirst)
    journal.open()
    journal.book()
    number, _ = journal.append(b"one")
    journal.commit_soon()
    await asyncio.sleep(0)
    later, _ = journal.append(b"two")
    await journal.durable(later)
    with pytest.raises(JournalError):
        await journal.durable(number)
    await journal.close(delete=True)


async def test_failed_commit_fails_those_who_wait_and_goes_on_in_a_new_segment(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "journal" / "gw-1", SMALL, disk=BadAtFirst)
    journal.open()
    journal.book()
    number, segment = journal.append(b"one")
    with pytest.raises(JournalError):
        await journal.durable(number)
    with pytest.raises(JournalError):
        await journal.durable(number)
    number, other = journal.append(b"two")
    assert other is not segment
    await journal.durable(number)
    await journal.close(delete=True)


async def test_journal_that_cannot_be_opened_is_tried_again_with_each_request(
    tmp_path: Path,
) -> None:
    (tmp_path / "journal").write_text("in the way")
    journal = Journal(tmp_path / "journal" / "gw-1", SMALL)
    with pytest.raises(JournalError):
        journal.book()
    (tmp_path / "journal").unlink()
    journal.book()
    await journal.close(delete=True)


async def test_journal_that_was_never_used_leaves_nothing(journal: Journal) -> None:
    await journal.close(delete=False)
    assert not journal.folder.exists()


def segment(*records: bytes) -> bytes:
    return (encode_header("boot") + b"".join(encode_record(r) for r in records)).ljust(4096, b"\0")


def test_record_that_was_torn_at_the_end_is_counted_and_the_rest_is_used() -> None:
    whole = segment(b"one", b"two", b"three")
    torn = whole[: whole.index(b"three") + 2].ljust(4096, b"\0")
    read = read_segment(torn)
    assert (read.records, read.lost, read.boot_id) == ((b"one", b"two"), 1, "boot")


def test_record_that_was_damaged_in_the_middle_costs_only_itself() -> None:
    damaged = segment(b"one", MARK * 40, b"three").replace(MARK * 3, b"zzzzzz", 1)
    read = read_segment(damaged)
    assert (read.records, read.lost) == ((b"one", b"three"), 1)


@pytest.mark.parametrize("cut", range(HEADER.size, HEADER.size + 40))
def test_journal_that_is_cut_anywhere_gives_whole_records(cut: int) -> None:
    read = read_segment(segment(b"first", b"second")[:cut])
    assert read.records == (b"first", b"second")[: len(read.records)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no journal"),
        (b"SQLite format 3" * 10, "no journal"),
        (encode_header("boot").replace(b"PENSTJNL\x01", b"PENSTJNL\x02"), "version 2"),
        (encode_header("boot").replace(b"boot", b"foot"), "damaged"),
    ],
)
def test_file_of_another_kind_or_version_is_named_so(data: bytes, message: str) -> None:
    with pytest.raises(NotAJournalError, match=message):
        read_segment(data)


def test_boot_id_is_empty_where_the_kernel_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(journal_module.boot_id()) == 36
    monkeypatch.setattr(journal_module, "BOOT_ID", Path("/nowhere"))
    assert journal_module.boot_id() == ""


def test_search_finds_the_records_that_begin_so_and_no_damaged_ones() -> None:
    wanted = [b'{"k":"s","n":%d}' % n for n in range(3)]
    others = [encode_record(b'{"k":"o"}'), MARK, encode_record(MARK * 9), b"\0" * 7]
    damaged = encode_record(b'{"k":"s","n":9}').replace(b"9", b"8")
    data = damaged.join(a + encode_record(b) for a, b in zip(others, wanted, strict=False))
    data += others[3] + encode_record(b'{"k":"s","cut off"}')[:-1]
    found = list(search(data, b'{"k":"s"'))
    assert [payload for _, payload in found] == wanted
    assert all(data.startswith(MARK, at) for at, _ in found)
