"""What is earned and spent, and what would cost less: every figure by hand."""

from decimal import Decimal

import pytest

from serving.controller.cost_report import Sold, report
from serving.controller.cost_rivals import rivals
from serving.controller.fleet_hours import FleetMeter, Row, Use, shape_of
from serving.controller.moment import Moment
from serving.costs import Trial
from serving.identities import TokenPrice
from serving.money import picodollars
from serving.prices import Capacity, GpuPrice, PriceBook
from tests.serving.controller.world import manifest

HOUR_MS = 3_600_000
GPUS = {"accelerator": "h100", "gpus": 2}


def row(model: str, hours: int, busy: int, **more: object) -> Row:
    fields: dict[str, object] = {"accelerator": "h100", "capacity": Capacity.ON_DEMAND, **more}
    return Row(hour=0, model=model, held_ms=hours * HOUR_MS, busy_ms=busy * HOUR_MS, **fields)  # type: ignore[arg-type]


def sold(model: str, prompt: int, cached: int, completion: int) -> Sold:
    return Sold(0.0, "proj-a", model, "default", 3, prompt, cached, completion)


def test_report_adds_up_to_the_last_picodollar() -> None:
    price = TokenPrice(price_id="p", model="guide", input=100_000, cached=25_000, output=400_000)
    told = report(
        0, 86_400, [sold("guide", 1_000_003, 3, 7), sold("free", 10, 0, 10)],
        [row("guide", 48, 12), row("", 10, 0)], PriceBook([price]), {},
    )  # fmt: skip
    guide = told.models[0]
    revenue = 1_000_000 * 100_000 + 3 * 25_000 + 7 * 400_000
    assert Decimal(guide.revenue) == Decimal(revenue).scaleb(-12)
    assert Decimal(guide.gpu_cost) == 48 * Decimal("2.39")
    assert guide.busy_share == 0.25
    assert Decimal(told.gpu_cost) == 58 * Decimal("2.39")
    assert Decimal(told.free_cost) == 10 * Decimal("2.39")
    assert told.idle_share == round(1 - 12 / 58, 4)
    per_million = Decimal(guide.cost_per_million_tokens or 0)
    assert abs(per_million - Decimal("114.72") / Decimal("1.00001")) < Decimal("1e-11")
    assert told.unpriced == ["free"]


def test_accelerator_without_a_price_is_named_and_costs_nothing_yet() -> None:
    told = report(0, 3600, [], [row("guide", 1, 1, accelerator="b300")], PriceBook(), {})
    assert told.unpriced == ["b300 on-demand"]
    assert told.gpu_cost == "0"


def test_recommendations_show_their_arithmetic() -> None:
    deployed = manifest(resources=GPUS, scaling={"min": 1, "max": 2, "idle_timeout_s": 660.0})
    fleet = [row("guide", 48, 12, sleeps=6), row("", 10, 0)]
    told = report(0, 86_400, [], fleet, PriceBook(), {"guide": deployed})
    advice = {one.kind: one for one in told.recommendations}
    assert set(advice) == {"lower_min", "shorter_idle", "spot", "free_hosts"}
    # 36 idle hours, of the 1 x 2 accelerators x 24 h that min holds up: all 36 at 2.39.
    assert Decimal(advice["lower_min"].saves_per_day) == 36 * Decimal("2.39")
    assert "min 1 -> 0" in advice["lower_min"].arithmetic
    # 6 sleeps x 2 accelerators x 600 s = 2 h.
    assert Decimal(advice["shorter_idle"].saves_per_day) == 2 * Decimal("2.39")
    # Half of 48 h, at 60 % less.
    assert Decimal(advice["spot"].saves_per_day) == 24 * Decimal("2.39") * Decimal("0.6")
    assert Decimal(advice["free_hosts"].saves_per_day) == 10 * Decimal("2.39")
    assert "= $23.90 a day" in advice["free_hosts"].arithmetic


def test_other_accelerator_is_advised_where_the_planner_says_that_it_is_cheaper() -> None:
    deployed = manifest(
        name="big", source="hf://Qwen/Qwen3-32B", scaling={"max": 2}, engine={"max_num_seqs": 16},
        resources={"accelerator": "a100", "gpus": 2, "tensor_parallel": 2},
    )  # fmt: skip

    def gpu(name: str, dollars: str) -> GpuPrice:
        return GpuPrice(price_id=name, accelerator=name, capacity=Capacity.ON_DEMAND,
                        per_hour=picodollars(dollars))  # fmt: skip

    book = PriceBook((), [gpu("a100", "2.00"), gpu("h200", "3.00"), gpu("l40s", "50")])
    found = {one.accelerator: one for one in rivals(deployed, book, 0.0)}
    assert found.keys() >= {"h100", "h200"}, "those that have a price, and room for the model"
    assert found.keys().isdisjoint({"a100", "b200", "cpu"})
    h200 = found["h200"]
    assert h200.gpus == 1
    assert h200.step_factor == pytest.approx(h200.then.token_s(8) / h200.now.token_s(8))
    fleet = [row("big", 48, 40, accelerator="a100")]
    told = report(0, 86_400, [sold("big", 1500, 0, 600)], fleet, book, {"big": deployed},
                  {"big": [h200, found.get("l40s", h200)]})  # fmt: skip
    (advice,) = [one for one in told.recommendations if one.kind == "accelerator"]
    factor = Decimal(f"{h200.work_factor(500, 200):.3f}")  # three requests
    hours = 48 * factor * h200.gpus / 2
    saves = 48 * Decimal("2.00") - hours * Decimal("3.00")
    assert abs(Decimal(advice.saves_per_day) - saves) < Decimal("0.0001")
    assert f"1 x h200 in the place of 2 x a100: an engine needs {factor} times" in advice.arithmetic
    assert advice.trial is not None
    assert (advice.trial.engine_hour, advice.trial.engine_hour_then) == ("4", "3")


def test_only_a_model_on_accelerators_whose_shape_is_known_has_rivals() -> None:
    book = PriceBook()
    one = {"accelerator": "a100", "gpus": 1}
    assert rivals(manifest(), book, 0.0) == []
    assert rivals(manifest(source="hf://nobody/knows", resources=one), book, 0.0) == []


def test_advice_says_what_to_replay() -> None:
    deployed = manifest(resources=GPUS, scaling={"min": 1, "max": 2, "idle_timeout_s": 660.0})
    told = report(0, 86_400, [], [row("guide", 48, 12, sleeps=6)], PriceBook(), {"guide": deployed})
    trials = {one.kind: one.trial for one in told.recommendations}
    assert trials["lower_min"] == Trial(engine_hour="4.78", engine_hour_then="4.78", min=0)
    assert trials["shorter_idle"] == Trial(
        engine_hour="4.78", engine_hour_then="4.78", idle_timeout_s=60.0
    )
    # Half of the hours at 40 %: 70 % of the price.
    assert trials["spot"] == Trial(engine_hour="4.78", engine_hour_then="3.346", reclaimed=0.5)


def test_cheap_or_deleted_models_get_no_advice() -> None:
    on_cpu = [row("guide", 48, 0, accelerator="cpu")]
    deployed = {"guide": manifest(scaling={"min": 1})}
    assert not report(0, 86_400, [], on_cpu, PriceBook(), deployed).recommendations
    gone = report(0, 86_400, [], [row("guide", 48, 0)], PriceBook(), {})
    assert not gone.recommendations


def test_meter_counts_what_hosts_are_used_for() -> None:
    meter = FleetMeter()
    uses = [Use("h1", "h100", 8, Capacity.SPOT, "guide", True),
            Use("h2", "cpu", 1, Capacity.ON_DEMAND, "", False)]  # fmt: skip
    for s in range(4):
        meter.observe(uses, Moment(s=float(s), at=3598.0 + s))
    asleep = [Use("h1", "h100", 8, Capacity.SPOT, "", False)]
    meter.observe(asleep, Moment(s=100.0, at=3700.0))  # after a pause that nobody saw
    rows = {(r.hour, r.model): r for r in meter.take()}
    assert (rows[0, "guide"].held_ms, rows[0, "guide"].busy_ms) == (8000, 8000)
    assert (rows[1, "guide"].held_ms, rows[1, "guide"].sleeps) == (16_000, 1)
    assert rows[1, ""].accelerator == "cpu"
    assert rows[1, ""].held_ms == 2000
    assert meter.take() == []
    meter.put_back(rows.values())
    assert {(r.hour, r.model): r for r in meter.take()} == rows


def test_pools_names_tell_their_accelerators() -> None:
    assert [shape_of(pool) for pool in ("h200x8", "cpu", "gb200x4", "mi300x", "l40s")] == [
        ("h200", 8), ("cpu", 1), ("gb200", 4), ("mi300x", 1), ("l40s", 1),
    ]  # fmt: skip
