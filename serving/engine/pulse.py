"""An engine's own account of what it runs and how long its steps take, for the autoscaler.

Stands in the list of vLLM's stat loggers, by duck typing, so that it works for a forked engine and
for one that was executed anew, and nothing here imports vLLM. It sums and never stores a step.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

LONGEST_STEP_S = 30.0
"""A longer one was a process that was stopped, or a machine that slept."""


@dataclass(slots=True)
class Sums:
    """What `serving.protocol.EngineLoadReport` bears; its comments say what each field is."""

    running: int = 0
    waiting: int = 0
    kv_use: float = 0.0
    decode_steps: int = 0
    decode_seqs: float = 0.0
    decode_seqs_squared: float = 0.0
    decode_s: float = 0.0
    decode_seqs_s: float = 0.0
    mixed_steps: int = 0
    mixed_prompt_tokens: int = 0
    mixed_seqs: float = 0.0
    mixed_s: float = 0.0


class Pulse:
    """Counts an engine's steps; vLLM calls `record` after each of them.

    A step lasts from the outputs before it to its own, if there was work left in between. The first
    step after an idle time is a prompt's; it lasts as long as the first token took from the
    request's arrival in the engine.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.sums = Sums()
        self._clock = clock
        self._last_s: float | None = None  # None: the engine was idle
        self._begun_s = 0.0  # of a prefill that goes on over several steps

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Takes in one step; what vLLM passes may change, so nothing of it is relied upon."""
        now_s = self._clock()
        took_s = None if self._last_s is None else now_s - self._last_s
        if iteration_stats is not None:
            self._step(iteration_stats, took_s)
        elif took_s is not None:
            self._begun_s += took_s
        if scheduler_stats is not None:
            self.sums.running = int(getattr(scheduler_stats, "num_running_reqs", 0))
            self.sums.waiting = int(getattr(scheduler_stats, "num_waiting_reqs", 0))
            use = float(getattr(scheduler_stats, "kv_cache_usage", 0.0))
            self.sums.kv_use = use if math.isfinite(use) and use >= 0 else 0.0
        if self.sums.running + self.sums.waiting > 0:
            self._last_s = now_s
        else:
            self._last_s, self._begun_s = None, 0.0

    def _step(self, stats: Any, took_s: float | None) -> None:
        sums = self.sums
        prompt = int(getattr(stats, "num_prompt_tokens", 0))
        decoding = len(getattr(stats, "inter_token_latencies_iter", ()))
        firsts = getattr(stats, "time_to_first_tokens_iter", ())
        if took_s is None:
            took_s = max(firsts, default=0.0)
        took_s, self._begun_s = took_s + self._begun_s, 0.0
        if not 0.0 < took_s < LONGEST_STEP_S:
            return
        if prompt:
            sums.mixed_steps += 1
            sums.mixed_prompt_tokens += prompt
            sums.mixed_seqs += decoding
            sums.mixed_s += took_s
        elif decoding:
            sums.decode_steps += 1
            sums.decode_seqs += decoding
            sums.decode_seqs_squared += decoding * decoding
            sums.decode_s += took_s
            sums.decode_seqs_s += decoding * took_s

    # What else vLLM calls a stat logger for.

    def log(self) -> None:
        """Nothing is logged."""

    def log_engine_initialized(self) -> None:
        """Nothing is logged."""

    def record_sleep_state(self, sleep: int = 0, level: int = 0) -> None:
        """Sleeping engines make no steps."""

    def record_admission_rejection(self, reason: str) -> None:
        """The gateway's leases leave nothing to reject."""


def _kv_tokens(engine_client: Any) -> int:
    """What the KV cache holds; 0 where the engine does not tell."""
    cache = getattr(getattr(engine_client, "vllm_config", None), "cache_config", None)
    blocks, size = getattr(cache, "num_gpu_blocks", None), getattr(cache, "block_size", None)
    return blocks * size if isinstance(blocks, int) and isinstance(size, int) else 0


def take(app: Any) -> dict[str, float] | None:
    """The sums of the engine behind a vLLM app; begins to count at the first call.

    None if the app has no engine that tells its steps.
    """
    engine_client = getattr(getattr(app, "state", None), "engine_client", None)
    manager = getattr(engine_client, "logger_manager", None)
    loggers = getattr(manager, "stat_loggers", None)
    if not isinstance(loggers, list):
        return None
    for logger in loggers:
        if isinstance(logger, Pulse):
            return asdict(logger.sums) | {"kv_tokens": _kv_tokens(engine_client)}
    loggers.append(Pulse())
    return None
