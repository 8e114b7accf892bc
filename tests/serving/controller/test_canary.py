"""A canary's way from step to step, without a controller around it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rollout_spec import CanarySpec, GateSpec
from serving.controller.canary import Canary, Figures, Verdict, advance, engines, percentile_s
from serving.protocol import RevisionCounts, bucket_end_s, bucket_of

SPEC = CanarySpec(steps=(5, 50, 100), step_s=60, min_requests=20)


def figures(
    answered: int = 100, failed: int = 0, ttft_s: float = 0.1, tpot_s: float = 0.01
) -> Figures:
    return Figures(answered, failed, {bucket_of(ttft_s): answered}, {bucket_of(tpot_s): answered})


def canary(old: Figures, new: Figures, **fields: object) -> Canary:
    return replace(Canary("m", 1, 2, old=old, new=new), **fields)  # type: ignore[arg-type]


def test_canary_grows_from_step_to_step_and_is_promoted_by_the_last() -> None:
    at_first = canary(figures(), figures())
    assert at_first.share(SPEC) == 0.05
    same, verdict, why = advance(at_first, SPEC, 59.0)
    assert (same, verdict) == (at_first, Verdict.STAYS)
    assert "1 s more" in why
    grown, verdict, _ = advance(at_first, SPEC, 60.0)
    assert verdict is Verdict.GROWS
    assert grown.share(SPEC) == 0.5
    assert (grown.new, grown.step_at) == (Figures(), 60.0)
    last = replace(grown, old=figures(), new=figures())
    assert advance(last, SPEC, 120.0)[1] is Verdict.PROMOTED


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (figures(15, 5), "25.0% of 20 attempts failed"),
        (figures(ttft_s=0.2), "TTFT p95 is"),
        (figures(tpot_s=0.02), "TPOT p95 is"),
    ],
)
def test_worse_revision_goes_before_the_step_is_over(new: Figures, said: str) -> None:
    _, verdict, why = advance(canary(figures(), new), SPEC, 1.0)
    assert verdict is Verdict.ROLLED_BACK
    assert said in why


def test_revision_as_bad_as_the_old_one_is_no_worse() -> None:
    bad = figures(80, 20, ttft_s=1.0)
    assert advance(canary(bad, bad), SPEC, 1.0)[1] is Verdict.STAYS


def test_revision_whose_engines_die_goes_however_few_requests_it_had() -> None:
    once = canary(figures(), Figures()).died(True)
    assert advance(once, SPEC, 1.0)[1] is Verdict.STAYS
    _, verdict, why = advance(once.died(True), SPEC, 1.0)
    assert verdict is Verdict.ROLLED_BACK
    assert why == "2 of its engines died, 0 of the old revision's"
    as_bad = once.died(True).died(False).died(False)
    assert advance(as_bad, SPEC, 1.0)[1] is Verdict.STAYS
    grown, _, _ = advance(replace(once, new=figures()), SPEC, 60.0)
    assert grown.new_deaths == 0


def test_few_requests_say_nothing() -> None:
    for old, new in ((figures(), figures(0, 19)), (figures(3), figures())):
        _, verdict, why = advance(canary(old, new), SPEC, 1e6)
        assert verdict is Verdict.STAYS
        assert "of 20 requests that a step takes" in why


def test_paused_canary_neither_grows_nor_goes() -> None:
    paused = canary(figures(), figures(0, 100), paused=True)
    assert advance(paused, SPEC, 1e6) == (paused, Verdict.STAYS, "paused")


def test_gate_may_leave_times_out() -> None:
    spec = SPEC.model_copy(update={"gate": GateSpec(ttft_p95=None, tpot_p95=None)})
    slow = figures(ttft_s=9.0, tpot_s=9.0)
    assert advance(canary(figures(), slow), spec, 60.0)[1] is Verdict.GROWS


def test_reports_of_gateways_add_up_by_revision() -> None:
    counts = RevisionCounts(revision=2, answered=3, failed=1, ttft={7: 2, 9: 1})
    heard = Canary("m", 1, 2).heard(True, counts).heard(True, counts).heard(False, counts)
    assert (heard.new.answered, heard.new.failed, heard.new.ttft) == (6, 2, {7: 4, 9: 2})
    assert heard.old.tried == 4


@given(st.integers(0, 200), st.floats(0.001, 0.999))
def test_both_revisions_have_engines_enough_for_their_shares(target: int, share: float) -> None:
    old, new = engines(target, share)
    assert old >= target * (1 - share) - 1e-6
    assert new >= target * share - 1e-6
    assert old + new <= target + 2
    assert (old > 0) is (new > 0) is (target > 0)


@given(st.floats(1e-6, 1e4))
def test_bucket_holds_its_time_within_a_twentieth(seconds: float) -> None:
    end_s = bucket_end_s(bucket_of(seconds))
    assert seconds <= end_s * (1 + 1e-9)
    assert end_s <= max(1e-4, seconds * 1.05 * (1 + 1e-9))


def test_percentile_is_the_end_of_its_bucket() -> None:
    assert percentile_s({3: 94, 10: 6}) == bucket_end_s(10)
    assert percentile_s({3: 95, 10: 5}) == bucket_end_s(3)
    assert percentile_s({}) == 0.0


@pytest.mark.parametrize("steps", [(50, 5, 100), (5, 25), (5, 5, 100), ()])
def test_steps_grow_and_end_with_everything(steps: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="steps"):
        CanarySpec(steps=steps)
