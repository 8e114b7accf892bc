"""The binder's plan as a story, with the reason beside each move."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from serving.controller.binder import LONG_IDLE_S, plan
from serving.controller.placement import (
    Bind,
    Life,
    Plan,
    SeenEngine,
    SeenHost,
    Unbind,
    UnbindReason,
    WantedModel,
)

READY, STARTING, DEAD = Life.READY, Life.STARTING, Life.DEAD


def host(
    name: str,
    model: str | None = None,
    life: Life = READY,
    *,
    revision: int = 1,
    in_flight: int = 0,
    draining: bool = False,
    pool: str = "cpu",
) -> SeenHost:
    engine = None
    if model is not None:
        engine = SeenEngine(f"eng-{name}", model, revision, life, in_flight)
    return SeenHost(name, pool, engine, draining)


def want(name: str, target: int, **more: object) -> WantedModel:
    values: dict[str, object] = {"revision": 1, "pool": "cpu", **more}
    return WantedModel(name=name, target=target, **values)  # type: ignore[arg-type]


def bind(on: str, model: str, revision: int = 1) -> Bind:
    return Bind(on, model, revision)


def unbind(on: str, model: str, reason: UnbindReason) -> Unbind:
    return Unbind(on, f"eng-{on}", model, reason)


def moves(planned: Plan) -> list[Bind | Unbind]:
    return list(planned.actions)


def test_plan_binds_a_free_host_for_a_model_that_wakes() -> None:
    assert moves(plan([want("a", 1)], [host("h1"), host("h2")], 0.0)) == [bind("h1", "a")]


def test_plan_is_empty_where_all_is_well() -> None:
    models = [want("a", 1), want("b", 0)]
    assert plan(models, [host("h1", "a"), host("h2")], 0.0) == Plan()
    assert plan(models, [host("h1", "a", STARTING), host("h2", draining=True)], 0.0) == Plan()


def test_plan_takes_hosts_of_the_right_pool_only() -> None:
    planned = plan([want("a", 1, pool="h200x1")], [host("h1"), host("g1", pool="h200x8")], 0.0)
    assert planned == Plan(waiting=frozenset({"a"}))


def test_plan_unbinds_the_engine_with_the_least_in_flight() -> None:
    hosts = [host("h1", "a", in_flight=3), host("h2", "a", in_flight=1), host("h3", "a", STARTING)]
    surplus = UnbindReason.SURPLUS
    assert moves(plan([want("a", 2)], hosts, 0.0)) == [unbind("h3", "a", surplus)]
    assert moves(plan([want("a", 1)], hosts, 0.0)) == [
        unbind("h3", "a", surplus),
        unbind("h2", "a", surplus),
    ]


def test_plan_unbinds_engines_of_deleted_models() -> None:
    planned = plan([], [host("h1", "gone", in_flight=9)], 0.0)
    assert moves(planned) == [unbind("h1", "gone", UnbindReason.DELETED)]


def test_plan_replaces_a_dead_engine_elsewhere_or_waits_for_its_host() -> None:
    dead = unbind("h1", "a", UnbindReason.DEAD)
    planned = plan([want("a", 1)], [host("h1", "a", DEAD), host("h2")], 0.0)
    assert moves(planned) == [dead, bind("h2", "a")]
    planned = plan([want("a", 1, asked_since_s=0.0)], [host("h1", "a", DEAD)], 0.0)
    assert planned == Plan((dead,), frozenset({"a"}))


def test_plan_waits_after_a_failed_start_and_avoids_its_host() -> None:
    model = want("a", 1, retry_at_s=5.0, avoid=frozenset({"h1"}))
    assert plan([model], [host("h1"), host("h2")], 4.9) == Plan()
    assert moves(plan([model], [host("h1"), host("h2")], 5.0)) == [bind("h2", "a")]
    assert moves(plan([model], [host("h1")], 5.0)) == [bind("h1", "a")]


def test_plan_serves_the_model_with_no_engine_first_then_the_oldest_demand() -> None:
    models = [
        want("greedy", 3, asked_since_s=1.0),
        want("late", 1, asked_since_s=3.0),
        want("early", 1, asked_since_s=2.0),
    ]
    planned = plan(models, [host("h1", "greedy"), host("h2"), host("h3")], 9.0)
    assert moves(planned) == [bind("h2", "early"), bind("h3", "late")]
    assert planned.waiting == {"greedy"}


def test_plan_serves_those_who_ask_before_those_who_linger() -> None:
    models = [want("lingers", 1, idle_s=9.0), want("asks", 1, asked_since_s=8.0)]
    assert moves(plan(models, [host("h1")], 9.0)) == [bind("h1", "asks")]


def test_plan_starts_the_new_revision_beside_the_old_one() -> None:
    model = want("a", 1, revision=2)
    assert moves(plan([model], [host("h1", "a"), host("h2")], 0.0)) == [bind("h2", "a", 2)]
    both = [host("h1", "a"), host("h2", "a", STARTING, revision=2)]
    assert plan([model], both, 0.0) == Plan()
    ready = [host("h1", "a", in_flight=4), host("h2", "a", revision=2)]
    assert moves(plan([model], ready, 0.0)) == [unbind("h1", "a", UnbindReason.OLD_REVISION)]


def test_plan_drains_one_old_engine_at_a_time_where_no_host_is_free() -> None:
    model = want("a", 2, revision=2)
    old = unbind("h1", "a", UnbindReason.OLD_REVISION)
    assert moves(plan([model], [host("h1", "a"), host("h2", "a", in_flight=1)], 0.0)) == [old]
    draining = [host("h1", draining=True), host("h2", "a")]
    assert moves(plan([model], draining, 0.0)) == []
    starting = [host("h1", "a", STARTING, revision=2), host("h2", "a")]
    assert moves(plan([model], starting, 0.0)) == []


def test_plan_keeps_the_old_revision_while_the_new_one_does_not_start() -> None:
    model = want("a", 2, revision=2, retry_at_s=60.0)
    hosts = [host("h1", "a", DEAD, revision=2), host("h2", "a")]
    assert moves(plan([model], hosts, 1.0)) == [unbind("h1", "a", UnbindReason.DEAD)]


def test_plan_restarts_nothing_where_only_scaling_changed() -> None:
    model = want("a", 1, revision=2, same_engine=frozenset({1}))
    assert plan([model], [host("h1", "a", revision=1), host("h2")], 0.0) == Plan()


def test_plan_lets_an_idle_engine_give_way_to_a_model_that_waits() -> None:
    waits = want("waits", 1, asked_since_s=1.0)
    gives_way = unbind("h1", "idles", UnbindReason.GIVES_WAY)
    hosts = [host("h1", "idles")]
    assert plan([waits, want("idles", 1, idle_s=9.0)], hosts, 2.0) == Plan(
        (gives_way,), frozenset({"waits"})
    )
    # Not one that works, not the last of a minimum, and not a second time for the same need.
    assert moves(plan([waits, want("idles", 1)], hosts, 2.0)) == []
    assert moves(plan([waits, want("idles", 1, idle_s=9.0, min=1)], hosts, 2.0)) == []
    coming = [host("h1", "idles"), host("h2", draining=True)]
    assert moves(plan([waits, want("idles", 1, idle_s=9.0)], coming, 2.0)) == []


def test_plan_has_the_model_give_way_that_was_idle_for_the_longest_time() -> None:
    models = [
        want("waits", 1, asked_since_s=1.0),
        want("fresh", 1, idle_s=3.0),
        want("stale", 1, idle_s=30.0),
    ]
    hosts = [host("h1", "fresh"), host("h2", "stale")]
    planned = plan(models, hosts, 2.0)
    assert moves(planned) == [unbind("h2", "stale", UnbindReason.GIVES_WAY)]


def test_plan_takes_no_host_from_others_for_a_second_engine() -> None:
    models = [want("a", 2, asked_since_s=1.0), want("idles", 1, idle_s=9.0)]
    assert moves(plan(models, [host("h1", "a"), host("h2", "idles")], 2.0)) == []


def test_plan_takes_no_host_from_others_where_nobody_asks() -> None:
    models = [want("a", 1, idle_s=9.0), want("idles", 1, idle_s=9.0)]
    assert moves(plan(models, [host("h1", "idles")], 2.0)) == []


def test_plan_takes_a_long_idle_engine_for_a_second_one_but_not_from_a_higher_priority() -> None:
    hosts = [host("h1", "a"), host("h2", "idles")]
    asks = want("a", 2, asked_since_s=1.0)
    taken = [unbind("h2", "idles", UnbindReason.GIVES_WAY)]
    assert moves(plan([asks, want("idles", 1, idle_s=LONG_IDLE_S)], hosts, 2.0)) == taken
    higher = want("idles", 1, idle_s=LONG_IDLE_S, priority=1)
    assert moves(plan([asks, higher], hosts, 2.0)) == []


def test_plan_gives_free_hosts_to_the_higher_priority_and_then_to_the_greater_need() -> None:
    models = [
        want("low", 4, asked_since_s=1.0),
        want("high", 2, asked_since_s=5.0, priority=1),
        want("needy", 8, asked_since_s=5.0),
    ]
    hosts = [
        host("h1", "low"), host("h2", "high"), host("h3", "needy"), host("h4"), host("h5"),
    ]  # fmt: skip
    assert moves(plan(models, hosts, 9.0)) == [bind("h4", "high"), bind("h5", "needy")]


def test_plan_serves_a_minimum_before_everything_else() -> None:
    models = [want("asks", 1, asked_since_s=1.0, priority=9), want("kept", 1, min=1, idle_s=99.0)]
    assert moves(plan(models, [host("h1")], 9.0)) == [bind("h1", "kept")]


def test_plan_takes_from_a_lower_priority_what_is_above_its_minimum() -> None:
    hosts = [host("h1", "low", in_flight=2), host("h2", "low", in_flight=1), host("h3", "high")]
    high = want("high", 3, asked_since_s=1.0, priority=1)
    low = want("low", 2, min=1)
    # The one with less to lose; the other one is the minimum.
    assert moves(plan([high, low], hosts, 2.0)) == [unbind("h2", "low", UnbindReason.GIVES_WAY)]
    left = [host("h1", "low"), host("h2", "high"), host("h3", "high")]
    assert moves(plan([high, want("low", 1, min=1)], left, 2.0)) == []
    assert moves(plan([want("high", 3, asked_since_s=1.0), low], hosts, 2.0)) == []


def test_plan_takes_from_its_equals_for_a_first_engine_alone() -> None:
    hosts = [host("h1", "rich"), host("h2", "rich"), host("h3", "modest")]
    models = [want("rich", 2), want("modest", 1), want("none", 1, asked_since_s=1.0)]
    assert moves(plan(models, hosts, 2.0)) == [unbind("h1", "rich", UnbindReason.GIVES_WAY)]
    poor = [want("a", 1), want("b", 1), want("none", 1, asked_since_s=1.0)]
    assert moves(plan(poor, [host("h1", "a"), host("h2", "b")], 2.0)) == []


NAMES = ["a", "b", "c"]
POOLS = st.sampled_from(["cpu", "h200x1"])
models_strategy = st.lists(
    st.builds(
        WantedModel,
        name=st.sampled_from(NAMES),
        revision=st.integers(1, 3),
        pool=POOLS,
        target=st.integers(0, 4),
        min=st.integers(0, 2),
        priority=st.integers(-1, 1),
        same_engine=st.frozensets(st.integers(1, 3)),
        asked_since_s=st.one_of(st.none(), st.floats(0, 10)),
        idle_s=st.one_of(st.none(), st.floats(0, 99)),
        retry_at_s=st.one_of(st.none(), st.floats(0, 20)),
    ),
    unique_by=lambda model: model.name,
).map(
    lambda models: [
        # As the autoscaler gives them: a target is never below the minimum.
        WantedModel(
            name=m.name, revision=m.revision, pool=m.pool, target=max(m.target, m.min), min=m.min,
            same_engine=m.same_engine, asked_since_s=m.asked_since_s, idle_s=m.idle_s,
            retry_at_s=m.retry_at_s, priority=m.priority,
        )
        for m in models
    ]
)  # fmt: skip
engines_strategy = st.one_of(
    st.none(),
    st.builds(
        SeenEngine,
        engine_id=st.just("e"),
        model=st.sampled_from([*NAMES, "deleted"]),
        revision=st.integers(1, 3),
        life=st.sampled_from(Life),
        in_flight=st.integers(0, 5),
        bound_s=st.floats(0, 10),
    ),
)
hosts_strategy = st.lists(st.tuples(POOLS, engines_strategy, st.booleans()), max_size=8).map(
    lambda rows: [
        SeenHost(f"h{i}", pool, engine, draining and engine is None)
        for i, (pool, engine, draining) in enumerate(rows)
    ]
)


def carried_out(hosts: list[SeenHost], planned: Plan) -> list[SeenHost]:
    """The hosts after the plan, all engines ready, all drains over."""
    after = {h.host_id: SeenHost(h.host_id, h.pool, h.engine) for h in hosts}
    for action in planned.actions:
        pool = after[action.host_id].pool
        engine = None
        if isinstance(action, Bind):
            engine = SeenEngine("new", action.model, action.revision, READY)
        after[action.host_id] = SeenHost(action.host_id, pool, engine)
    return list(after.values())


@given(models_strategy, hosts_strategy)
def test_plan_binds_only_free_hosts_once_and_never_above_the_target(
    models: list[WantedModel], hosts: list[SeenHost]
) -> None:
    planned = plan(models, hosts, 10.0)
    by_name = {m.name: m for m in models}
    by_id = {h.host_id: h for h in hosts}
    bound = [a.host_id for a in planned.actions if isinstance(a, Bind)]
    assert len(bound) == len(set(bound))
    for action in planned.actions:
        seen = by_id[action.host_id]
        if isinstance(action, Bind):
            model = by_name[action.model]
            assert seen.engine is None
            assert not seen.draining
            assert (seen.pool, action.revision) == (model.pool, model.revision)
            assert model.retry_at_s is None or model.retry_at_s <= 10.0
    news = Counter(a.model for a in planned.actions if isinstance(a, Bind))
    for name, number in news.items():
        current = sum(
            h.engine is not None
            and h.engine.model == name
            and h.engine.life is not DEAD
            and by_name[name].is_current(h.engine)
            for h in hosts
        )
        assert current + number <= by_name[name].target


@given(models_strategy, hosts_strategy)
def test_plan_never_takes_a_minimum_away(models: list[WantedModel], hosts: list[SeenHost]) -> None:
    planned = plan(models, hosts, 10.0)
    for model in models:
        lives = [
            h.engine
            for h in hosts
            if h.engine is not None and h.engine.model == model.name and h.engine.life is not DEAD
        ]
        taken = [
            a
            for a in planned.actions
            if isinstance(a, Unbind) and a.model == model.name
            and a.reason in (UnbindReason.SURPLUS, UnbindReason.GIVES_WAY)
        ]  # fmt: skip
        if taken:
            assert len(lives) - len(taken) >= model.min


@given(models_strategy, hosts_strategy)
def test_plan_comes_to_rest(models: list[WantedModel], hosts: list[SeenHost]) -> None:
    """Carried out again and again, with everything it starts getting ready, it ends empty."""
    for _ in range(40):
        planned = plan(models, hosts, 10.0)
        hosts = carried_out(hosts, planned)
        # As the loop does: who gave way does not ask for it back.
        gave = {a.model for a in planned.actions
                if isinstance(a, Unbind) and a.reason is UnbindReason.GIVES_WAY}  # fmt: skip
        models = [m if m.name not in gave else _lowered(m, hosts) for m in models]
        if not planned.actions:
            return
    raise AssertionError("the plan never came to rest")


def _lowered(model: WantedModel, hosts: list[SeenHost]) -> WantedModel:
    have = sum(h.engine is not None and h.engine.model == model.name for h in hosts)
    return WantedModel(
        name=model.name, revision=model.revision, pool=model.pool, min=model.min,
        target=max(model.min, min(model.target, have)), same_engine=model.same_engine,
        asked_since_s=model.asked_since_s, idle_s=model.idle_s, retry_at_s=model.retry_at_s,
    )  # fmt: skip


def test_plan_wakes_a_sleeper_for_its_model_and_disturbs_another_last() -> None:
    mine = SeenHost("h3", "cpu", since=9.0, dozes=("a", 1))
    others = SeenHost("h1", "cpu", dozes=("b", 1))
    hosts = [others, host("h2"), mine]
    assert moves(plan([want("a", 1)], hosts, 0.0)) == [bind("h3", "a")]
    assert moves(plan([want("c", 1)], hosts, 0.0)) == [bind("h2", "c")]
    assert moves(plan([want("c", 1)], [others], 0.0)) == [bind("h1", "c")]
    old = SeenHost("h1", "cpu", dozes=("a", 1))
    changed = want("a", 1, revision=2)
    assert moves(plan([changed], [old, host("h2")], 0.0)) == [bind("h2", "a", 2)]
    rescaled = want("a", 1, revision=2, same_engine=frozenset({1}))
    assert moves(plan([rescaled], [old, host("h2")], 0.0)) == [bind("h1", "a", 2)]
