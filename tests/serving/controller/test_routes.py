"""Routes and their deltas."""

from serving.controller.routes import TOMBSTONES_MAX, RouteTable
from serving.protocol import ModelRoute, ModelState


def route(name: str, state: ModelState = ModelState.ASLEEP) -> ModelRoute:
    return ModelRoute(name=name, state=state, created=1)


def test_routes_are_whole_for_a_stranger_and_a_delta_for_a_follower() -> None:
    table = RouteTable(version=100)
    table.publish([route("a"), route("b")])
    assert table.since(0).full
    assert [m.name for m in table.since(0).models] == ["a", "b"]
    table.publish([route("a"), route("b", ModelState.READY)])
    delta = table.since(101)
    assert (delta.version, delta.full, [m.name for m in delta.models]) == (102, False, ["b"])
    assert table.since(102).models == ()
    assert [m.name for m in table.since(100).models] == ["a", "b"]


def test_routes_keep_their_version_where_nothing_changed() -> None:
    table = RouteTable(version=100)
    assert table.publish([route("a")]) == {"a"}
    assert table.publish([route("a")]) == set()
    assert table.changes.version == 101


def test_routes_tell_of_models_that_went_and_came_back() -> None:
    table = RouteTable(version=100)
    table.publish([route("a"), route("b")])
    table.publish([route("a")])
    assert table.since(101).removed == ("b",)
    table.publish([route("a"), route("b")])
    assert (table.since(101).removed, len(table.since(101).models)) == ((), 1)


def test_routes_are_whole_for_a_version_of_another_life() -> None:
    table = RouteTable(version=100)
    table.publish([route("a")])
    assert table.since(99).full
    assert table.since(500).full


def test_routes_forget_old_removals_by_sending_the_whole_table() -> None:
    table = RouteTable(version=0)
    table.publish([route(f"m{i}") for i in range(TOMBSTONES_MAX + 2)])
    for left in (1, 0):
        table.publish([route(f"m{i}") for i in range(left)])
    assert table.since(1).full
    assert len(table.since(2).removed) <= TOMBSTONES_MAX
