"""Which engine hangs: it holds requests, says nothing, and makes no steps. Pure.

Silence alone proves nothing: a whole answer has no first byte, a long prompt takes its time. So an
engine that was silent for SILENT_S is asked for its own account of its work, each second; one whose
account stays the same for STILL_S, and for as long as its prompts excuse, hangs. An engine that
does not answer that question either is taken to hang only while others are heard: else it may be
our own network. That is 9 s at most, where its prompts are short.
"""

from dataclasses import dataclass

SILENT_S = 4.0
STILL_S = 3.0


@dataclass(slots=True)
class _Silence:
    received: int
    since_s: float
    account: str | None = None
    still_since_s: float | None = None  # since when the account is the same


class Hang:
    """What was heard of each engine; monotonic seconds."""

    def __init__(self) -> None:
        self._silences: dict[str, _Silence] = {}
        self._heard_s = float("-inf")  # any engine, last

    def look(self, engine_id: str, received: int, now_s: float, *, busy: bool) -> bool:
        """Whether the engine is to be asked for its account.

        Args:
            received: How often the engine said anything so far.
            busy: Whether it has requests.
        """
        silence = self._silences.get(engine_id)
        if silence is None or silence.received != received or not busy:
            if silence is not None and silence.received != received:
                self._heard_s = now_s
            self._silences[engine_id] = _Silence(received, now_s)
            return False
        return now_s - silence.since_s >= SILENT_S

    def told(self, engine_id: str, account: str | None, now_s: float, excuse_s: float) -> bool:
        """Whether the engine hangs, after its account or the lack of one.

        Args:
            account: What it says of its work; None if it does not answer.
            excuse_s: How long its prompts may take.
        """
        silence = self._silences.get(engine_id)
        if silence is None:
            return False
        if silence.still_since_s is None or account != silence.account:
            silence.account, silence.still_since_s = account, now_s
            return False
        if now_s - silence.still_since_s < STILL_S + excuse_s:
            return False
        return account is not None or self._heard_s > silence.since_s

    def keep_only(self, engine_ids: set[str]) -> None:
        """Forgets the engines that are gone."""
        self._silences = {one: s for one, s in self._silences.items() if one in engine_ids}
