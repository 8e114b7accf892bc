"""What one Locust process has measured, in a form that travels from worker to master."""

from collections.abc import Iterable, Sequence

from loadtests.measure import Failure, Outcome

Packed = Sequence[object]
"""One outcome as plain values: what msgpack, which Locust's processes talk in, can carry."""


class Tally:
    """Outcomes of a run, without the gaps between tokens and without texts."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self._handed_over = 0

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.outcomes.append(outcome)

    def hand_over(self) -> list[Packed]:
        """What has come since the last call."""
        new = self.outcomes[self._handed_over :]
        self._handed_over = len(self.outcomes)
        return [_pack(outcome) for outcome in new]

    def take_over(self, packed: Iterable[Packed]) -> None:
        """What another process has handed over."""
        self.outcomes += [_unpack(values) for values in packed]

    @property
    def duration_s(self) -> float:
        """From the first request sent to the last one ended; 0 where there was none. The clocks of
        several machines are not the same: with workers on many, this is not exact."""
        if not self.outcomes:
            return 0.0
        begun_s = min(outcome.sent_s for outcome in self.outcomes)
        return max(outcome.sent_s + (outcome.e2e_s or 0.0) for outcome in self.outcomes) - begun_s


def _pack(outcome: Outcome) -> Packed:
    return (
        outcome.kind, outcome.due_s, outcome.sent_s, outcome.status,
        None if outcome.failure is None else str(outcome.failure), outcome.ttft_s, outcome.e2e_s,
        outcome.prompt_tokens, outcome.wanted_prompt_tokens, outcome.cached_tokens,
        outcome.output_tokens, outcome.usage_missing,
        outcome.text_missing, outcome.chunks,
    )  # fmt: skip


def _unpack(values: Packed) -> Outcome:
    (kind, due_s, sent_s, status, failure, ttft_s, e2e_s, prompt, wanted, cached, output, missing,
     textless, chunks) = values  # fmt: skip
    return Outcome(
        kind=str(kind),
        due_s=_float(due_s) or 0.0,
        sent_s=_float(sent_s) or 0.0,
        status=_int(status),
        failure=None if failure is None else Failure(str(failure)),
        ttft_s=_float(ttft_s),
        e2e_s=_float(e2e_s),
        prompt_tokens=_int(prompt),
        wanted_prompt_tokens=_int(wanted),
        cached_tokens=_int(cached) or 0,
        output_tokens=_int(output),
        usage_missing=bool(missing),
        text_missing=bool(textless),
        chunks=_int(chunks) or 0,
    )


def _int(value: object) -> int | None:
    return None if value is None else int(str(value))


def _float(value: object) -> float | None:
    return None if value is None else float(str(value))
