"""What `bench_calibrate` asks for: seeded arrivals of its slice and of its drives. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

WORDS = (4, 16, 48)
"""Repetitions of a sentence in a prompt: three lengths."""
OUTPUTS = (16, 64)
BURSTS = (1, 2, 3, 4, 5, 6, 7, 8)
BURST_EVERY_S = 1.0


@dataclass(frozen=True)
class Request:
    """One request to ask for, or one that was asked for, then with the time it really began."""

    at_s: float
    words: int
    output: int
    first_s: float | None = None  # to its first token, where it was answered to its end
    last_s: float | None = None  # to its last token


def arrivals(seed: int, seconds: float) -> list[Request]:
    """Half minutes of a quiet, a busy and an empty kind in turn, with Poisson arrivals in each."""
    rates = (1.0, 5.0, 0.0, 2.0)
    return _poisson(random.Random(seed), rates, 30.0, seconds)  # noqa: S311, can be repeated


def drive_arrivals(seed: str, seconds: float, rates: Sequence[float]) -> list[Request]:
    """Other arrivals than the slice's: Poisson at the rates, each for its part of the time."""
    chance = random.Random(f"drive {seed}")  # noqa: S311, can be repeated
    return _poisson(chance, rates, seconds / len(rates), seconds)


def burst_arrivals() -> list[Request]:
    """Bursts of all sizes up to an engine's slots, so that its steps are seen with each batch."""
    return [
        Request(number * BURST_EVERY_S, WORDS[n % 3], OUTPUTS[n % 2])
        for number, size in enumerate(BURSTS)
        for n in range(size)
    ]


def _poisson(
    chance: random.Random, rates: Sequence[float], each_s: float, seconds: float
) -> list[Request]:
    found, at_s = list[Request](), 0.0
    while at_s < seconds:
        rate = rates[int(at_s // each_s) % len(rates)]
        if rate == 0:
            at_s = (at_s // each_s + 1) * each_s
            continue
        at_s += chance.expovariate(rate)
        found.append(Request(at_s, chance.choice(WORDS), chance.choice(OUTPUTS)))
    return [one for one in found if one.at_s < seconds]
