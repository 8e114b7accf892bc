"""The recorder: counts survive a kill -9, are told once confirmed, and never overwritten before."""

import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from models.errors import UnreachableError
from serving.engine import recorder_file as layout
from serving.engine.recorder import Recorder
from serving.engine.recorder_reader import RecorderReader
from serving.metered import AttemptBatch, AttemptReceipt, AttemptRow, Outcome


def name(number: int, n: int = 1) -> str:
    return f"{number:032x}-{n}"


class Controller:
    """Takes attempts as the real one does: each once."""

    def __init__(self) -> None:
        self.rows: dict[str, AttemptRow] = {}
        self.batches: list[AttemptBatch] = []
        self.away = False

    async def take(self, batch: AttemptBatch) -> AttemptReceipt:
        if self.away:
            raise UnreachableError("away")
        self.batches.append(batch)
        new = [row for row in batch.rows if row.attempt_id not in self.rows]
        self.rows.update({row.attempt_id: row for row in new})
        return AttemptReceipt(new=len(new))


@pytest.fixture
def controller() -> Controller:
    return Controller()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recorders" / "e1.recorder"


@pytest.fixture
def reader(path: Path, controller: Controller) -> RecorderReader:
    return RecorderReader(path.parent, controller.take)


def answer(recorder: Recorder, attempt_id: str, prompt: int = 7, completion: int = 5) -> None:
    """One attempt as vLLM and the guard tell of it."""
    recorder.begin(attempt_id)
    recorder.admit("internal-1", f"chatcmpl-{attempt_id}")
    recorder.prefill("internal-1", prompt, 2)
    for _ in range(completion):
        recorder.produce("internal-1", 1)
    recorder.end(attempt_id)


async def test_attempt_is_told_once_when_it_has_ended(
    path: Path, reader: RecorderReader, controller: Controller
) -> None:
    recorder = Recorder(path)
    answer(recorder, name(1))
    recorder.begin(name(2))
    await reader.step()
    await reader.step()
    (row,) = controller.rows.values()
    assert (row.attempt_id, row.usage_id, row.outcome) == (name(1), name(1)[:32], Outcome.ENDED)
    assert (row.prompt, row.cached, row.completion) == (7, 2, 5)
    assert row.ended_at >= row.started_at > 1.6e9
    assert len(controller.batches) == 1, "nothing new to tell"
    totals = controller.batches[0].totals
    assert (totals.attempts, totals.prompt, totals.completion, totals.lost) == (2, 7, 5, 0)
    recorder.close()


async def test_answers_to_one_prompt_and_many_prompts_are_one_attempt(
    path: Path, reader: RecorderReader, controller: Controller
) -> None:
    recorder = Recorder(path)
    recorder.begin(name(1))
    for request in ("0_a", "1_a"):
        recorder.admit(request, f"cmpl-{name(1)}-0")
    recorder.prefill("0_a", 10, 0)
    recorder.prefill("", 10, 10)
    recorder.produce("0_a", 3)
    recorder.produce("1_a", 4)
    recorder.end(name(1))
    recorder.produce("1_a", 1)  # too late: the tenant had left
    await reader.step()
    assert (controller.rows[name(1)].prompt, controller.rows[name(1)].completion) == (10, 7)
    totals = controller.batches[0].totals
    assert (totals.other_prompt, totals.other_completion) == (10, 1)
    recorder.close()


async def test_requests_of_others_are_counted_apart(
    path: Path, reader: RecorderReader, controller: Controller
) -> None:
    recorder = Recorder(path)
    recorder.begin("the-hosts-probe")
    recorder.admit("internal-1", "cmpl-probe")
    recorder.prefill("internal-1", 1, 0)
    recorder.produce("internal-1", 1)
    recorder.end("the-hosts-probe")
    await reader.step()
    assert controller.rows == {}
    totals = controller.batches[0].totals
    assert (totals.attempts, totals.other_prompt, totals.other_completion) == (0, 1, 1)
    recorder.close()


async def test_slots_are_used_again_only_after_they_were_confirmed(
    path: Path, reader: RecorderReader, controller: Controller
) -> None:
    recorder = Recorder(path, slots=4)
    controller.away = True
    for number in range(6):
        answer(recorder, name(number))
    with pytest.raises(UnreachableError):
        await reader.step()
    controller.away = False
    await reader.step()
    assert controller.rows.keys() == {name(number) for number in range(4)}
    assert controller.batches[-1].totals.lost == 2
    for number in range(10, 14):
        answer(recorder, name(number))
    await reader.step()
    assert len(controller.rows) == 8
    assert controller.batches[-1].totals.lost == 2
    recorder.close()


async def test_file_stays_as_small_as_what_is_open(path: Path, reader: RecorderReader) -> None:
    recorder = Recorder(path)
    for number in range(5000):
        answer(recorder, name(number), completion=1)
        if number % 500 == 0:
            await reader.step()
    assert path.stat().st_blocks * 512 < 512 * 1024
    recorder.close()


async def test_file_of_an_engine_that_is_gone_is_removed_when_all_is_told(
    path: Path, reader: RecorderReader, controller: Controller
) -> None:
    recorder = Recorder(path)
    answer(recorder, name(1))
    recorder.close()
    controller.away = True
    with pytest.raises(UnreachableError):
        await reader.step()
    assert path.exists()
    controller.away = False
    await reader.step()
    assert not path.exists()
    assert controller.batches[-1].final
    assert controller.rows.keys() == {name(1)}


KILLED = """
import os, signal, sys
from pathlib import Path
from serving.engine.recorder import Recorder
recorder = Recorder(Path(sys.argv[1]))
for number in range(3):
    attempt = f"{number:032x}-1"
    recorder.begin(attempt)
    recorder.admit(attempt, attempt)
    recorder.prefill(attempt, 10, 0)
    recorder.produce(attempt, number)
recorder.end(f"{0:032x}-1")
print("counted", flush=True)
signal.pause()
"""


async def test_counts_of_an_engine_that_was_killed_are_told(
    path: Path, reader: RecorderReader, controller: Controller
) -> None:
    engine = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
    assert engine.stdout is not None
    with engine.stdout:
        assert engine.stdout.readline() == b"counted\n"
    await reader.step()
    assert controller.rows.keys() == {name(0)}
    os.kill(engine.pid, signal.SIGKILL)
    engine.wait()
    await reader.step()
    told = {(row.outcome, row.prompt, row.completion) for row in controller.rows.values()}
    assert told == {(Outcome.ENDED, 10, 0), (Outcome.DIED, 10, 1), (Outcome.DIED, 10, 2)}
    assert not path.exists()


async def test_two_hosts_of_a_node_do_not_read_one_file_at_once(
    path: Path, reader: RecorderReader, controller: Controller
) -> None:
    """The second comes while the first waits for the controller."""
    recorder = Recorder(path)
    answer(recorder, name(1))

    async def take_slowly(batch: AttemptBatch) -> AttemptReceipt:
        await reader.step()  # another host's
        assert controller.batches == []
        return AttemptReceipt(new=1)

    await RecorderReader(path.parent, take_slowly).step()
    recorder.close()


async def test_strange_file_is_left_alone(path: Path, reader: RecorderReader) -> None:
    path.parent.mkdir()
    path.write_bytes(b"short")
    path.with_name("e2.recorder").write_bytes(b"x" * 10_000)
    await reader.step()
    assert path.exists()


async def test_engines_time_is_shared_out_among_the_attempts_that_are_open(
    path: Path, reader: RecorderReader, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_ns = [0]
    monkeypatch.setattr("serving.engine.recorder.time.monotonic_ns", lambda: clock_ns[0])
    recorder = Recorder(path)
    for second, change in [(1, "+1"), (2, "+2"), (4, "-1"), (5, "-2"), (9, "+3"), (10, "+4")]:
        clock_ns[0] = second * 10**9
        (recorder.begin if change[0] == "+" else recorder.end)(name(int(change[1])))
    clock_ns[0] = 12 * 10**9
    recorder.begin(name(5))
    recorder.close()  # it dies with three of them
    await reader.step()
    shares = {int(one.partition("-")[0], 16): row.share_s for one, row in controller.rows.items()}
    # 1 s alone and 2 s of two; the same the other way round; then until the last sign of life.
    assert shares == {1: 2.0, 2: 2.0, 3: 2.0, 4: 1.0, 5: 0.0}


@pytest.mark.parametrize("ended", [True, False])
async def test_file_of_the_version_without_shares_is_read(
    path: Path, reader: RecorderReader, controller: Controller, ended: bool
) -> None:
    recorder = Recorder(path)
    recorder.begin(name(1))
    recorder.produce("other", 1)
    file = layout.open_existing(path)
    file.words[layout.VERSION_AT] = layout.WITHOUT_SHARES
    file.words[layout.word(0, layout.SLOT_SHARE)] = 0
    named = zlib.crc32(name(1).encode().ljust(64, b"\0"))
    file.words[layout.word(0, layout.SLOT_CHECKSUM)] = named
    if ended:
        file.end(0, 10**6)
        file.words[layout.word(0, layout.SLOT_SHARE)] = 0
        file.words[layout.word(0, layout.SLOT_CHECKSUM)] = file._checksum(0, layout.SLOT_CHECKSUM)
    file.close()
    recorder.close()
    await reader.step()
    row = controller.rows[name(1)]
    assert (row.share_s, row.outcome) == (None, Outcome.ENDED if ended else Outcome.DIED)


def test_slot_that_is_being_sealed_is_not_read(path: Path) -> None:
    recorder = Recorder(path)
    answer(recorder, name(1))
    file = layout.open_existing(path)
    assert file.read(0) is not None
    file.words[layout.word(0, layout.SLOT_COMPLETION)] += 1  # its checksum is still the old one
    assert file.read(0) is None
    file.close()
    recorder.close()


async def test_full_disk_loses_counts_and_says_so(
    path: Path, reader: RecorderReader, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    answer(recorder, name(1))
    await reader.step()
    assert (controller.rows, controller.batches[0].totals.lost) == ({}, 1)
    recorder.close()


async def test_reasoning_is_part_of_what_was_made(
    path: Path, reader: RecorderReader, controller: Controller
) -> None:
    recorder = Recorder(path)
    recorder.begin(name(1))
    recorder.admit("internal-1", f"chatcmpl-{name(1)}")
    for reasoning in (2, 1, 0):
        recorder.produce("internal-1", 2, reasoning)
    recorder.produce("another's", 9, 9)
    recorder.close()  # it dies with it
    await reader.step()
    assert (controller.rows[name(1)].completion, controller.rows[name(1)].reasoning) == (6, 3)


async def test_clock_that_is_set_back_costs_no_attempt_and_no_share(
    path: Path, reader: RecorderReader, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall_ns = [2 * 10**18]
    monkeypatch.setattr("serving.engine.recorder.time.time_ns", lambda: wall_ns[0])
    recorder = Recorder(path)
    recorder.begin(name(1))
    wall_ns[0] -= 10**18
    recorder.produce("other", 1)
    recorder.end(name(1))
    await reader.step()
    row = controller.rows[name(1)]
    assert row.share_s is not None
    assert row.share_s >= 0
    assert row.ended_at == 1e9
    recorder.close()
