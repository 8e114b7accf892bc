"""Slots split among gateways."""

from hypothesis import given
from hypothesis import strategies as st

from serving.controller.leases import capacity, split


def test_split_gives_one_gateway_everything_and_the_look_ahead() -> None:
    assert split(64, {"a": 0}) == {"a": 72}
    assert split(1, {"a": 5}) == {"a": 3}


def test_split_follows_demand() -> None:
    assert split(62, {"a": 30, "b": 10, "c": 0}) == {"a": 50, "b": 18, "c": 1}


def test_split_is_even_where_demand_is() -> None:
    assert split(8, {"a": 3, "b": 3}) == {"a": 5, "b": 5}
    assert split(9, {"a": 0, "b": 0}) == {"a": 6, "b": 5}
    assert split(8, {}) == {}


@given(st.integers(1, 4096), st.dictionaries(st.text(max_size=3), st.integers(0, 10_000)))
def test_split_gives_each_its_slot_and_all_together_little_more(
    slots: int, demand: dict[str, int]
) -> None:
    shares = split(slots, demand)
    assert shares.keys() == demand.keys()
    assert all(share >= 1 for share in shares.values())
    assert sum(shares.values()) <= capacity(slots) + len(demand)
    if demand:
        assert sum(shares.values()) >= capacity(slots)
    for one, its in demand.items():
        for other, theirs in demand.items():
            assert its > theirs or shares[one] <= shares[other] + 1


def test_split_of_an_engine_without_a_queue_looks_not_ahead() -> None:
    assert split(1, {"a": 5}, looks_ahead=False) == {"a": 1}
    assert split(4, {"a": 3, "b": 0}, looks_ahead=False) == {"a": 3, "b": 1}
