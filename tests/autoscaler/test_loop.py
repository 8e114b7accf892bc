"""The policy's memories."""

from autoscaler.loop import Autoscaler
from autoscaler.snapshot import Snapshot, Spec

SPEC = Spec(min=0, max=3, idle_timeout_s=10.0)


def quiet(at_s: float, queued: int = 0) -> Snapshot:
    return Snapshot(at_s=at_s, ready=0, starting=0, queued=queued, in_flight=0)


def test_autoscaler_keeps_models_apart() -> None:
    scaler = Autoscaler()
    assert scaler.decide("a", quiet(0.0, queued=1), SPEC).target == 3
    assert scaler.decide("b", quiet(0.0), SPEC).target == 0
    assert scaler.decide("a", quiet(1.0), SPEC).target == 3


def test_autoscaler_keeps_engines_that_were_found_running_for_one_idle_time() -> None:
    scaler = Autoscaler()
    scaler.found_running("a", 1, 100.0)
    assert scaler.decide("a", quiet(109.0), SPEC).target == 1
    scaler.found_running("a", 2, 109.0)
    assert scaler.decide("a", quiet(118.0), SPEC).target == 2
    assert scaler.decide("a", quiet(119.0), SPEC).target == 0


def test_autoscaler_does_not_ask_back_for_an_engine_that_gave_way() -> None:
    scaler = Autoscaler()
    scaler.decide("a", quiet(0.0, queued=1), SPEC)
    scaler.gave_way("a", 1)
    scaler.gave_way("unknown", 1)
    assert scaler.decide("a", quiet(1.0), SPEC).target == 1
    assert scaler.decide("a", quiet(2.0, queued=1), SPEC).target == 3


def test_autoscaler_forgets_models_that_are_gone() -> None:
    scaler = Autoscaler()
    scaler.decide("a", quiet(0.0, queued=1), SPEC)
    scaler.keep_only({"b"})
    assert scaler.decide("a", quiet(1.0), SPEC).target == 0
