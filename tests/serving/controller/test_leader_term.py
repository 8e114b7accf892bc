"""A leader's term ends by itself, for good, and takes what was under way along."""

import httpx
import pytest

from serving.controller.leader import Tenure
from serving.controller.leader_fence import NotLeaderError
from serving.controller.leader_lease import LeaseRow
from serving.controller.leader_term import Term
from serving.controller.store import Store, StoredEvent


class Clock:
    s = 100.0

    def __call__(self) -> float:
        return self.s


def new_term(clock: Clock) -> Term:
    return Term(Tenure(token=1, lease_s=3.0, asked_s=clock.s), clock)


def test_term_that_lapsed_once_is_over_even_if_the_lease_is_prolonged_then() -> None:
    clock = Clock()
    term = new_term(clock)
    clock.s += 2.0
    term.renewed(101.5)
    clock.s = 104.1
    assert term.leads()
    clock.s = 104.3
    assert not term.leads()
    term.renewed(clock.s)
    assert not term.leads()


async def test_nothing_is_sent_to_ray_once_the_term_is_over() -> None:
    clock = Clock()
    term = new_term(clock)
    transport = term.transport(httpx.MockTransport(lambda _: httpx.Response(200)))
    async with httpx.AsyncClient(transport=transport, base_url="http://ray") as client:
        assert (await client.get("/")).status_code == 200
        clock.s += 60.0
        with pytest.raises(httpx.ConnectError, match="leads no longer"):
            await client.get("/")


async def test_write_under_a_token_that_is_anothers_is_refused_and_ends_the_term(
    store: Store, database_url: str
) -> None:
    clock = Clock()
    term = new_term(clock)
    row = LeaseRow.at(database_url, 5.0)
    await row.take(0, "a", "http://a", 0.0)
    await row.take(1, "b", "http://b", 60.0)
    await row.aclose()
    term.guard(store)
    with pytest.raises(NotLeaderError):
        await store.add_events([StoredEvent(1.0, "deployed", None, None, "late")])
    assert term.over.is_set()
    assert not term.leads()
