"""Slots kept free for calm tenants, and who counts as one."""

from serving.gateway.balancer import Balancer
from serving.gateway.desk import Desk
from serving.gateway.headroom import (
    ACTIVE_S,
    CROWD,
    CROWD_PREFILL,
    MAX_SHARE,
    SHARED_PREFILL,
    Headroom,
)
from serving.gateway.queue import WaitingLine
from serving.gateway.tickets import Ticket
from serving.protocol import EndpointRoute

SLOTS = 64


def flooded(calm: int = 1, flood: int = 40) -> Headroom:
    headroom = Headroom()
    for tenant, count in (("calm", calm), ("flood", flood)):
        for _ in range(count):
            headroom.took(tenant, 1.0, 0.0)
    return headroom


def test_lone_tenant_may_take_everything() -> None:
    headroom = flooded(calm=0)
    headroom.came("flood", 1.0, 1, SLOTS, 0.0)
    assert headroom.may_take("flood", 1, SLOTS)
    assert headroom.prefill_share("flood", 1000, 1000) == 1.0


def test_tenant_with_its_share_leaves_slots_free_and_a_calm_one_takes_them() -> None:
    headroom = flooded()
    headroom.came("calm", 1.0, 5, SLOTS, 0.0)
    assert not headroom.may_take("flood", 5, SLOTS)
    assert headroom.may_take("flood", SLOTS - 41, SLOTS)
    assert headroom.may_take("calm", 1, SLOTS)


def test_who_has_more_waiting_than_its_share_is_a_crowd() -> None:
    headroom = flooded()
    assert headroom.prefill_share("calm", 0, 1000) == SHARED_PREFILL
    assert headroom.prefill_share("calm", 20, 1000) == SHARED_PREFILL
    assert headroom.prefill_share("flood", 980, 1000) == CROWD_PREFILL
    assert headroom.prefill_share("flood", CROWD - 1, CROWD - 1) == SHARED_PREFILL


def test_no_tenant_is_denied_its_own_share() -> None:
    headroom = flooded(flood=SLOTS // 2 - 1)
    headroom.came("calm", 1.0, 1, SLOTS, 0.0)
    assert headroom.may_take("flood", 1, SLOTS)


def test_share_follows_the_weights() -> None:
    headroom = Headroom()
    headroom.took("calm", 1.0, 0.0)
    for _ in range(40):
        headroom.took("flood", 3.0, 0.0)
    headroom.came("calm", 1.0, 1, SLOTS, 0.0)
    assert headroom.may_take("flood", 1, SLOTS)  # 48 of 64 are its own


def test_headroom_grows_where_calm_requests_wait_and_shrinks_slowly_where_not() -> None:
    headroom = flooded()
    headroom.came("calm", 1.0, 5, SLOTS, 0.0)
    first = headroom.kept or 0.0
    for _ in range(1000):
        headroom.came("calm", 1.0, 5, SLOTS, 0.0)
    low = headroom.kept or 0.0
    assert low < first
    for _ in range(3):
        headroom.came("calm", 1.0, 0, SLOTS, 0.0)
    assert headroom.kept == low + 3
    for _ in range(1000):
        headroom.came("calm", 1.0, 0, SLOTS, 0.0)
    assert headroom.kept == MAX_SHARE * SLOTS


def test_tenant_that_is_gone_keeps_nobody_from_anything() -> None:
    headroom = flooded()
    headroom.gave_back("calm", 1.0)
    headroom.came("flood", 1.0, 5, SLOTS, ACTIVE_S + 2.0)
    assert headroom.may_take("flood", 1, SLOTS)


def ticket(tenant: str) -> Ticket:
    return Ticket("-", 0.0, 99.0, tenant=tenant, prompt_tokens=1, output_tokens=1)


def test_desk_passes_a_flood_over_for_a_calm_tenant_that_waits() -> None:
    balancer = Balancer()
    route = EndpointRoute(engine_id="a", url="http://fake", token="t", revision=1, slots=8)
    balancer.update([route], 0.0)
    desk: Desk[Ticket] = Desk(WaitingLine(100, 10_000), balancer)
    sent = []
    for tenant in ("calm", *["flood"] * 9):
        one = ticket(tenant)
        if (endpoint := desk.come(one, 0.0)) is not None:
            sent.append((one, endpoint))
        else:
            desk.line.join(one, 0.0)
    assert len(sent) == 7  # of eight: one is kept
    assert desk.line.waiting_of("flood") == 3
    desk.headroom.kept = 2.5
    desk.release(*sent[-1], 2, 1.0)
    assert list(desk.grants(1.0)) == []  # the two free slots are kept
    calm = ticket("calm")
    assert desk.come(calm, 1.0) is None  # somebody waits: it takes its turn
    desk.line.join(calm, 1.0)
    assert [one.tenant for one, _ in desk.grants(1.0)] == ["calm"]


def test_desk_passes_over_whose_prompts_fill_its_part_of_the_engine() -> None:
    balancer = Balancer(prefill_limit=1600)
    route = EndpointRoute(engine_id="a", url="http://fake", token="t", revision=1, slots=64)
    balancer.update([route], 0.0)
    desk: Desk[Ticket] = Desk(WaitingLine(100, 1_000_000), balancer)
    desk.come(ticket("calm"), 0.0)
    for _ in range(6):
        one = Ticket("-", 0.0, 99.0, tenant="flood", prompt_tokens=900)
        if desk.come(one, 0.0) is None:
            desk.line.join(one, 0.0)
    assert balancer.prefill_tokens() == 901  # one of them, however long
    calm = ticket("calm")
    assert desk.come(calm, 0.0) is None  # in turn, and at once
    desk.line.join(calm, 0.0)
    assert [one.tenant for one, _ in desk.grants(0.0)] == ["calm"]
    assert desk.line.waiting_of("flood") == 5


def test_desk_leaves_who_is_back_waiting_where_no_engine_is_left() -> None:
    balancer = Balancer()
    desk: Desk[Ticket] = Desk(WaitingLine(100, 10_000), balancer)
    desk.headroom.took("another", 1.0, 0.0)
    back = ticket("mine")
    desk.headroom.took("mine", 1.0, 0.0)
    desk.line.rejoin(back)
    assert list(desk.grants(0.0)) == []
    route = EndpointRoute(engine_id="a", url="http://fake", token="t", revision=1, slots=1)
    balancer.update([route], 1.0)
    desk.headroom.kept = 1.0  # kept for others, but it had its turn
    assert [one for one, _ in desk.grants(1.0)] == [back]


def test_desk_passes_over_who_is_back_and_has_its_share() -> None:
    balancer = Balancer(prefill_limit=1600)
    route = EndpointRoute(engine_id="a", url="http://fake", token="t", revision=1, slots=64)
    balancer.update([route], 0.0)
    desk: Desk[Ticket] = Desk(WaitingLine(100, 1_000_000), balancer)
    desk.come(ticket("calm"), 0.0)
    assert desk.come(Ticket("-", 0.0, 99.0, tenant="flood", prompt_tokens=900), 0.0) is not None
    desk.line.rejoin(Ticket("-", 0.0, 99.0, tenant="flood", prompt_tokens=900))
    calm = ticket("calm")
    desk.line.join(calm, 0.0)
    assert [one for one, _ in desk.grants(0.0)] == [calm]
