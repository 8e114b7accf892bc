"""Turns outcomes into figures. Pure; percentiles are interpolated linearly, as numpy's."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from loadtests.measure import Outcome

MAX_LAG_P99_S = 0.020
"""A run whose requests were sent later than this at p99 measured its client, not the server."""

PERCENTILES = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution of seconds in a few figures."""

    count: int
    mean_s: float
    std_s: float
    percentiles_s: Mapping[float, float]

    @classmethod
    def of(cls, values_s: Iterable[float]) -> "Spread | None":
        """The figures of some values; None of none."""
        ordered = sorted(values_s)
        if not ordered:
            return None
        mean_s = math.fsum(ordered) / len(ordered)
        variance = math.fsum((value - mean_s) ** 2 for value in ordered) / len(ordered)
        marks = {mark: percentile(ordered, mark) for mark in PERCENTILES}
        return cls(len(ordered), mean_s, math.sqrt(variance), marks)


def percentile(ordered: Sequence[float], mark: float) -> float:
    """The `mark`-th percentile (0 to 100) of values in order; there is at least one."""
    place = (len(ordered) - 1) * mark / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True, slots=True)
class Slo:
    """What each request is promised, in seconds; None promises nothing."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def holds(self, outcome: Outcome) -> bool:
        """Whether a request got what was promised; a failed one did not. As in vLLM's goodput, a
        reply of one token has no time between tokens that could be too long."""
        if not outcome.ok:
            return False
        measured = (
            (outcome.ttft_s, self.ttft_s), (outcome.tpot_s or 0.0, self.tpot_s),
            (outcome.e2e_s, self.e2e_s),
        )  # fmt: skip
        return all(
            most_s is None or (value_s is not None and value_s <= most_s)
            for value_s, most_s in measured
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a run, or of one kind of its requests."""

    duration_s: float
    completed: int
    failed: int
    failures: Mapping[str, int]
    """How many failed of what."""
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    ttft: Spread | None
    tpot: Spread | None
    itl: Spread | None
    e2e: Spread | None
    lag: Spread | None
    good: int | None
    """Completed requests that kept the SLO; None where there was none."""
    usage_missing: int
    text_missing: int
    """Completed requests whose tokens had no text."""
    prompts_off: int
    """Requests whose prompt did not measure what it was made for, by the server's usage."""
    peak_in_flight: int
    complaints: tuple[str, ...]
    """Why the run is not valid; empty where it is."""

    @property
    def requests(self) -> int:
        """All requests that were sent."""
        return self.completed + self.failed

    @property
    def attainment(self) -> float | None:
        """The share of all requests, failed ones included, that kept the SLO."""
        return None if self.good is None or not self.requests else self.good / self.requests

    @property
    def request_rate_rps(self) -> float:
        """Completed requests a second."""
        return self.completed / self.duration_s

    @property
    def output_rate_tps(self) -> float:
        """Output tokens a second."""
        return self.output_tokens / self.duration_s


def summarize(outcomes: Sequence[Outcome], duration_s: float, slo: Slo | None = None) -> Summary:
    """The figures of some outcomes of a run that took `duration_s`."""
    done = [outcome for outcome in outcomes if outcome.ok]
    lag = Spread.of(outcome.lag_s for outcome in outcomes)
    return Summary(
        duration_s=duration_s,
        completed=len(done),
        failed=len(outcomes) - len(done),
        failures=Counter(str(o.failure) for o in outcomes if o.failure is not None),
        prompt_tokens=sum(outcome.prompt_tokens or 0 for outcome in done),
        cached_tokens=sum(outcome.cached_tokens for outcome in done),
        output_tokens=sum(outcome.output_tokens or 0 for outcome in done),
        ttft=Spread.of(o.ttft_s for o in done if o.ttft_s is not None),
        tpot=Spread.of(tpot_s for o in done if (tpot_s := o.tpot_s) is not None),
        itl=Spread.of(chain.from_iterable(outcome.gaps_s for outcome in done)),
        e2e=Spread.of(o.e2e_s for o in done if o.e2e_s is not None),
        lag=lag,
        good=None if slo is None else sum(slo.holds(outcome) for outcome in outcomes),
        usage_missing=sum(outcome.usage_missing for outcome in done),
        text_missing=sum(outcome.text_missing for outcome in done),
        prompts_off=sum(
            o.prompt_tokens != o.wanted_prompt_tokens
            for o in done
            if o.prompt_tokens is not None and o.wanted_prompt_tokens is not None
        ),
        peak_in_flight=_peak_in_flight(outcomes),
        complaints=_complaints(outcomes, lag),
    )


def _peak_in_flight(outcomes: Sequence[Outcome]) -> int:
    changes = sorted(
        chain.from_iterable(((o.sent_s, 1), (o.sent_s + (o.e2e_s or 0.0), -1)) for o in outcomes)
    )
    now = peak = 0
    for _at_s, change in changes:
        now += change
        peak = max(peak, now)
    return peak


def _complaints(outcomes: Sequence[Outcome], lag: Spread | None) -> tuple[str, ...]:
    complaints: list[str] = []
    if not any(outcome.ok for outcome in outcomes):
        complaints.append("no request completed")
    if lag is not None and lag.percentiles_s[99.0] > MAX_LAG_P99_S:
        complaints.append(
            f"requests were sent {lag.percentiles_s[99.0] * 1000:.0f} ms late at p99: the client "
            f"was the bottleneck (at most {MAX_LAG_P99_S * 1000:.0f} ms are valid)"
        )
    return tuple(complaints)


_FIGURES: dict[str, Callable[[Summary], float | None]] = {
    "failed": lambda summary: summary.failed,
    "failed_share": lambda s: s.failed / s.requests if s.requests else None,
    "attainment": lambda summary: summary.attainment,
    "request_rate": lambda summary: summary.request_rate_rps,
    "output_rate": lambda summary: summary.output_rate_tps,
}


def figure(summary: Summary, name: str) -> float | None:
    """A figure by name: `ttft_p99`, `tpot_mean`, ... in seconds, `failed`, `failed_share`,
    `attainment`, `request_rate`, `output_rate`. None where nothing was measured.

    Raises:
        ValueError: There is no such figure.
    """
    if name in _FIGURES:
        return _FIGURES[name](summary)
    matched = re.fullmatch(r"(ttft|tpot|itl|e2e|lag)_(mean|p(\d+))", name)
    spreads = {
        "ttft": summary.ttft, "tpot": summary.tpot, "itl": summary.itl, "e2e": summary.e2e,
        "lag": summary.lag,
    }  # fmt: skip
    if matched is None or (matched[3] and float(matched[3]) not in PERCENTILES):
        known = ", ".join([*_FIGURES, *(f"{kind}_mean|p50|p90|p95|p99" for kind in spreads)])
        raise ValueError(f"no figure is called {name!r}; known: {known}")
    spread = spreads[matched[1]]
    if spread is None:
        return None
    return spread.percentiles_s[float(matched[3])] if matched[3] else spread.mean_s


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition under which a run counts as failed, as `ttft_p99>2`."""

    name: str
    above: bool
    bound: float

    def __str__(self) -> str:
        return f"{self.name}{'>' if self.above else '<'}{self.bound:g}"

    def trips(self, summary: Summary) -> bool:
        """Whether the condition is met; a figure that could not be measured meets it."""
        value = figure(summary, self.name)
        if value is None:
            return True
        return value > self.bound if self.above else value < self.bound


def parse_gate(text: str) -> Gate:
    """Reads `figure>bound` or `figure<bound`.

    Raises:
        ValueError: It is none, or names no figure.
    """
    matched = re.fullmatch(r"\s*(\w+)\s*([<>])\s*([\d.eE+-]+)\s*", text)
    if matched is None:
        raise ValueError(f"a gate is figure>bound or figure<bound, not {text!r}")
    figure(summarize((), 1.0), matched[1])
    return Gate(matched[1], matched[2] == ">", float(matched[3]))
