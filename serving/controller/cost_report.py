"""Adds revenue and cost up, and says what would cost less. Pure; money is whole picodollars."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType

from models.manifest import Manifest
from serving.controller.cost_rivals import Rival
from serving.controller.fleet_hours import HOUR_S, Row
from serving.costs import CostReport, ModelCost, Recommendation, Trial
from serving.money import MILLION, plain, shown
from serving.prices import Capacity, PriceBook, charge

HOUR_MS = 3_600_000
DAY_S = 86_400
LEAST_SAVING = 10**10
"""Picodollars a day, so a cent: less is no recommendation."""

SHORT_IDLE_S = 60.0
"""An idle timeout that a platform with starts of a second can afford."""

SPOT_SHARE = 50
"""Percent of a model's hours that a recommendation moves to spot capacity."""


@dataclass(frozen=True, slots=True)
class Sold:
    """Tokens of one model and tier that were sold at one price, or charged one by one."""

    at: float
    project_id: str
    model: str
    tier: str
    requests: int
    prompt: int
    cached: int
    completion: int
    charged: int | None = None
    """Picodollars that were charged when they were settled; None: the price book says."""


@dataclass(slots=True)
class _Sums:
    requests: int = 0
    prompt: int = 0
    completion: int = 0
    revenue: int = 0
    cost: int = 0
    held_ms: int = 0
    busy_ms: int = 0
    sleeps: int = 0
    on_demand_ms: int = 0
    on_demand_cost: int = 0
    spot_cost: int = 0
    accelerators: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Ledger:
    models: defaultdict[str, _Sums] = field(default_factory=lambda: defaultdict(_Sums))
    unpriced: set[str] = field(default_factory=set)


def cost_of_row(row: Row, book: PriceBook) -> int | None:
    """What an hour's accelerators cost; None where nobody set a price."""
    per_hour = book.gpu_hour(row.accelerator, row.capacity, row.hour * HOUR_S)
    return None if per_hour is None else per_hour * row.held_ms // HOUR_MS


def revenue_of(sold: Sold, book: PriceBook) -> int | None:
    """What tokens were sold for; None where nobody set a price."""
    if sold.charged is not None:
        return sold.charged
    price = book.token_price(sold.model, sold.tier, sold.at)
    if price is None:
        return None
    return charge(price, sold.prompt, min(sold.cached, sold.prompt), sold.completion)


def report(
    since: float,
    until: float,
    sales: Iterable[Sold],
    fleet: Iterable[Row],
    book: PriceBook,
    manifests: Mapping[str, Manifest],
    others: Mapping[str, Sequence[Rival]] = MappingProxyType({}),
) -> CostReport:
    """The report of a stretch of time.

    Args:
        since: Unix seconds, as `until`.
        until: The end.
        sales: What was sold.
        fleet: What accelerators were used for.
        book: What both cost.
        manifests: Of the models that are deployed now.
        others: Of these, what other accelerators would make of them.
    """
    ledger = _Ledger()
    for sold in sales:
        _sell(ledger, sold, book)
    for row in fleet:
        _hold(ledger, row, book)
    free = ledger.models.pop("", _Sums())
    sums = ledger.models
    all_held = free.held_ms + sum(s.held_ms for s in sums.values())
    all_busy = sum(s.busy_ms for s in sums.values())
    advice = [
        one
        for model, s in sorted(sums.items())
        for one in _advise(model, s, manifests.get(model), until - since, others.get(model, ()))
    ]
    advice += _advise_free(free, until - since)
    return CostReport(
        since=datetime.fromtimestamp(since, UTC),
        until=datetime.fromtimestamp(until, UTC),
        models=[_view(model, s) for model, s in sorted(sums.items(), key=lambda i: -i[1].cost)],
        free_hours=_hours(free.held_ms),
        free_cost=plain(free.cost),
        revenue=plain(sum(s.revenue for s in sums.values())),
        gpu_cost=plain(free.cost + sum(s.cost for s in sums.values())),
        idle_share=round(1 - all_busy / all_held, 4) if all_held else None,
        unpriced=sorted(ledger.unpriced),
        recommendations=advice,
    )


def _sell(ledger: _Ledger, sold: Sold, book: PriceBook) -> None:
    sums = ledger.models[sold.model]
    sums.requests += sold.requests
    sums.prompt += sold.prompt
    sums.completion += sold.completion
    revenue = revenue_of(sold, book)
    if revenue is None:
        ledger.unpriced.add(sold.model)
    sums.revenue += revenue or 0


def _hold(ledger: _Ledger, row: Row, book: PriceBook) -> None:
    sums = ledger.models[row.model]
    sums.accelerators.add(row.accelerator)
    sums.held_ms += row.held_ms
    sums.busy_ms += row.busy_ms
    sums.sleeps += row.sleeps
    cost = cost_of_row(row, book)
    if cost is None:
        ledger.unpriced.add(f"{row.accelerator} {row.capacity}")
        return
    sums.cost += cost
    if row.capacity is Capacity.ON_DEMAND:
        sums.on_demand_ms += row.held_ms
        sums.on_demand_cost += cost
        spot = book.gpu_hour(row.accelerator, Capacity.SPOT, row.hour * HOUR_S) or 0
        sums.spot_cost += spot * row.held_ms // HOUR_MS


def _view(model: str, sums: _Sums) -> ModelCost:
    tokens = sums.prompt + sums.completion
    return ModelCost(
        model=model,
        requests=sums.requests,
        prompt_tokens=sums.prompt,
        completion_tokens=sums.completion,
        revenue=plain(sums.revenue),
        accelerator_hours=_hours(sums.held_ms),
        busy_share=round(sums.busy_ms / sums.held_ms, 4) if sums.held_ms else None,
        gpu_cost=plain(sums.cost),
        cost_per_million_tokens=plain(sums.cost * MILLION // tokens) if tokens else None,
    )


def _advise(
    model: str,
    sums: _Sums,
    manifest: Manifest | None,
    span_s: float,
    others: Sequence[Rival],
) -> list[Recommendation]:
    if manifest is None or not sums.held_ms or span_s <= 0:
        return []
    found = []
    idle_ms = sums.held_ms - sums.busy_ms
    per_ms = Decimal(sums.cost) / sums.held_ms
    gpus = max(1, manifest.resources.gpus)
    engine_hour = plain(int(per_ms * HOUR_MS * gpus))
    same = Trial(engine_hour=engine_hour, engine_hour_then=engine_hour)
    floor_ms = round(manifest.scaling.min * gpus * span_s * 1000)
    if floor_ms and (wasted := min(idle_ms, floor_ms)):
        saves = _per_day(int(per_ms * wasted), span_s)
        text = (
            f"min {manifest.scaling.min} -> 0: of {_hours(sums.held_ms)} accelerator-hours "
            f"{_hours(idle_ms)} had no request, at most {_hours(floor_ms)} of them because of min; "
            f"{_hours(wasted)} h x {shown(int(per_ms * HOUR_MS))}/h in {span_s / 3600:.1f} h "
            f"= {shown(saves)} a day, for a cold start at the first request after a pause"
        )
        trial = same.model_copy(update={"min": 0})
        found.append(_advice("lower_min", model, saves, text, trial))
    idle_s = manifest.scaling.idle_timeout_s
    if sums.sleeps and idle_s > SHORT_IDLE_S:
        spared_ms = min(idle_ms, round(sums.sleeps * gpus * (idle_s - SHORT_IDLE_S) * 1000))
        saves = _per_day(int(per_ms * spared_ms), span_s)
        text = (
            f"idle_timeout_s {idle_s:g} -> {SHORT_IDLE_S:g}: {sums.sleeps} engines went down after "
            f"{idle_s:g} s without a request; {sums.sleeps} x {gpus} accelerators x "
            f"{idle_s - SHORT_IDLE_S:g} s = {_hours(spared_ms)} h x "
            f"{shown(int(per_ms * HOUR_MS))}/h in {span_s / 3600:.1f} h = {shown(saves)} a day; "
            "pauses shorter than the old timeout become cold starts"
        )
        trial = same.model_copy(update={"idle_timeout_s": SHORT_IDLE_S})
        found.append(_advice("shorter_idle", model, saves, text, trial))
    found += [_other(model, sums, gpus, one, span_s, engine_hour) for one in others]
    if sums.on_demand_ms and sums.spot_cost < sums.on_demand_cost:
        saved = (sums.on_demand_cost - sums.spot_cost) * SPOT_SHARE // 100
        saves = _per_day(saved, span_s)
        text = (
            f"{SPOT_SHARE} % of {_hours(sums.on_demand_ms)} on-demand hours on spot capacity: "
            f"({shown(sums.on_demand_cost)} - {shown(sums.spot_cost)}) x {SPOT_SHARE} % in "
            f"{span_s / 3600:.1f} h = {shown(saves)} a day; a reclaimed machine costs its requests "
            "a retry, so keep the other half"
        )
        per_hour = Decimal(sums.cost - saved) / sums.held_ms * HOUR_MS * gpus
        then = {"engine_hour_then": plain(int(per_hour)), "reclaimed": SPOT_SHARE / 100}
        found.append(_advice("spot", model, saves, text, same.model_copy(update=then)))
    return [one for one in found if one is not None]


def _other(
    model: str, sums: _Sums, gpus: int, other: Rival, span_s: float, engine_hour: str
) -> Recommendation | None:
    """Another accelerator: as many engine-hours, by how much faster its engines work."""
    requests = sums.requests
    if not requests:
        return None
    prompt, completion = sums.prompt / requests, sums.completion / requests
    if not prompt + completion:
        return None
    factor = Decimal(f"{other.work_factor(prompt, completion):.3f}")
    then_ms = int(sums.held_ms * factor * other.gpus / gpus)
    cost = other.per_hour * then_ms // HOUR_MS
    saves = _per_day(sums.cost - cost, span_s)
    text = (
        f"{other.gpus} x {other.accelerator} in the place of {gpus} x {_named(sums)}: an engine "
        f"needs {factor} times as long for requests of {prompt:.0f} prompt and {completion:.0f} "
        f"answer tokens, by the planner's formulas; {_hours(sums.held_ms)} h x {factor} x "
        f"{other.gpus} / {gpus} = {_hours(then_ms)} h x {shown(other.per_hour)}/h = {shown(cost)}, "
        f"not {shown(sums.cost)}, in {span_s / 3600:.1f} h = {shown(saves)} a day less; measure it "
        "before you move"
    )
    trial = Trial(
        engine_hour=engine_hour,
        engine_hour_then=plain(other.per_hour * other.gpus),
        slots=other.slots,
        prefill_factor=round(other.prefill_factor, 4),
        step_factor=round(other.step_factor, 4),
    )
    return _advice("accelerator", model, saves, text, trial)


def _named(sums: _Sums) -> str:
    return " and ".join(sorted(sums.accelerators))


def _advise_free(free: _Sums, span_s: float) -> list[Recommendation]:
    if not free.cost or span_s <= 0:
        return []
    saves = _per_day(free.cost, span_s)
    text = (
        f"hosts without an engine: {_hours(free.held_ms)} accelerator-hours = {shown(free.cost)} "
        f"in {span_s / 3600:.1f} h = {shown(saves)} a day; fewer hosts in the pool would save up "
        "to this, and each wake that finds none free then waits for a machine"
    )
    one = _advice("free_hosts", None, saves, text)
    return [] if one is None else [one]


def _advice(
    kind: str, model: str | None, saves: int, text: str, trial: Trial | None = None
) -> Recommendation | None:
    if saves < LEAST_SAVING:
        return None
    return Recommendation(
        kind=kind, model=model, saves_per_day=plain(saves), arithmetic=text, trial=trial
    )


def _per_day(saved: int, span_s: float) -> int:
    return int(saved * DAY_S / Decimal(span_s))


def _hours(ms: int) -> str:
    return f"{Decimal(ms) / HOUR_MS:.2f}"
