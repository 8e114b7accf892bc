"""One answer of the fake engine while it is made: takes tokens, writes bytes, commits its fault."""

import os
import signal
from collections.abc import Callable

from loadtests.fake.faults import AT_TOKEN, Fault, FaultKind
from loadtests.fake.http1 import Reply
from loadtests.fake.openai import DONE, Generation, Renderer, usage
from loadtests.fake.timeline import Emission, Sequence


class Answer:
    """The answer to one generation request; its sequences are choices 0, 1, ... in order.

    Args:
        reason: Why its choices end: `length` where the client said how long, else `stop`.
        forget: Takes the sequences out of the engine.
        freeze: Stops the whole engine, for one of the faults.
    """

    def __init__(
        self, request: Generation, reply: Reply, renderer: Renderer, sequences: list[Sequence],
        *, request_id: str, reason: str, fault: Fault | None, report_due: bool,
        forget: Callable[["Answer"], None], freeze: Callable[[], None],
    ) -> None:  # fmt: skip
        self.sequences = sequences
        self.request_id = request_id
        self._request = request
        self._reply = reply
        self._renderer = renderer
        self._reason = reason
        self._fault = fault
        self._report_due = report_due
        self._forget = forget
        self._freeze = freeze
        self._index = {sequence: index for index, sequence in enumerate(sequences)}
        self._texts: list[list[str]] = [[] for _ in sequences]
        self._unfinished = len(sequences)
        self._tokens = 0
        self._started = False
        self._silent = False
        self.gone = False
        """Whether the client has left, or the answer ended before its time."""
        reply.on_gone = self._leave

    def take(self, emission: Emission) -> None:
        """One more token of one of the choices."""
        if self._silent or self._strike():
            return
        index = self._index[emission.sequence]
        text = f" {emission.token}" if emission.index else str(emission.token)
        self._tokens += 1
        if self._request.stream:
            self._stream(index, text, emission)
        else:
            self._texts[index].append(text)
        if emission.last:
            self._unfinished -= 1
            if not self._unfinished:
                self._finish()

    def _stream(self, index: int, text: str, emission: Emission) -> None:
        self._start()
        finish = self._reason if emission.last else None
        if emission.index == 0 and self._request.chat:
            self._reply.write(self._renderer.role_chunk(index))
        if self._fault is not None and self._fault.kind is FaultKind.EMPTY:
            if emission.last:
                self._reply.write(self._renderer.token_chunk(index, "", finish))
            return
        due_s = emission.due_s if self._report_due else None
        self._reply.write(self._renderer.token_chunk(index, text, finish, due_s))

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._reply.start(200, "text/event-stream; charset=utf-8")

    def _finish(self) -> None:
        prompts = self.sequences[:: self._request.n]
        counted = usage(
            prompt=sum(len(sequence.prompt) for sequence in prompts),
            cached=sum(sequence.cached for sequence in prompts),
            completion=self._tokens,
        )
        if self._fault is not None and self._fault.kind is FaultKind.EMPTY:
            counted = usage(prompt=0, cached=0, completion=0)
        with_usage = self._fault is None or self._fault.kind is not FaultKind.NO_USAGE
        if self._request.stream:
            if self._request.include_usage and with_usage:
                self._reply.write(self._renderer.usage_chunk(counted))
            self._reply.write(DONE)
            self._reply.end()
            return
        texts = ["".join(parts) for parts in self._texts]
        reasons = [self._reason] * len(texts)
        self._reply.send(200, self._renderer.whole(texts, reasons, counted if with_usage else None))

    def _strike(self) -> bool:
        """Commits the fault if its time has come; true where the answer is over with it."""
        fault = self._fault
        if fault is None or fault.kind not in AT_TOKEN or self._tokens < fault.token:
            return False
        self._fault = None
        if fault.kind is FaultKind.DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind is FaultKind.MALFORMED:
            self._start()
            self._reply.write(b'data: {"choices": [{"index": 0, "delta": {"con\n\n')
            return False
        self._silent = True
        if fault.kind is FaultKind.RESET:
            self._reply.abort()
        elif fault.kind is FaultKind.TRUNCATE:
            self._start()
            self._reply.end()
            self._leave()
        elif fault.kind is FaultKind.HANG_ENGINE:
            self._freeze()
        # What is left is HANG: silence, while the slot is used until the sequence ends.
        return True

    def _leave(self) -> None:
        self._silent = True
        self.gone = True
        self._forget(self)
