"""Faults for a real engine: loaded by vLLM as `engine.args: {logits_processors: MODULE:CLASS}`."""

import time

import torch
from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor

STEP_S = 0.25


class Slow(LogitsProcessor):  # type: ignore[misc]  # vLLM is not typed
    """Every step of the engine takes STEP_S longer; what it says stays the same."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        """Takes what vLLM gives to each."""

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """As they are, later."""
        time.sleep(STEP_S)
        return logits

    def is_argmax_invariant(self) -> bool:
        """Those that are, are left out where all requests are greedy."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Keeps no state."""


class Failing(Slow):
    """Every request fails within the engine, but the host's probe for one token."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Fails as a defect of the engine does: the request is none the worse for it."""
        if sampling_params.max_tokens != 1:
            raise RuntimeError("an injected fault")

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """As they are."""
        return logits
