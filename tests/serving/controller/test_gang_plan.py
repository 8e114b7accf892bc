"""Plans in which engines of some models need several hosts."""

from hypothesis import given
from hypothesis import strategies as st

from serving.controller.gang_plan import GangPlan, plan_with_gangs
from serving.controller.placement import (
    Bind,
    Life,
    SeenEngine,
    SeenHost,
    Unbind,
    UnbindReason,
    WantedModel,
)

NOW = 100.0
BIG = {"big": 2}


def wants(name: str, target: int = 1, **fields: object) -> WantedModel:
    values = {"asked_since_s": 90.0, **fields}
    return WantedModel(name, revision=1, pool="cpu", target=target, **values)  # type: ignore[arg-type]


def idle(name: str, **fields: object) -> WantedModel:
    return wants(name, **{"asked_since_s": None, "idle_s": 60.0, **fields})


def free(*names: str) -> list[SeenHost]:
    return [SeenHost(name, "cpu", since=float(n)) for n, name in enumerate(names)]


def runs(name: str, model: str, **fields: object) -> SeenHost:
    return SeenHost(name, "cpu", SeenEngine(f"e-{name}", model, 1, Life.READY, **fields))  # type: ignore[arg-type]


def bound(plan: GangPlan) -> dict[str, tuple[str, ...]]:
    """Each model that gets hosts, and which: the first one first."""
    found: dict[str, tuple[str, ...]] = {}
    for action in plan.plan.actions:
        if isinstance(action, Bind):
            hosts = (action.host_id, *plan.further.get(action.host_id, ()))
            found[action.model] = (*found.get(action.model, ()), *hosts)
    return found


def ended(plan: GangPlan) -> set[str]:
    return {a.host_id for a in plan.plan.actions if isinstance(a, Unbind)}


def test_gang_takes_as_many_hosts_as_it_needs_and_leaves_the_rest() -> None:
    plan = plan_with_gangs([wants("big"), wants("small")], free("a", "b", "c"), BIG, NOW)
    assert bound(plan) == {"big": ("a", "b"), "small": ("c",)}


def test_gang_goes_first_among_equals_and_not_before_a_higher_priority() -> None:
    models = [wants("big"), wants("small")]
    assert bound(plan_with_gangs(models, free("a", "b"), BIG, NOW)) == {"big": ("a", "b")}
    models = [wants("big"), wants("small", priority=1)]
    assert bound(plan_with_gangs(models, free("a", "b"), BIG, NOW)) == {"small": ("a",)}


def test_gang_that_lacks_a_host_binds_none_and_others_go_on() -> None:
    plan = plan_with_gangs([wants("big"), wants("small")], free("a"), BIG, NOW)
    assert bound(plan) == {"small": ("a",)}
    assert plan.plan.waiting == {"big"}


def test_free_host_is_kept_for_a_gang_while_the_other_one_drains() -> None:
    hosts = [*free("a"), SeenHost("b", "cpu", draining=True)]
    plan = plan_with_gangs([wants("big"), wants("small")], hosts, BIG, NOW)
    assert bound(plan) == {}


def test_gang_after_a_failed_start_keeps_nothing_until_its_retry() -> None:
    models = [wants("big", retry_at_s=NOW + 1), wants("small")]
    assert bound(plan_with_gangs(models, free("a", "b"), BIG, NOW)) == {"small": ("a",)}


def test_running_gang_is_one_engine() -> None:
    hosts = [runs("a", "big"), *free("c", "d")]
    assert plan_with_gangs([wants("big")], hosts, BIG, NOW).plan.actions == ()
    surplus = plan_with_gangs([wants("big", target=0)], hosts, BIG, NOW)
    assert surplus.plan.actions == (Unbind("a", "e-a", "big", UnbindReason.SURPLUS),)


def test_gang_takes_idle_engines_hosts_only_where_they_are_enough() -> None:
    hosts = [runs("a", "one"), runs("b", "two")]
    assert ended(plan_with_gangs([wants("big"), idle("one"), idle("two")], hosts, BIG, NOW)) == {
        "a",
        "b",
    }
    busy = wants("two", asked_since_s=None)
    assert ended(plan_with_gangs([wants("big"), idle("one"), busy], hosts, BIG, NOW)) == set()
    kept = idle("two", min=1)
    assert ended(plan_with_gangs([wants("big"), idle("one"), kept], hosts, BIG, NOW)) == set()


def test_idle_gang_gives_way_to_a_model_that_has_no_engine() -> None:
    hosts = [runs("a", "big")]
    assert ended(plan_with_gangs([idle("big"), wants("small")], hosts, BIG, NOW)) == {"a"}
    busy = wants("big", asked_since_s=None)
    assert ended(plan_with_gangs([busy, wants("small")], hosts, BIG, NOW)) == set()


def test_nobody_gives_way_while_hosts_drain_for_the_gang() -> None:
    hosts = [runs("a", "one"), *(SeenHost(n, "cpu", draining=True) for n in ("b", "c"))]
    assert ended(plan_with_gangs([wants("big"), idle("one")], hosts, BIG, NOW)) == set()


@given(
    hosts=st.integers(0, 7),
    sizes=st.dictionaries(st.sampled_from("abc"), st.integers(2, 4)),
    targets=st.tuples(*[st.integers(0, 3)] * 3),
    priorities=st.tuples(*[st.integers(0, 2)] * 3),
)
def test_plan_gives_each_host_away_once_and_gangs_all_or_none(
    hosts: int, sizes: dict[str, int], targets: tuple[int, ...], priorities: tuple[int, ...]
) -> None:
    models = [
        wants(name, target=target, priority=priority)
        for name, target, priority in zip("abc", targets, priorities, strict=True)
    ]
    plan = plan_with_gangs(models, free(*(f"h{n}" for n in range(hosts))), sizes, NOW)
    taken = bound(plan)
    everyone = [host for found in taken.values() for host in found]
    assert len(everyone) == len(set(everyone)) <= hosts
    for name, target in zip("abc", targets, strict=True):
        found = taken.get(name, ())
        assert len(found) % sizes.get(name, 1) == 0
        assert len(found) <= target * sizes.get(name, 1)
