"""A machine whose engines are as fast as a formula says, and whose clock is turned by trials."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from models.manifest import EngineArgument
from serving.tuning.trials import Figures, Reading, Settings, TrialError

LEVELS = (1, 8, 32)


class Killed(BaseException):
    """The tuning run's end, as by kill -9."""


def figures(rate: float = 1000.0, tpot_s: float = 0.01, ttft_s: float = 0.1) -> Figures:
    """Plausible figures; the rate is that of the highest concurrency."""
    return Figures(
        levels=tuple(
            Reading(
                concurrency=level, output_rate=rate * level / LEVELS[-1], ttft_p50=ttft_s,
                ttft_p99=ttft_s, tpot_p50=tpot_s, tpot_p99=tpot_s * 1.2, itl_p50=tpot_s,
            )
            for level in LEVELS
        ),
        prefill_tokens_s=5000.0,
    )  # fmt: skip


def rate_of(settings: Settings) -> float:
    """Slots help up to 64, and an interval of 4 helps; both together are best."""
    slots = settings.get("max_num_seqs", 32)
    assert isinstance(slots, int)
    interval: EngineArgument = settings.get("stream_interval", 1)
    return 1000.0 * (1 - abs(math.log2(slots / 64)) / 10) * (1.1 if interval == 4 else 1.0)


@dataclass
class FakeMachine:
    """A runner, and the clock that its trials turn; see `serving.tuning.trials.Runner`."""

    rate: Callable[[Settings], float] = rate_of
    noise: Sequence[float] = (1.0,)
    """Factors of the runs' rates, in turn."""
    start_s: float = 2.0
    second_a_round: float = 1.0
    cold_s: float = 0.0
    """What the very first start takes longer."""
    faults: dict[str, str | Figures] = field(default_factory=dict)
    """What settings with this argument end in."""
    dies_at: int | None = None
    """The run that the whole process dies in."""
    now_s: float = 1000.0
    runs: list[Settings] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    async def run(self, settings: Settings, rounds: int, seed: int) -> Figures:
        if self.dies_at is not None and len(self.runs) == self.dies_at:
            raise Killed
        self.runs.append(dict(settings))
        self.now_s += self.start_s + rounds * self.second_a_round
        if len(self.runs) == 1:
            self.now_s += self.cold_s
        for name, fault in self.faults.items():
            if name in settings:
                if isinstance(fault, str):
                    raise TrialError(fault)
                return fault
        return figures(self.rate(settings) * self.noise[len(self.runs) % len(self.noise)])
