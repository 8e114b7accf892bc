"""What one engine can do: the numbers, their floor under an SLO, and how they are learned online.

An engine's step that processes `c` prompt tokens while `b` sequences decode takes

    c / prefill_tps  +  (step_s + step_per_seq_s * b, if b > 0)

and gives each of the b sequences one token: continuous batching with chunked prefill, as in
Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve",
OSDI 2024, section 4.
"""

import math
from dataclasses import dataclass, replace

FADE = 0.995
"""Weight that a learned sum keeps at each new step: about the last 200 steps count."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """One engine of a revision on a hardware shape."""

    slots: int  # sequences at once
    prefill_tps: float  # prompt tokens a second with nothing else to do
    step_s: float
    step_per_seq_s: float
    chunk_tokens: int = 2048  # prompt tokens in one step at most

    def token_s(self, batch: float) -> float:
        """Engine seconds that one completion token costs at a batch size."""
        return self.step_s / max(1.0, batch) + self.step_per_seq_s

    def batch_within(self, tpot_s: float) -> float:
        """Sequences that may decode at once, so that a step without prefill keeps `tpot_s`."""
        if self.step_per_seq_s <= 0:
            return float(self.slots)
        return min(float(self.slots), max(1.0, (tpot_s - self.step_s) / self.step_per_seq_s))

    def longest_step_s(self) -> float:
        """A step with a full chunk and full slots: no TPOT below this holds under load."""
        decoding_s = self.step_s + self.step_per_seq_s * self.slots
        return self.chunk_tokens / self.prefill_tps + decoding_s


def below_floor(
    capacity: Capacity, ttft_s: float, tpot_s: float, cold_start_s: float | None
) -> list[str]:
    """What an SLO asks that this engine cannot give, as sentences with the floor; mostly none."""
    warnings = []
    first_s = capacity.step_s + 1.0 / capacity.prefill_tps
    if ttft_s < first_s:
        warnings.append(f"ttft_s {ttft_s:g} is below one step of the engine, {first_s:.4f} s")
    if cold_start_s is not None and ttft_s < cold_start_s:
        warnings.append(
            f"ttft_s {ttft_s:g} is below a cold start of {cold_start_s:.2f} s: "
            "the requests that wake an engine miss it"
        )
    step_s = capacity.step_s + capacity.step_per_seq_s
    if tpot_s < step_s:
        warnings.append(f"tpot_s {tpot_s:g} is below a step with one sequence, {step_s:.4f} s")
    elif tpot_s < capacity.longest_step_s():
        warnings.append(
            f"tpot_s {tpot_s:g} is below a step with a full chunk of {capacity.chunk_tokens} "
            f"prompt tokens, {capacity.longest_step_s():.3f} s: a smaller chunk would hold it"
        )
    return warnings


@dataclass(frozen=True, slots=True)
class Learned:
    """Fading sums of a least-squares line through the steps that an engine reported."""

    steps: float = 0.0  # decode-only steps
    batch: float = 0.0
    batch_squared: float = 0.0
    took: float = 0.0  # seconds
    batch_took: float = 0.0
    prompt: float = 0.0  # tokens of steps with prefill
    prompt_took: float = 0.0  # their seconds, less what the decoding sequences took


def learn(learned: Learned, prior: Capacity, prompt: int, batch: int, took_s: float) -> Learned:
    """Takes one step in; a step that cannot be (NaN, negative, empty) changes nothing.

    Args:
        prior: What is known so far: it says how much of a mixed step was decoding.
        prompt: Prompt tokens of the step.
        batch: Sequences that decoded in it.
    """
    if not (math.isfinite(took_s) and took_s > 0 and prompt >= 0 and batch >= 0):
        return learned
    if prompt:
        decoding_s = prior.step_s + prior.step_per_seq_s * batch if batch else 0.0
        return replace(
            learned,
            prompt=learned.prompt * FADE + prompt,
            prompt_took=learned.prompt_took * FADE + max(0.1 * took_s, took_s - decoding_s),
        )
    if not batch:
        return learned
    return replace(
        learned,
        steps=learned.steps * FADE + 1,
        batch=learned.batch * FADE + batch,
        batch_squared=learned.batch_squared * FADE + batch * batch,
        took=learned.took * FADE + took_s,
        batch_took=learned.batch_took * FADE + batch * took_s,
    )


def fitted(learned: Learned, prior: Capacity) -> Capacity:
    """The capacity by what was learned, and by the prior where that says too little.

    The slope stays the prior's until batches of different size were seen; neither slope nor
    base becomes negative.
    """
    found = prior
    if learned.prompt_took > 0 and learned.prompt >= prior.chunk_tokens:
        found = replace(found, prefill_tps=learned.prompt / learned.prompt_took)
    if learned.steps < 20:
        return found
    mean_batch, mean_took = learned.batch / learned.steps, learned.took / learned.steps
    spread = learned.batch_squared / learned.steps - mean_batch**2
    slope = prior.step_per_seq_s
    if spread > 1.0:
        slope = (learned.batch_took / learned.steps - mean_batch * mean_took) / spread
    slope = min(max(slope, 0.0), mean_took / mean_batch)
    return replace(found, step_s=mean_took - slope * mean_batch, step_per_seq_s=slope)
