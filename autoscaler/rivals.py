"""Other autoscalers by their published formulas, for comparison in the simulator; never live.

All see the same gateway and the same engines, and their signals are exact and free; what differs
is what they read, how they average it, and when they act. Each can be at zero engines only where
its original can.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from autoscaler.policy import decide, first_memory
from autoscaler.snapshot import Snapshot, Spec


class Scaler(Protocol):
    """Anything that says how many engines there shall be."""

    interval_s: float

    def target(self, seen: Snapshot) -> int:
        """The number of engines wanted from now on."""
        ...


class Penstock:
    """The live policy, called as the live loop calls it: each 250 ms."""

    def __init__(self, spec: Spec) -> None:
        self.interval_s = 0.25
        self._spec = spec
        self._memory = first_memory(0.0, spec)

    def target(self, seen: Snapshot) -> int:
        """By `policy.decide`."""
        decision, self._memory = decide(seen, self._memory, self._spec)
        return decision.target


class Static:
    """Always the same number."""

    interval_s = 1.0

    def __init__(self, engines: int) -> None:
        self._engines = engines

    def target(self, seen: Snapshot) -> int:
        """The number."""
        return self._engines


class _Mean:
    """The mean of a signal over a sliding window of samples."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def add(self, at_s: float, value: float) -> float:
        self._samples.append((at_s, value))
        self._sum += value
        while self._samples[0][0] <= at_s - self._window_s:
            self._sum -= self._samples.popleft()[1]
        return self._sum / len(self._samples)


@dataclass(frozen=True, slots=True)
class RayServeKnobs:
    """Ray Serve 2.60's AutoscalingConfig, at its defaults."""

    target_ongoing_requests: float = 2.0
    look_back_period_s: float = 30.0
    metrics_interval_s: float = 10.0
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0


class RayServe:
    """Ray Serve's request-based policy (`ray/serve/autoscaling_policy.py`, Ray 2.60).

    desired = ceil(ongoing / target_ongoing_requests), where `ongoing` is running plus queued,
    averaged over look_back_period_s and pushed each metrics_interval_s; acted upon once it has
    pointed the same way for the delay. min_replicas is 1, the default.
    """

    def __init__(self, knobs: RayServeKnobs, most: int) -> None:
        self.interval_s = 0.5
        self._knobs = knobs
        self._most = most
        self._mean = _Mean(knobs.look_back_period_s)
        self._pushed_at_s = -math.inf
        self._ongoing = 0.0
        self._target = 1
        self._up_since_s = self._down_since_s = math.nan

    def target(self, seen: Snapshot) -> int:
        """By the class's formula."""
        knobs = self._knobs
        mean = self._mean.add(seen.at_s, float((seen.queued or 0) + (seen.in_flight or 0)))
        if seen.at_s - self._pushed_at_s >= knobs.metrics_interval_s:
            self._pushed_at_s, self._ongoing = seen.at_s, mean
        desired = math.ceil(self._ongoing / knobs.target_ongoing_requests - 1e-9)
        desired = min(max(desired, 1), self._most)
        if desired <= self._target:
            self._up_since_s = math.nan
        if desired >= self._target:
            self._down_since_s = math.nan
        if desired > self._target:
            if math.isnan(self._up_since_s):
                self._up_since_s = seen.at_s
            if seen.at_s - self._up_since_s >= knobs.upscale_delay_s:
                self._target, self._up_since_s = desired, math.nan
        elif desired < self._target:
            if math.isnan(self._down_since_s):
                self._down_since_s = seen.at_s
            if seen.at_s - self._down_since_s >= knobs.downscale_delay_s:
                self._target, self._down_since_s = desired, math.nan
        return self._target


@dataclass(frozen=True, slots=True)
class KpaKnobs:
    """Knative's autoscaler, at its defaults but for the concurrency, which is the operator's."""

    target_concurrency: float = 89.6  # 70 % of 128 slots
    stable_window_s: float = 60.0
    panic_share: float = 0.1
    panic_threshold: float = 2.0
    max_down_rate: float = 2.0


class Kpa:
    """Knative Pod Autoscaler (knative.dev "Autoscaling", serving/pkg/autoscaler/scaling).

    Each 2 s: desired = ceil(mean concurrency over the stable window / target); the same over the
    panic window. Panic begins where the latter is panic_threshold times the ready pods, lasts a
    stable window from the last such moment, and never scales down meanwhile. A step down goes to
    a max_down_rate-th at most. Scale to zero is off here: with it every gap would be a cold hit.
    """

    def __init__(self, knobs: KpaKnobs, most: int) -> None:
        self.interval_s = 1.0
        self._knobs = knobs
        self._most = most
        self._stable = _Mean(knobs.stable_window_s)
        self._panic = _Mean(max(self.interval_s, knobs.stable_window_s * knobs.panic_share))
        self._panics_since_s = math.nan
        self._panic_most = self._target = 1
        self._tick_s = -math.inf

    def target(self, seen: Snapshot) -> int:
        """By the class's formula; samples each second, decides each two."""
        knobs = self._knobs
        concurrency = float((seen.queued or 0) + (seen.in_flight or 0))
        stable = self._stable.add(seen.at_s, concurrency) / knobs.target_concurrency
        panic = self._panic.add(seen.at_s, concurrency) / knobs.target_concurrency
        if seen.at_s - self._tick_s < 2.0:
            return self._target
        self._tick_s = seen.at_s
        ready = max(1, seen.ready)
        floor = math.floor(ready / knobs.max_down_rate)
        desired = max(math.ceil(stable - 1e-9), floor, 1)
        in_panic = max(math.ceil(panic - 1e-9), floor, 1)
        if in_panic / ready >= knobs.panic_threshold:
            if math.isnan(self._panics_since_s):
                self._panic_most = 0
            self._panics_since_s = seen.at_s
        elif seen.at_s - self._panics_since_s > knobs.stable_window_s:
            self._panics_since_s = math.nan
        if not math.isnan(self._panics_since_s):
            self._panic_most = max(self._panic_most, in_panic, ready)
            desired = self._panic_most
        self._target = min(desired, self._most)
        return self._target


@dataclass(frozen=True, slots=True)
class HpaKnobs:
    """KEDA's Prometheus scaler over a HorizontalPodAutoscaler, at the defaults of both."""

    target: float = 5.0  # of the signal, for each replica
    running_too: bool = False  # requests waiting alone, or with those that run
    sync_s: float = 15.0
    down_window_s: float = 300.0
    tolerance: float = 0.1


class Hpa:
    """HPA/KEDA (kubernetes.io, "Horizontal Pod Autoscaling", algorithm; keda.sh, AverageValue).

    Each sync: desired = ceil(signal / target), unless within the tolerance of what is there. Up
    by at most the larger of 4 pods and 100 % in 15 s; down to the largest recommendation of the
    stabilisation window. At least one replica.
    """

    def __init__(self, knobs: HpaKnobs, most: int) -> None:
        self.interval_s = knobs.sync_s
        self._knobs = knobs
        self._most = most
        self._target = 1
        self._wanted: deque[tuple[float, int]] = deque()

    def target(self, seen: Snapshot) -> int:
        """By the class's formula."""
        knobs = self._knobs
        signal = float((seen.queued or 0) + (seen.in_flight or 0 if knobs.running_too else 0))
        desired = self._target
        if abs(signal / (knobs.target * self._target) - 1.0) > knobs.tolerance:
            desired = max(1, math.ceil(signal / knobs.target - 1e-9))
        self._wanted.append((seen.at_s, desired))
        while self._wanted[0][0] < seen.at_s - knobs.down_window_s:
            self._wanted.popleft()
        highest = max(wanted for _, wanted in self._wanted)
        lowest_allowed = min(self._target, highest)
        fastest = max(self._target + 4, 2 * self._target)
        self._target = min(max(desired, lowest_allowed), fastest, self._most)
        return self._target
