"""Learns what an engine can do from sums over its steps. Pure.

The sums are those of a least-squares line through the decode steps and of a ratio over the steps
with prompts, so that an engine reports a dozen numbers however many steps it made. Old steps fade
as new ones come: about the last KEPT_STEPS count.
"""

import math
from dataclasses import astuple, dataclass, fields, replace

from autoscaler.capacity import Capacity

KEPT_STEPS = 5000.0
KEPT_PROMPTS = 500_000.0  # tokens
ENOUGH_STEPS = 20
ENOUGH_PROMPTS = 64  # tokens, where nothing was known before
PRIOR_PROMPTS = 2048.0  # tokens; so many of our own weigh as much as what was known before
ASSUMED_SLOPE = 0.05
"""Share of a step that each further sequence adds, until batches of different sizes were seen.
Measured or published engines lie between 0.01 (large GPUs) and 0.1 (CPU)."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Sums over steps; those without a prompt, and those with (mixed)."""

    decode_steps: float = 0.0
    decode_seqs: float = 0.0  # sum of the sequences in each
    decode_seqs_squared: float = 0.0
    decode_s: float = 0.0
    decode_seqs_s: float = 0.0  # sum of sequences x seconds
    mixed_steps: float = 0.0
    mixed_prompt_tokens: float = 0.0
    mixed_seqs: float = 0.0  # that decoded beside the prompts
    mixed_s: float = 0.0

    def since(self, earlier: "Steps") -> "Steps | None":
        """What came after an earlier reading; None if this cannot be a later one of that engine."""
        pairs = list(zip(astuple(self), astuple(earlier), strict=True))
        if not all(math.isfinite(now) and now >= before >= 0.0 for now, before in pairs):
            return None
        return Steps(*(now - before for now, before in pairs))

    def plus(self, more: "Steps") -> "Steps":
        """Both together, the older ones faded where they are too many; never negative."""
        total = Steps(*(a + b for a, b in zip(astuple(self), astuple(more), strict=True)))
        decode = min(1.0, KEPT_STEPS / max(1.0, total.decode_steps))
        mixed = min(1.0, KEPT_PROMPTS / max(1.0, total.mixed_prompt_tokens))
        mixed = min(mixed, KEPT_STEPS / max(1.0, total.mixed_steps))
        return Steps(
            *(
                value * (mixed if field.name.startswith("mixed") else decode)
                for field, value in zip(fields(total), astuple(total), strict=True)
            )
        )


def fit(seen: Steps, slots: int, prior: Capacity | None = None) -> Capacity | None:
    """The capacity by what was seen, and by the prior where that says too little.

    The slope stays the prior's until batches of different size were seen; neither slope nor base
    becomes negative. Without a prior, None until enough was seen of both kinds of steps.
    """
    if prior is None:
        if seen.decode_steps < ENOUGH_STEPS or seen.mixed_prompt_tokens < ENOUGH_PROMPTS:
            return None
        mean_s = seen.decode_s / seen.decode_steps
        mean_seqs = max(1.0, seen.decode_seqs / seen.decode_steps)
        step_s = mean_s / (1.0 + ASSUMED_SLOPE * mean_seqs)
        if not step_s > 0:
            return None
        found = Capacity(slots, 1.0, step_s, ASSUMED_SLOPE * step_s)
    else:
        found = replace(prior, slots=slots)
    if seen.decode_steps >= ENOUGH_STEPS and seen.decode_seqs >= seen.decode_steps:
        found = _with_line(found, seen)
    took_s = _prefill_s(found, seen)
    known = PRIOR_PROMPTS if prior is not None else 0.0
    if took_s > 0:
        rate = (seen.mixed_prompt_tokens + known) / (took_s + known / found.prefill_tps)
        if math.isfinite(rate) and rate > 0:
            found = replace(found, prefill_tps=rate)
    return found


def _with_line(found: Capacity, seen: Steps) -> Capacity:
    mean_seqs = seen.decode_seqs / seen.decode_steps
    mean_s = seen.decode_s / seen.decode_steps
    spread = seen.decode_seqs_squared / seen.decode_steps - mean_seqs**2
    slope = found.step_per_seq_s
    if spread > 1.0:
        slope = (seen.decode_seqs_s / seen.decode_steps - mean_seqs * mean_s) / spread
    slope = min(max(slope, 0.0), mean_s / mean_seqs)
    step_s = max(0.0, mean_s - slope * mean_seqs)
    return replace(found, step_s=step_s, step_per_seq_s=slope)


def _prefill_s(found: Capacity, seen: Steps) -> float:
    """Of the steps with prompts what the prompts took, and not the sequences beside them."""
    beside = min(seen.mixed_steps, seen.mixed_seqs)  # steps that had any
    decoding_s = beside * found.step_s + seen.mixed_seqs * found.step_per_seq_s
    return max(0.1 * seen.mixed_s, seen.mixed_s - decoding_s)
