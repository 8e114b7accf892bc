"""A simulated fleet of one model: starts and drains engines, counts their cost, reports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoscaler import kernel
from autoscaler.capacity import Capacity
from autoscaler.snapshot import Snapshot
from autoscaler.traces import Trace
from models.errors import BadRequestError
from models.profile_measured import Measured

Sampler = Callable[[], float]
"""The next cold start in seconds."""


@dataclass(frozen=True, slots=True)
class EngineModel:
    """One engine, and how much the gateway sends ahead to it.

    The default is FACTS.md's H200-like engine. Its chunk keeps a full step within a TPOT of
    100 ms (82 ms); vLLM's own default on large GPUs, 8,192, does not (257 ms).
    """

    slots: int = 128
    prefill_tps: float = 35_000.0
    step_ms: float = 8.0
    step_ms_per_seq: float = 0.12
    chunk_tokens: int = 2048
    kv_tokens: int = 1_000_000
    ahead_tokens: int = 8192
    crowding: float = 0.0  # of a step, for each other engine at work on the same cores

    def capacity(self) -> Capacity:
        """The same numbers as the policy reads them."""
        return Capacity(
            self.slots,
            self.prefill_tps,
            self.step_ms / 1000.0,
            self.step_ms_per_seq / 1000.0,
            self.chunk_tokens,
        )


class EngineError(BadRequestError):
    """An engine model that names an unknown parameter or an impossible value."""

    code = "invalid_engine"


def engine_of(profile: Measured) -> EngineModel:
    """The engine as it was measured."""
    step_s, step_per_seq_s = profile.line
    usual = EngineModel()
    chunk = profile.settings.get("max_num_batched_tokens", usual.chunk_tokens)
    return EngineModel(
        slots=profile.slots,
        prefill_tps=profile.prefill_tokens_s,
        step_ms=1000 * step_s,
        step_ms_per_seq=1000 * step_per_seq_s,
        chunk_tokens=int(chunk),
    )


def parse_engine(text: str, base: EngineModel | None = None) -> EngineModel:
    """Reads `slots=128,prefill_tps=35000,step_ms=8,step_ms_per_seq=0.12`; the rest is the base's,
    or default.

    Raises:
        EngineError: Naming the parameter at fault.
    """
    floats = {"prefill_tps", "step_ms", "step_ms_per_seq", "crowding"}
    values: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        name = name.strip()
        if name not in EngineModel.__dataclass_fields__:
            raise EngineError(f"{name!r} is no parameter of an engine", param="engine")
        try:
            values[name] = float(value) if name in floats else int(value)
        except ValueError as exc:
            raise EngineError(f"{name}: {value!r} is not a number", param="engine") from exc
        least = 0.0 if name in {"step_ms", "step_ms_per_seq", "crowding"} else 1.0
        if not least <= values[name] < 1e12:
            raise EngineError(f"{name} must be at least {least:g}", param="engine")
    return replace(base or EngineModel(), **values)  # type: ignore[arg-type]


def _drawn(values: Sequence[float], count: int, seed: int) -> kernel.Floats:
    """So many of the values, drawn evenly; other draws than those of the cold starts."""
    if len(values) == 1:
        return np.full(count, values[0])
    return np.random.default_rng((seed, 1)).choice(np.asarray(values, np.float64), count)


class SimulatedFleet:
    """Engines, their gateway and a trace that runs through them; time moves with `advance`."""

    def __init__(
        self,
        trace: Trace,
        engine: EngineModel,
        *,
        places: int,
        ttft_s: float,
        tpot_s: float,
        cold_start: Sampler,
        further_start: Sampler | None = None,
        stop_s: float = 0.0,
        ways_s: Sequence[float] = (0.0,),
        seed: int = 1,
    ) -> None:
        self.now_s = 0.0
        self.started = self.stopped = 0
        self._trace = trace
        self._cold_start = cold_start
        self._further_start = further_start or cold_start
        self._stop_s = stop_s
        self._engine_s = 0.0
        self._since_s = np.full(places, np.nan)  # when each place was allocated
        self._rates = kernel.Rates(
            engine.slots, engine.chunk_tokens, engine.kv_tokens, engine.ahead_tokens,
            engine.prefill_tps, engine.step_ms / 1000.0, engine.step_ms_per_seq / 1000.0,
            ttft_s, tpot_s, engine.crowding,
        )  # fmt: skip
        self._state = kernel.new_fleet(
            trace.arrival_s, trace.prompt, trace.output, _drawn(ways_s, len(trace), seed),
            places, engine.slots,
        )  # fmt: skip
        self._seen = self._state.totals.copy()

    @property
    def all_done(self) -> bool:
        """Whether every request of the trace has ended."""
        return int(self._state.totals[kernel.FINISHED]) == len(self._trace)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        totals = self._state.totals
        return int(totals[kernel.FINISHED]) == int(totals[kernel.NEXT])

    @property
    def kept(self) -> int:
        """Engines that start or take requests."""
        return self._in(kernel.STARTING) + self._in(kernel.READY)

    def count_ready(self) -> int:
        """Engines that take requests."""
        return self._in(kernel.READY)

    def advance(self, until_s: float, *, stop_on_arrival: bool = False) -> None:
        """Lets time pass; with `stop_on_arrival` only until a request comes."""
        state = self._state
        in_use = np.nonzero(state.phase != kernel.FREE)[0]
        state.totals[kernel.USED] = in_use[-1] + 1 if len(in_use) else 0
        self.now_s = float(kernel.advance(state, self._rates, self.now_s, until_s, stop_on_arrival))
        for place in np.nonzero(~np.isnan(state.freed_s))[0]:
            self._release(int(place), float(state.freed_s[place]))
            state.freed_s[place] = np.nan

    def scale_to(self, target: int, *, warm: bool = False) -> None:
        """Starts engines, or drains those with the least work, those that still start first."""
        change = target - self.kept
        if change > 0:
            self._start(change, warm)
        elif change < 0:
            self._stop(-change)

    def look(self, start_s: float | None, capacity: Capacity | None, most: int) -> Snapshot:
        """What gateways and engines report; counts since the last look."""
        state = self._state
        fresh = state.totals - self._seen
        self._seen = state.totals.copy()
        head = int(state.totals[kernel.HEAD])
        queued = int(state.totals[kernel.NEXT]) - head
        held = int(np.count_nonzero(state.phase != kernel.FREE))
        return Snapshot(
            at_s=self.now_s,
            ready=self._in(kernel.READY),
            starting=self._in(kernel.STARTING),
            queued=queued,
            in_flight=int(state.flight.sum()),
            arrivals=int(fresh[kernel.ARRIVED]),
            arrived_tokens=int(fresh[kernel.ARRIVED_TOKENS]),
            queued_tokens=int(state.totals[kernel.QUEUED_TOKENS]),
            prefill_tokens=int(state.pending.sum()),
            oldest_wait_s=self.now_s - float(self._trace.arrival_s[head]) if queued else 0.0,
            finished=int(fresh[kernel.FINISHED]),
            finished_tokens=int(fresh[kernel.FINISHED_TOKENS]),
            missed=int(fresh[kernel.MISSED]),
            draining=self._in(kernel.DRAINING),
            available=most - held,
            cold_start_s=start_s,
            capacity=capacity,
        )

    def engine_s(self) -> float:
        """Engine seconds so far, each from the start of its cold start to its release."""
        held = ~np.isnan(self._since_s)
        return self._engine_s + float((self.now_s - self._since_s[held]).sum())

    def latencies(self) -> tuple[kernel.Floats, kernel.Floats]:
        """TTFT and TPOT of each request in seconds; infinite TTFT if it never had a token."""
        state = self._state
        ttft_s = np.where(np.isnan(state.first_s), np.inf, state.first_s - state.arrival_s)
        further = np.maximum(1, state.output - 1)
        tpot_s = np.where(state.output > 1, (state.done_s - state.first_s) / further, 0.0)
        return ttft_s, np.where(np.isnan(tpot_s), np.inf, tpot_s)

    def _in(self, phase: int) -> int:
        return int(np.count_nonzero(self._state.phase == phase))

    def _start(self, count: int, warm: bool) -> None:
        took = self._further_start if self.kept else self._cold_start
        for place in np.nonzero(self._state.phase == kernel.FREE)[0][:count]:
            self._since_s[place] = self.now_s
            if warm:
                self._state.phase[place] = kernel.READY
            else:
                self._state.phase[place] = kernel.STARTING
                self._state.ready_s[place] = self.now_s + took()
            self.started += 1

    def _stop(self, count: int) -> None:
        state = self._state
        starting = np.nonzero(state.phase == kernel.STARTING)[0]
        ready = np.nonzero(state.phase == kernel.READY)[0]
        latest_first = starting[np.argsort(-state.ready_s[starting], kind="stable")]
        # `work`: requests in the engine, and its prompts at 256 tokens to a request's weight.
        work = state.flight[ready] + state.pending[ready] / 256.0
        least_first = ready[np.argsort(work, kind="stable")]
        for place in [*latest_first, *least_first][:count]:
            self.stopped += 1
            if state.flight[place]:
                state.phase[place] = kernel.DRAINING
                continue
            state.phase[place] = kernel.FREE
            state.ready_s[place] = np.inf
            self._release(int(place), self.now_s)

    def _release(self, place: int, at_s: float) -> None:
        self._engine_s += at_s - float(self._since_s[place]) + self._stop_s
        self._since_s[place] = np.nan
