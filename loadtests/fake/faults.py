"""What can be made to go wrong, and at which request.

A fault is written `kind:key=value,...`, for example `reset:request=3,token=5`. The keys: `request`
(only the n-th generation request, from 1), `every` (each n-th), `share` (this share of them, by the
seed), `token` (after so many tokens; 0, the default, is before the first byte), `seconds` (how long
`slow` waits before the first byte).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """What goes wrong."""

    DIE = "die"  # the whole process ends as by kill -9
    RESET = "reset"  # the connection is reset
    TRUNCATE = "truncate"  # the answer ends properly, but early and without [DONE]
    HANG = "hang"  # this answer stops, its connection stays open
    HANG_ENGINE = "hang-engine"  # no sequence moves any more; /health still answers
    SLOW = "slow"  # nothing happens for some seconds, then all is well
    MALFORMED = "malformed"  # a chunk that is no JSON
    NO_USAGE = "no-usage"  # the usage that was asked for is left out
    EMPTY = "empty"  # a stream without any content
    TOO_MANY = "429"
    INTERNAL = "500"
    UNAVAILABLE = "503"


AT_TOKEN = frozenset(
    {
        FaultKind.DIE, FaultKind.RESET, FaultKind.TRUNCATE, FaultKind.HANG, FaultKind.HANG_ENGINE,
        FaultKind.MALFORMED,
    }
)  # fmt: skip
"""Faults that can strike in the middle of an answer."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault and when it strikes."""

    kind: FaultKind
    request: int | None = None
    every: int = 1
    share: float = 1.0
    token: int = 0
    seconds: float = 1.0

    def strikes(self, number: int, seed: int) -> bool:
        """Whether it strikes the `number`-th generation request, counted from 1."""
        if self.request is not None:
            return number == self.request
        if number % self.every:
            return False
        if self.share >= 1.0:
            return True
        chance = random.Random(f"{seed}/{self.kind}/{number}").random()  # noqa: S311
        return chance < self.share


def parse_fault(text: str) -> Fault:
    """Reads `kind:key=value,...`.

    Raises:
        ValueError: An unknown kind or key, or a value that is none.
    """
    kind, _, rest = text.partition(":")
    try:
        fault_kind = FaultKind(kind)
    except ValueError:
        known = ", ".join(FaultKind)
        raise ValueError(f"unknown fault {kind!r}; known: {known}") from None
    values: dict[str, float] = {}
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        if key not in {"request", "every", "share", "token", "seconds"}:
            raise ValueError(f"unknown key {key!r} in fault {text!r}")
        values[key] = float(value)
    request = values.get("request")
    every = int(values.get("every", 1))
    token = int(values.get("token", 0))
    if every < 1 or token < 0:
        raise ValueError(f"every is at least 1 and token at least 0, in fault {text!r}")
    if token and fault_kind not in AT_TOKEN:
        raise ValueError(f"{kind} cannot strike in the middle of an answer")
    return Fault(
        kind=fault_kind,
        request=int(request) if request is not None else None,
        every=every,
        share=values.get("share", 1.0),
        token=token,
        seconds=values.get("seconds", 1.0),
    )


def fault_for(faults: Sequence[Fault], number: int, seed: int) -> Fault | None:
    """The first of `faults` that strikes the `number`-th request."""
    return next((fault for fault in faults if fault.strikes(number, seed)), None)
