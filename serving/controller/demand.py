"""What the gateways hold for each model, as they report it. In memory."""

from collections import Counter
from dataclasses import dataclass, replace

from serving.controller.leases import split
from serving.protocol import DemandReport, ModelDemand

STALE_AFTER_S = 2.0
"""A gateway reports each 0.25 s; one that was silent for this long is gone."""

QUARANTINE_TOLD_S = 10.0
"""Each gateway is told of the others' quarantined requests for this long."""

KILLED_TOLD_S = 60.0
"""Gateways are told of an engine that was killed for this long."""

LONGEST_WAIT_S = 86_400.0
"""No request waits longer; what a gateway says beyond it is its clock's mistake."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened at all gateways since somebody last asked."""

    arrivals: int = 0
    arrived_tokens: int | None = 0  # of their prompts; None: a gateway does not tell
    finished: int = 0  # of which the outputs are known
    finished_tokens: int = 0  # their outputs
    missed: int = 0  # passed the model's objective

    def plus(self, part: ModelDemand) -> "Counts":
        """With one gateway's report."""
        prompts, outputs = part.arrived_prompt_tokens, part.finished_output_tokens
        if not part.arrivals:
            prompts = prompts or 0
        return Counts(
            self.arrivals + part.arrivals,
            _sum(self.arrived_tokens, prompts),
            self.finished + (part.finished if outputs is not None else 0),
            self.finished_tokens + (outputs or 0),
            self.missed + part.missed,
        )


NO_COUNTS = Counts()


@dataclass(frozen=True, slots=True)
class Demand:
    """One model, summed over all live gateways."""

    queued: int = 0
    in_flight: int = 0
    queued_tokens: int | None = 0  # of the prompts that wait; None: a gateway does not tell
    prefill_tokens: int = 0  # prompts in engines without a first token yet
    counts: Counts = NO_COUNTS
    asked_since_s: float | None = None  # monotonic; when the oldest waiting request came
    start_id: str | None = None
    """Id of the oldest waiting request."""

    @property
    def is_some(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self.queued or self.in_flight)


@dataclass(frozen=True, slots=True)
class _Heard:
    at_s: float
    report: DemandReport
    requests: dict[str, int]
    """Waiting and running ones of each model."""


class Gateways:
    """The latest report of each live gateway; monotonic seconds."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}
        self._counts: dict[str, Counts] = {}
        self._quarantined: list[tuple[float, str, str]] = []  # at_s, gateway, fingerprint
        self._killed: dict[str, float] = {}  # since when it is known, by engine_id

    def __len__(self) -> int:
        return len(self._heard)

    def hear(self, report: DemandReport, now_s: float) -> None:
        """Takes over a report in the place of the gateway's last one."""
        requests = Counter[str]()
        for part in report.models:
            requests[part.model] += part.queued + sum(part.in_flight.values())
        self._heard[report.gateway_id] = _Heard(now_s, report, requests)
        for part in report.models:
            counts = self._counts.get(part.model, NO_COUNTS).plus(part)
            if counts != NO_COUNTS:
                self._counts[part.model] = counts
        for one in report.quarantined:
            self._quarantined.append((now_s, report.gateway_id, one.fingerprint))
        since_s = now_s - QUARANTINE_TOLD_S
        if self._quarantined and self._quarantined[0][0] < since_s:
            self._quarantined = [one for one in self._quarantined if one[0] >= since_s]

    def drop_stale(self, now_s: float) -> None:
        """Forgets the gateways that were silent for STALE_AFTER_S."""
        self._heard = {
            gateway: heard
            for gateway, heard in self._heard.items()
            if now_s - heard.at_s <= STALE_AFTER_S
        }

    def take_demand(self) -> dict[str, Demand] | None:
        """The demand for each model that has some; None where no gateway lives to tell.

        What happened counts from the last call on.
        """
        demand = self.demand()
        if demand is None:
            return None
        self._counts.clear()
        return demand

    def demand(self) -> dict[str, Demand] | None:
        """As `take_demand`, but leaves the counts."""
        if not self._heard:
            return None
        found = {name: Demand(counts=counts) for name, counts in self._counts.items()}
        for heard in self._heard.values():
            for part in heard.report.models:
                found[part.model] = _with(found.get(part.model, Demand()), part, heard.at_s)
        return found

    def in_flight(self) -> dict[str, int]:
        """Requests that run in each engine."""
        running: Counter[str] = Counter()
        for heard in self._heard.values():
            for part in heard.report.models:
                running.update(part.in_flight)
        return dict(running)

    def lease(self, gateway_id: str, model: str, slots: int, *, looks_ahead: bool = True) -> int:
        """This gateway's share of one of the model's engines; as `split`."""
        requests = {g: heard.requests.get(model, 0) for g, heard in self._heard.items()}
        return split(slots, requests, looks_ahead=looks_ahead).get(gateway_id, 1)

    def quarantined(self, gateway_id: str) -> tuple[str, ...]:
        """Fingerprints that the other gateways lately put into quarantine."""
        return tuple(known_as for _, who, known_as in self._quarantined if who != gateway_id)

    def note_killed(self, engine_id: str, now_s: float) -> None:
        """Somebody killed an engine: it died of no request."""
        self._killed.setdefault(engine_id, now_s)

    def killed(self, now_s: float) -> tuple[str, ...]:
        """The engines that somebody killed lately."""
        if self._killed:
            since_s = now_s - KILLED_TOLD_S
            self._killed = {one: at_s for one, at_s in self._killed.items() if at_s >= since_s}
        return tuple(self._killed)


def _with(known: Demand, part: ModelDemand, heard_s: float) -> Demand:
    """A model's demand with one gateway's share; the order of gateways does not matter."""
    since, start_id = known.asked_since_s, known.start_id
    if part.queued:
        came = heard_s - min(part.oldest_wait_s, LONGEST_WAIT_S), part.start_id or ""
        if since is None or came < (since, start_id or ""):
            since, start_id = came[0], part.start_id
    tokens = part.queued_prompt_tokens if part.queued else 0
    if tokens is None:
        tokens = part.queued_tokens or None  # with the answers: too much is the better error
    return replace(
        known,
        queued=known.queued + part.queued,
        in_flight=known.in_flight + sum(part.in_flight.values()),
        queued_tokens=_sum(known.queued_tokens, tokens),
        prefill_tokens=known.prefill_tokens + part.prefill_tokens,
        asked_since_s=since,
        start_id=start_id,
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
