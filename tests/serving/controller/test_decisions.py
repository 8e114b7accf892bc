"""The record of changed targets: only changes, the last ones, by model."""

from autoscaler.snapshot import Decision, Reason, Snapshot
from serving.controller.decisions import KEPT, Decisions

SEEN = Snapshot(at_s=0.0, ready=0, starting=0, queued=1, in_flight=0)


def decision(target: int) -> Decision:
    return Decision(target=target, reason=Reason.DEMAND, idle_s=0.0)


def test_only_a_changed_target_is_kept() -> None:
    decisions = Decisions()
    decisions.note("guide", 1.0, None, decision(0), SEEN)
    decisions.note("guide", 2.0, 0, decision(2), SEEN)
    decisions.note("guide", 3.0, 2, decision(2), SEEN)
    (change,) = decisions.of("guide")
    assert (change.at, change.before, change.decision.target) == (2.0, 0, 2)


def test_first_target_counts_from_zero() -> None:
    decisions = Decisions()
    decisions.note("guide", 1.0, None, decision(1), SEEN)
    assert [change.before for change in decisions.of("guide")] == [0]


def test_old_changes_and_other_models_go() -> None:
    decisions = Decisions()
    for number in range(KEPT + 5):
        decisions.note("guide", float(number), number, decision(number + 1), SEEN)
    decisions.note("gone", 0.0, 0, decision(1), SEEN)
    decisions.keep_only({"guide"})
    assert [c.before for c in decisions.of("guide")] == list(range(5, KEPT + 5))
    assert decisions.of("gone") == []
