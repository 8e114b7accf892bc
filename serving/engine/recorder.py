"""Counts what an engine does for each attempt, in a file that outlives the engine.

The file is mapped into the engine's memory: what was counted is there after a kill -9, and costs
a few stores on the way. Words of 64 bits, each written whole:

    header   magic, version, slots in use, the engine's totals
    slots    state · attempt id (56 bytes) · share (microseconds of the engine's time) · prompt,
             cached, completion, reasoning · begun, ended (Unix microseconds) · checksum

The engine takes free slots and ends them; the host reads those that have ended, and gives them
free once the controller has confirmed them (`recorder_file` holds the layout, `recorder_reader`
the host's side). No slot is used again before that. Where the file is full attempts go uncounted,
which the totals say.
"""

import functools
import os
import re
import time
from collections import deque
from pathlib import Path

from serving.engine import recorder_file as layout
from serving.engine.recorder_file import State
from serving.logs import get_logger

PATH_VARIABLE = "PENSTOCK_ENGINE_RECORDER"
"""Environment variable of the engine's process: the recorder's file; none: nothing is counted."""

ATTEMPT_ID = re.compile(r"[0-9a-f]{32}-\d{1,9}")
"""As gateways name attempts; vLLM puts its own words around it."""

log = get_logger("penstock.engine")


class Recorder:
    """The engine's side; for one thread, that of the engine's event loop.

    Args:
        path: The file; made here.
        slots: How many attempts may be open or unconfirmed at once.

    Raises:
        OSError: If the file cannot be made.
    """

    def __init__(self, path: Path, slots: int = layout.MAX_SLOTS) -> None:
        self._file = layout.create(path, slots)
        self._words = self._file.words
        self._slots = slots
        self._free: deque[int] = deque()
        self._open: dict[str, tuple[int, list[str]]] = {}  # attempt -> slot, the engine's requests
        self._slot_of: dict[str, int] = {}  # request of the engine -> slot
        self._shared_ns = time.monotonic_ns()  # up to when the engine's time is shared out
        self._rest_ns = 0

    def begin(self, attempt_id: str) -> None:
        """An attempt has arrived. One that is open already, or has a strange name, is no attempt
        of ours: what it takes is counted with the rest."""
        if attempt_id in self._open or not ATTEMPT_ID.fullmatch(attempt_id):
            return
        slot = self._take_slot()
        if slot is None:
            self._words[layout.LOST] += 1
            log.error("recorder_full", attempt_id=attempt_id)
            return
        self._words[layout.ATTEMPTS] += 1
        self._share_out()
        self._file.begin(slot, attempt_id, time.time_ns() // 1000)
        self._open[attempt_id] = (slot, [])

    def end(self, attempt_id: str) -> None:
        """The server is done with an attempt."""
        if attempt_id not in self._open:
            return
        self._share_out()
        slot, requests = self._open.pop(attempt_id)
        for request_id in requests:
            self._slot_of.pop(request_id, None)
        self._file.end(slot, time.time_ns() // 1000)

    def admit(self, request_id: str, named: str) -> None:
        """The engine has taken in a request.

        Args:
            request_id: The engine's own name for it.
            named: A name that holds the attempt's id, if it is one's.
        """
        found = ATTEMPT_ID.search(named)
        attempt = self._open.get(found.group()) if found is not None else None
        if attempt is not None:
            slot, requests = attempt
            requests.append(request_id)
            self._slot_of[request_id] = slot

    def prefill(self, request_id: str, prompt: int, cached: int) -> None:
        """The engine is through with a prompt, of which it had `cached` tokens already."""
        slot = self._slot_of.get(request_id)
        if slot is None:
            self._words[layout.OTHER_PROMPT] += prompt
            return
        self._words[layout.word(slot, layout.SLOT_PROMPT)] += prompt
        self._words[layout.word(slot, layout.SLOT_CACHED)] += cached
        self._words[layout.PROMPT] += prompt

    def produce(self, request_id: str, completion: int, reasoning: int = 0) -> None:
        """The engine has made tokens for a request, `reasoning` of them before its answer."""
        slot = self._slot_of.get(request_id)
        if slot is None:
            self._words[layout.OTHER_COMPLETION] += completion
            return
        self._words[layout.word(slot, layout.SLOT_COMPLETION)] += completion
        if reasoning:
            self._words[layout.word(slot, layout.SLOT_REASONING)] += reasoning
        self._words[layout.COMPLETION] += completion

    def engine_counts(self, prompt: int, completion: int) -> None:
        """What the engine's own counters have grown by."""
        self._words[layout.ENGINE_PROMPT] += prompt
        self._words[layout.ENGINE_COMPLETION] += completion

    def close(self) -> None:
        """Unmaps the file, which stays."""
        self._file.close()

    def _share_out(self) -> None:
        """Moves SHARED on: the time that each of the open attempts has had for itself since the
        engine began. What one has had is the difference between its end and its beginning."""
        now_ns = time.monotonic_ns()
        if self._open:
            passed_ns = self._rest_ns + now_ns - self._shared_ns
            each_us, self._rest_ns = divmod(passed_ns, 1000 * len(self._open))
            self._words[layout.SHARED] += each_us
        self._shared_ns = now_ns

    def _take_slot(self) -> int | None:
        if not self._free:
            used = self._words[layout.USED]
            self._free.extend(
                slot
                for slot in range(used)
                if self._words[layout.word(slot, layout.SLOT_STATE)] == State.FREE
            )
            # Few that were confirmed: more room saves looking for them again and again.
            if len(self._free) < layout.GROWTH // 2 and used < self._slots:
                self._free.extend(self._file.grow(self._slots))
        return self._free.popleft() if self._free else None


@functools.cache
def of_this_process() -> Recorder | None:
    """The recorder of the engine that this process is; None where no file is named."""
    path = os.environ.get(PATH_VARIABLE)
    if not path:
        return None
    try:
        return Recorder(Path(path))
    except OSError as exc:
        log.error("recorder_not_made", path=path, reason=str(exc))
        return None
