"""Who tries a new revision, and what is told of it."""

import asyncio
import contextlib
import random

import httpx
import pytest

from serving.gateway.balancer import Balancer
from serving.gateway.tickets import Ticket
from serving.gateway.trials import Trials, Turns
from serving.protocol import CanaryRoute, EndpointRoute, RevisionCounts, bucket_of
from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import Gateway, chat
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine


def route(engine_id: str, revision: int, slots: int = 4) -> EndpointRoute:
    return EndpointRoute(
        engine_id=engine_id, url="http://x", token="t", revision=revision, slots=slots
    )


def ticket(name: str, **fields: object) -> Ticket:
    return Ticket(name, 0.0, 60.0, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25, 0.5, 0.9, 1.0])
def test_new_revision_has_its_share_at_each_moment(share: float) -> None:
    canary = CanaryRoute(revisions=(2,), share=share)
    turns, tried = Turns(random.Random(7).random), 0
    for sent in range(1, 2_000):
        tried += turns.tries_new(canary, "org", None)
        assert abs(tried - share * sent) <= 1 + 1e-6


def test_every_other_request_is_not_always_the_new_revisions() -> None:
    canary = CanaryRoute(revisions=(2,), share=0.5)
    turns = Turns(random.Random(7).random)
    tried = [turns.tries_new(canary, "org", None) for _ in range(2_000)]
    assert abs(sum(tried[::2]) / 1_000 - 0.5) < 0.05


def test_share_that_grows_owes_nothing_for_what_was() -> None:
    turns = Turns(random.Random(7).random)
    for share in (0.05, 0.25, 0.5):
        canary = CanaryRoute(revisions=(2,), share=share)
        tried = sum(turns.tries_new(canary, "org", None) for _ in range(1_000))
        assert abs(tried - 1_000 * share) <= 2
    nothing = CanaryRoute(revisions=(2,), share=0.0)
    assert not any(turns.tries_new(nothing, "org", None) for _ in range(1_000))
    assert not any(turns.tries_new(None, "org", None) for _ in range(1_000))


@pytest.mark.parametrize("sticky", ["tenant", "session"])
def test_who_is_sticky_stays_as_the_share_grows(sticky: str) -> None:
    names = [f"org-{number}" for number in range(2_000)]
    before: set[str] = set()
    for share in (0.05, 0.25, 0.5, 1.0):
        canary = CanaryRoute(revisions=(2,), share=share, sticky=sticky)
        tried = {name for name in names if Turns().tries_new(canary, name, "talk")}
        assert before <= tried
        assert abs(len(tried) / len(names) - share) < 0.03
        before = tried


def test_only_who_tries_it_goes_to_the_new_revision() -> None:
    balancer = Balancer()
    balancer.update([route("old", 1), route("new", 2)], 0.0, news=(2,))
    for number in range(40):
        plain = balancer.choose(ticket(f"p{number}"), 60.0)
        tried = balancer.choose(ticket(f"t{number}", tries_new=True), 60.0)
        assert plain is not None
        assert tried is not None
        assert (plain.route.revision, tried.route.revision) == (1, 2)


def test_old_revision_takes_what_the_new_one_has_no_room_for_and_not_the_other_way() -> None:
    balancer = Balancer()
    balancer.update([route("old", 1, slots=2), route("new", 2, slots=1)], 0.0, news=(2,))
    balancer.grant({"old": 2, "new": 1})
    for name, revision in (("a", 2), ("b", 1), ("c", 1)):
        one = ticket(name, tries_new=True)
        endpoint = balancer.choose(one, 60.0)
        assert endpoint is not None
        assert endpoint.route.revision == revision
        balancer.take(endpoint, one, 60.0)
    first = next(one for one in balancer if one.route.engine_id == "new")
    balancer.release(first, next(iter(first.loads)))
    assert balancer.choose(ticket("d"), 60.0) is None


def test_what_failed_on_the_new_revision_goes_to_the_old_one() -> None:
    balancer = Balancer()
    balancer.update([route("old", 1), route("new", 2)], 0.0, news=(2,))
    endpoint = balancer.choose(ticket("a", tries_new=True, avoid={"new"}), 60.0)
    assert endpoint is not None
    assert endpoint.route.engine_id == "old"


def test_any_engine_serves_where_one_revision_has_none() -> None:
    balancer = Balancer()
    balancer.update([route("new", 2)], 0.0, news=(2,))
    assert balancer.choose(ticket("a"), 60.0) is not None


@pytest.mark.parametrize(
    "fault",
    [
        fake_engine.refuses(500, "out of order"),
        fake_engine.fails_in_stream(0),
        fake_engine.fails_in_stream(2),
        fake_engine.dies_mid_event,
    ],
)
async def test_fault_before_or_within_a_stream_is_a_failed_attempt_of_its_revision(
    gateway: Gateway,
    controller: FakeController,
    engine: FakeEngine,
    fault: fake_engine.Behaviour,
) -> None:
    canary = CanaryRoute(revisions=(engine.route.revision,), share=1.0)
    tried = model("demo", engine.route).model_copy(update={"canary": canary})
    controller.set_routes(tried)
    engine.default = fault

    def told() -> list[RevisionCounts]:
        reports = list(controller.reports)
        return [c for report in reports for one in report.models for c in one.revisions]

    async with asyncio.timeout(30):
        while not told():
            body = chat(stream=True) | {"max_tokens": 4}
            with contextlib.suppress(httpx.ReadTimeout):
                await gateway.http.post("/v1/chat/completions", json=body, timeout=0.5)
    assert {counts.revision for counts in told()} == {engine.route.revision}
    assert {counts.answered for counts in told()} == {0}
    assert sum(counts.failed for counts in told()) > 0


def test_counts_come_back_when_a_report_got_lost() -> None:
    trials = Trials()
    trials.answered(2, 0.1, 0.01)
    trials.failed(2)
    lost = trials.take()
    assert trials.take() == ()
    trials.answered(2, None, None)
    trials.take_back(lost)
    (told,) = trials.take()
    assert (told.answered, told.failed) == (2, 1)
    assert told.ttft == {bucket_of(0.1): 1}
