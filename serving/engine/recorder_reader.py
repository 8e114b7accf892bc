"""The host's side of recorders: carries what engines counted to the controller.

Reads the files of all engines of its node that nobody else reads, also of those that were killed,
and also of those whose host died: the next host on the node finds their files.
"""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import PenstockError
from serving.engine import recorder_file as layout
from serving.engine.recorder_file import NoRecorderError, RecorderFile, Slot, State
from serving.logs import get_logger
from serving.metered import AttemptBatch, AttemptReceipt, AttemptRow, EngineTotals, Outcome

SUFFIX = ".recorder"
FOLDER = "recorders"
INTERVAL_S = 1.0
ROWS_A_BATCH = 500

Post = Callable[[AttemptBatch], Awaitable[AttemptReceipt]]
"""Hands a batch to the controller; raises a PenstockError if it was not stored."""

log = get_logger("penstock.host")


class RecorderReader:
    """Reads one node's recorders until it is cancelled; `step` does so once.

    Args:
        folder: Where the engines' files are, `<engine_id>.recorder`.
        post: The controller.
    """

    def __init__(self, folder: Path, post: Post) -> None:
        self._folder = folder
        self._post = post
        self._told: dict[str, EngineTotals] = {}  # of each engine, as the controller has them
        self._away = False

    async def run(self) -> None:
        """Reports each INTERVAL_S what has ended."""
        while True:
            try:
                await self.step()
                self._away = False
            except PenstockError as exc:
                if not self._away:
                    log.warning("attempts_wait", reason=str(exc))
                self._away = True
            except OSError as exc:
                log.error("recorders_unreadable", reason=str(exc))
            await asyncio.sleep(INTERVAL_S)

    async def step(self) -> None:
        """Reports what has ended; removes the files of engines that are gone and wholly told.

        Raises:
            PenstockError: If the controller did not take something; it stays in the file.
        """
        paths = sorted(self._folder.glob(f"*{SUFFIX}")) if self._folder.is_dir() else []
        for path in paths:
            with _sole_reader(path) as alone:
                if alone:
                    await self._report(path)

    async def _report(self, path: Path) -> None:
        try:
            file = layout.open_existing(path)
        except NoRecorderError as exc:
            # An engine that is just making it; or one that was killed at that.
            log.warning("recorder_unreadable", path=str(path), reason=str(exc))
            return
        except FileNotFoundError:
            return
        try:
            gone = not file.is_written()
            slots = [*_to_report(file, gone=gone)]
            for start in range(0, len(slots), ROWS_A_BATCH):
                batch = slots[start : start + ROWS_A_BATCH]
                await self._send(file, batch, gone=gone, last=start + ROWS_A_BATCH >= len(slots))
                for slot in batch:
                    file.words[layout.word(slot.number, layout.SLOT_STATE)] = State.FREE
            if not slots and (gone or self._told.get(path.stem) != _totals(file)):
                await self._send(file, [], gone=gone, last=True)
            if gone:
                os.unlink(path)  # noqa: PTH108, the same in one call
                self._told.pop(path.stem, None)
        finally:
            file.close()

    async def _send(self, file: RecorderFile, slots: list[Slot], *, gone: bool, last: bool) -> None:
        totals = _totals(file)
        rows = tuple(_row(slot, file.path, gone=gone) for slot in slots)
        batch = AttemptBatch(
            engine_id=file.path.stem, rows=rows, totals=totals, final=gone and last
        )
        await self._post(batch)
        self._told[file.path.stem] = totals


def recorder_path(log_dir: Path, engine_id: str) -> Path:
    """Where the recorder of an engine is, by its host's folder of logs."""
    return log_dir.absolute() / FOLDER / f"{engine_id}{SUFFIX}"


def _to_report(file: RecorderFile, *, gone: bool) -> Iterator[Slot]:
    for number in range(file.words[layout.USED]):
        state = file.words[layout.word(number, layout.SLOT_STATE)]
        if state == State.ENDED or (gone and state == State.RUNNING):
            slot = file.read(number)
            if slot is not None:
                yield slot
            elif gone:
                log.error("recorder_slot_torn", path=str(file.path), slot=number)


def _row(slot: Slot, path: Path, *, gone: bool) -> AttemptRow:
    died = gone and not slot.ended_at
    return AttemptRow(
        attempt_id=slot.attempt_id,
        outcome=Outcome.DIED if died else Outcome.ENDED,
        started_at=slot.began_at,
        ended_at=slot.ended_at or max(slot.began_at, path.stat().st_mtime),
        prompt=slot.prompt,
        cached=slot.cached,
        completion=slot.completion,
        reasoning=slot.reasoning,
        share_s=slot.share_s,
    )


def _totals(file: RecorderFile) -> EngineTotals:
    words = file.words
    return EngineTotals(
        attempts=words[layout.ATTEMPTS],
        prompt=words[layout.PROMPT],
        completion=words[layout.COMPLETION],
        other_prompt=words[layout.OTHER_PROMPT],
        other_completion=words[layout.OTHER_COMPLETION],
        lost=words[layout.LOST],
        engine_prompt=words[layout.ENGINE_PROMPT],
        engine_completion=words[layout.ENGINE_COMPLETION],
    )


@contextmanager
def _sole_reader(path: Path) -> Iterator[bool]:
    """Whether we alone read the file now: two readers could free a slot that was used again.

    The lock is one of the folder's for all files: it is held for milliseconds.
    """
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)
