"""The balancer: leases, outstanding requests, ejection."""

from serving.gateway.balancer import Balancer, Endpoint
from serving.protocol import EndpointRoute


def route(engine_id: str, slots: int = 2, url: str = "http://127.0.0.1:1") -> EndpointRoute:
    return EndpointRoute(engine_id=engine_id, url=url, token="t", revision=1, slots=slots)


def balancer(*routes: EndpointRoute) -> Balancer:
    made = Balancer()
    made.update(routes)
    return made


def take(one: Balancer, now_s: float = 0.0, avoid: frozenset[str] = frozenset()) -> str | None:
    endpoint = one.choose(now_s, avoid)
    if endpoint is None:
        return None
    endpoint.in_flight += 1
    return endpoint.route.engine_id


def taken(one: Balancer) -> Endpoint:
    endpoint = one.choose(0.0)
    assert endpoint is not None
    endpoint.in_flight += 1
    return endpoint


def test_requests_go_where_the_fewest_are_outstanding() -> None:
    one = balancer(route("a"), route("b"))
    assert sorted([take(one), take(one)]) == ["a", "b"]


def test_fresh_endpoint_is_filled_up_to_its_slots_and_no_further() -> None:
    one = balancer(route("a", slots=2))
    assert [take(one), take(one), take(one)] == ["a", "a", None]


def test_lease_replaces_the_slots_and_stays_where_the_next_grant_is_silent() -> None:
    one = balancer(route("a", slots=2))
    one.grant({"a": 3})
    one.grant({"other": 1})
    assert [take(one) for _ in range(4)] == ["a", "a", "a", None]


def test_lease_survives_an_update_of_the_routes() -> None:
    one = balancer(route("a", slots=4))
    one.grant({"a": 1})
    one.update([route("a", slots=4), route("b", slots=1)])
    assert sorted(str(take(one)) for _ in range(3)) == ["None", "a", "b"]


def test_lease_of_nothing_keeps_requests_away() -> None:
    one = balancer(route("a"))
    one.grant({"a": 0})
    assert take(one) is None
    assert not one.can_serve(now_s=0.0)


def test_ejected_endpoint_comes_back_after_its_time() -> None:
    one = balancer(route("a"))
    taken(one).ejected_until_s = 5.0
    assert take(one, now_s=4.9) is None
    assert not one.can_serve(now_s=4.9)
    assert take(one, now_s=5.0) == "a"


def test_ejected_endpoint_comes_back_when_its_route_changes_and_not_otherwise() -> None:
    one = balancer(route("a"))
    taken(one).ejected_until_s = 5.0
    one.update([route("a")])
    assert take(one) is None
    one.update([route("a", url="http://127.0.0.1:2")])
    assert take(one) == "a"


def test_avoided_endpoint_is_taken_only_where_no_other_is_free() -> None:
    one = balancer(route("a", slots=1), route("b", slots=1))
    avoid = frozenset({"a"})
    assert [take(one, avoid=avoid), take(one, avoid=avoid)] == ["b", "a"]


def test_endpoint_that_left_the_routes_takes_nothing_but_is_counted_until_its_work_is_done() -> (
    None
):
    one = balancer(route("a"))
    running = taken(one)
    one.update([])
    assert take(one) is None
    assert one.in_flight() == {"a": 1}
    one.release(running)
    assert one.in_flight() == {}


def test_endpoint_that_comes_back_remembers_what_runs_in_it() -> None:
    one = balancer(route("a", slots=2))
    taken(one)
    one.update([])
    one.update([route("a", slots=2)])
    assert [take(one), take(one)] == ["a", None]
