"""Who leads: the decision, and a leader's own account of its lease."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.controller.leader import POLL_S, Lease, Take, Tenure, Wait, decide

FREE = Lease(holder="", url="", token=0, expires_at=0.0)
HELD = Lease(holder="a", url="http://a", token=7, expires_at=100.0)


def test_lease_that_nobody_ever_had_is_taken() -> None:
    assert decide(FREE, 50.0) == Take(0)


def test_lease_is_left_alone_while_it_runs_and_taken_once_it_has_run_out() -> None:
    assert decide(HELD, 90.0) == Wait(POLL_S)
    assert decide(HELD, 99.9) == Wait(pytest.approx(0.1))
    assert decide(HELD, 100.0) == Take(7)


def test_lease_that_was_given_back_is_taken_at_once() -> None:
    assert decide(Lease("a", "http://a", 7, expires_at=0.0), 50.0) == Take(7)


def test_tenure_ends_before_the_database_lets_another_begin() -> None:
    tenure = Tenure(token=7, lease_s=3.0, asked_s=10.0)
    assert tenure.holds(12.6)
    assert not tenure.holds(12.8)
    assert tenure.renewed(12.0).holds(14.0)


@given(
    asked_s=st.floats(0, 1e6),
    way_s=st.floats(0, 100),
    lease_s=st.floats(1, 60),
    drift=st.floats(0.95, 1.05),
    after_s=st.floats(0, 200),
)
def test_nobody_takes_a_lease_that_its_leader_still_counts_on(
    asked_s: float, way_s: float, lease_s: float, drift: float, after_s: float
) -> None:
    """The database is asked at `asked_s`, hears it `way_s` later, and its clock runs by `drift`."""
    tenure = Tenure(1, lease_s, asked_s)
    heard = 1e9 + way_s * drift
    lease = Lease("a", "http://a", 1, heard + lease_s)
    now = 1e9 + after_s * drift
    if tenure.holds(asked_s + after_s):
        assert isinstance(decide(lease, now), Wait)
