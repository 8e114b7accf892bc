"""What one engine can do: the numbers, and their floor under an SLO.

An engine's step that processes `c` prompt tokens while `b` sequences decode takes

    c / prefill_tps  +  (step_s + step_per_seq_s * b, if b > 0)

and gives each of the b sequences one token: continuous batching with chunked prefill, as in
Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve",
OSDI 2024, section 4.
"""

from dataclasses import dataclass


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

    def floor_ttft_s(self) -> float:
        """The least time to a first token: one step, and one token of prompt."""
        return self.step_s + 1.0 / self.prefill_tps

    def floor_tpot_s(self) -> float:
        """The least time of a further token: a step with one sequence."""
        return self.step_s + self.step_per_seq_s


def below_floor(
    capacity: Capacity, ttft_s: float, tpot_s: float, cold_start_s: float | None
) -> list[str]:
    """What an SLO asks that this engine cannot give, as sentences with the floor; mostly none."""
    warnings = []
    first_s = capacity.floor_ttft_s()
    if ttft_s < first_s:
        warnings.append(f"ttft_s {ttft_s:g} is below one step of the engine, {first_s:.4f} s")
    if cold_start_s is not None and ttft_s < cold_start_s:
        warnings.append(
            f"ttft_s {ttft_s:g} is below a cold start of {cold_start_s:.2f} s: "
            "the requests that wake an engine miss it"
        )
    step_s = capacity.floor_tpot_s()
    if tpot_s < step_s:
        warnings.append(f"tpot_s {tpot_s:g} is below a step with one sequence, {step_s:.4f} s")
    elif tpot_s < capacity.longest_step_s():
        warnings.append(
            f"tpot_s {tpot_s:g} is below a step with a full chunk of {capacity.chunk_tokens} "
            f"prompt tokens, {capacity.longest_step_s():.3f} s: a smaller chunk would hold it"
        )
    return warnings
