"""The waiting line: order, classes, bounds and ages."""

import pytest

from models.errors import QueueFullError
from serving.gateway.queue import FLEX_AGES_S, WaitingLine
from serving.gateway.tickets import Ticket, Tier, tier_of


def ticket(
    name: str,
    tenant: str = "org",
    tokens: int = 100,
    arrived_s: float = 0.0,
    tier: Tier = Tier.DEFAULT,
    weight: float = 1.0,
) -> Ticket:
    return Ticket(
        name, arrived_s=arrived_s, deadline_s=arrived_s + 10, tenant=tenant, prompt_tokens=tokens,
        tier=tier, weight=weight,
    )  # fmt: skip


def line(max_queued: int = 1000, max_tokens: int = 10**6) -> WaitingLine[Ticket]:
    return WaitingLine(max_queued, max_tokens)


def join(one: WaitingLine[Ticket], *tickets: Ticket, now_s: float = 0.0) -> None:
    for each in tickets:
        assert one.join(each, now_s) == []


def names(one: WaitingLine[Ticket], now_s: float = 0.0, count: int = 10**6) -> list[str]:
    """Serves so many and says whom."""
    out: list[str] = []
    while len(out) < count and (head := one.first(now_s)) is not None:
        out.append(head.start_id)
        one.served(head, now_s)
    return out


def test_one_tenants_requests_are_served_in_the_order_of_arrival() -> None:
    one = line()
    join(one, *map(ticket, "abc"))
    assert names(one) == ["a", "b", "c"]


def test_tenants_take_turns_however_many_requests_one_of_them_has() -> None:
    one = line()
    join(one, *(ticket(f"a{i}", "a") for i in range(4)), ticket("b0", "b"), ticket("b1", "b"))
    assert names(one) == ["a0", "b0", "a1", "b1", "a2", "a3"]


def test_turns_are_counted_in_tokens() -> None:
    one = line()
    join(one, *(ticket(f"a{i}", "a", tokens=300) for i in range(2)))
    join(one, *(ticket(f"b{i}", "b", tokens=100) for i in range(6)))
    assert names(one) == ["a0", "b0", "b1", "b2", "a1", "b3", "b4", "b5"]


def test_heavier_tenant_is_served_more() -> None:
    one = line()
    join(one, *(ticket(f"a{i}", "a", weight=2.0) for i in range(8)))
    join(one, *(ticket(f"b{i}", "b") for i in range(8)))
    served = names(one, count=6)
    assert [name[0] for name in served].count("a") == 4


def test_what_an_answer_really_took_is_corrected() -> None:
    one = line()
    long = ticket("long", "a")
    join(one, long, ticket("a1", "a"), ticket("b0", "b"), ticket("b1", "b"), ticket("b2", "b"))
    assert names(one, count=1) == ["long"]
    one.charge(long, 150)
    assert names(one) == ["b0", "b1", "b2", "a1"]


def test_priority_goes_before_default_and_flex_gets_the_least_but_something() -> None:
    one = line()
    for tier in Tier:
        join(one, *(ticket(f"{tier}{i}", f"of-{tier}", tier=tier) for i in range(100)))
    served = "".join(name[0] for name in names(one, count=63))
    assert (served.count("p"), served.count("d"), served.count("f")) == (48, 12, 3)


def test_flex_request_ages_into_a_default_one() -> None:
    one = line()
    join(one, *(ticket(f"d{i}", "a") for i in range(100)))
    join(one, ticket("flex", "b", tokens=5000, tier=Tier.FLEX), ticket("f2", "b", tier=Tier.FLEX))
    assert names(one, count=5) == ["d0", "flex", "d1", "d2", "d3"]
    assert "f2" not in names(one, now_s=FLEX_AGES_S - 1, count=20)
    assert "f2" in names(one, now_s=FLEX_AGES_S, count=2)


@pytest.mark.parametrize(
    ("said", "tier"),
    [
        (None, Tier.DEFAULT), ("auto", Tier.DEFAULT), ("default", Tier.DEFAULT),
        ("flex", Tier.FLEX), ("priority", Tier.PRIORITY),
    ],
)  # fmt: skip
def test_service_tiers_of_openai_are_classes(said: str | None, tier: Tier) -> None:
    assert tier_of(said) is tier


def test_line_refuses_when_full_and_says_when_to_come_back() -> None:
    one = line(max_queued=1)
    join(one, ticket("a"))
    with pytest.raises(QueueFullError) as caught:
        one.join(ticket("b"), 0.0)
    assert caught.value.retry_after_s is not None
    assert len(one) == 1


def test_line_is_bounded_in_tokens_too_but_lets_a_lone_giant_in() -> None:
    one = line(max_tokens=1000)
    join(one, ticket("giant", tokens=5000))
    with pytest.raises(QueueFullError):
        one.join(ticket("b", tokens=1), 0.0)
    assert (one.tokens, one.prompt_tokens) == (5000, 5000)


def test_retry_after_follows_the_speed_of_the_line() -> None:
    one = line()
    join(one, *(ticket(f"{i}", tokens=1000) for i in range(10)))
    for second in range(40):
        one.served(ticket("past", "other", tokens=500), float(second))
    assert one.retry_after_s(39.0) == pytest.approx(10_000 / 500, rel=0.1)
    for _ in range(9):
        one.served(one.first(39.0) or ticket("none"), 39.0)
    assert one.retry_after_s(39.0) == 1.0  # one request is left, and the line is fast


def test_full_line_makes_room_for_a_tenant_with_less_than_its_share() -> None:
    one = line(max_queued=4)
    join(one, *(ticket(f"flood{i}", "flood") for i in range(4)))
    (gone,) = one.join(ticket("b", "calm"), 0.0)
    assert gone.start_id == "flood3"
    with pytest.raises(QueueFullError):
        one.join(ticket("flood4", "flood"), 0.0)
    (gone,) = one.join(ticket("b2", "calm"), 0.0)
    assert gone.start_id == "flood2"
    with pytest.raises(QueueFullError):
        one.join(ticket("b3", "calm"), 0.0)
    assert len(one) == 4


def test_request_that_lost_its_engine_comes_back_to_the_head_of_a_full_line() -> None:
    one = line(max_queued=1)
    join(one, ticket("a"))
    one.rejoin(ticket("retried"))
    assert names(one) == ["retried", "a"]


def test_request_on_trial_waits_apart_and_is_no_obstacle() -> None:
    one = line()
    tried = ticket("tried")
    tried.died.append("engine-1")
    one.rejoin(tried)
    assert one.is_clear
    assert one.first(0.0) is None
    assert one.first_on_trial() is tried
    join(one, ticket("a"))
    assert not one.is_clear
    one.served(tried, 0.0)
    assert names(one) == ["a"]


def test_leaving_frees_the_place_at_once_and_twice_is_harmless() -> None:
    one = line(max_queued=2)
    first, second = ticket("a"), ticket("b")
    join(one, first, second)
    one.leave(first)
    one.leave(first)
    join(one, ticket("c"))
    assert names(one) == ["b", "c"]
    assert (one.tokens, one.prompt_tokens, len(one)) == (0, 0, 0)


def test_oldest_wait_is_that_of_whoever_came_first() -> None:
    one = line()
    assert one.oldest_wait_s(now_s=9.0) == 0.0
    join(one, ticket("a", arrived_s=1.0), ticket("b", "other", arrived_s=5.0))
    assert one.oldest_wait_s(now_s=9.0) == 8.0
    one.rejoin(ticket("old", arrived_s=0.0))
    assert one.oldest_wait_s(now_s=9.0) == 9.0


def test_depth_and_age_are_told_by_class() -> None:
    one = line()
    assert set(one.by_tier(now_s=9.0).values()) == {(0, 0.0)}
    join(one, ticket("a", arrived_s=1.0), ticket("b", "other", arrived_s=5.0))
    join(one, ticket("c", arrived_s=7.0, tier=Tier.FLEX))
    one.rejoin(ticket("old", arrived_s=0.0, tier=Tier.PRIORITY))
    assert one.by_tier(now_s=9.0) == {
        Tier.PRIORITY: (1, 9.0), Tier.DEFAULT: (2, 8.0), Tier.FLEX: (1, 2.0),
    }  # fmt: skip
    assert names(one, now_s=9.0, count=1) == ["old"]
    assert one.first(now_s=30.0) is not None  # flex has aged
    assert one.by_tier(now_s=30.0)[Tier.DEFAULT] == (3, 29.0)


def test_clearing_names_everybody_who_waited() -> None:
    one = line()
    waiting = [ticket("a"), ticket("b", "other")]
    join(one, *waiting)
    assert one.clear() == waiting
    assert len(one) == 0
    assert one.is_clear
