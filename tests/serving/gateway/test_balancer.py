"""The balancer: leases, outstanding tokens, bounds on prompts and the KV cache, affinity."""

from serving.gateway.affinity import keys_of
from serving.gateway.balancer import WARM_UP_S, Balancer
from serving.gateway.endpoint import Endpoint
from serving.gateway.tickets import Ticket
from serving.protocol import EndpointRoute


def route(
    engine_id: str, slots: int = 2, url: str = "http://127.0.0.1:1", kv_tokens: int = 0
) -> EndpointRoute:
    return EndpointRoute(
        engine_id=engine_id, url=url, token="t", revision=1, slots=slots, kv_tokens=kv_tokens
    )


def balancer(*routes: EndpointRoute, prefill_limit: int = 8192) -> Balancer:
    made = Balancer(prefill_limit)
    made.update(routes, 0.0)
    return made


def ticket(
    prompt: int = 10,
    output: int = 0,
    avoid: set[str] | None = None,
    keys: tuple[int, ...] = (),
    died: list[str] | None = None,
) -> Ticket:
    return Ticket(
        "t", 0.0, 10.0, avoid=avoid or set(), prompt_tokens=prompt, output_tokens=output,
        keys=keys, died=died or [],
    )  # fmt: skip


def take(one: Balancer, wants: Ticket | None = None, now_s: float = 0.0) -> str | None:
    wants = wants or ticket()
    endpoint = one.choose(wants, now_s)
    if endpoint is None:
        return None
    one.take(endpoint, wants, now_s)
    return endpoint.route.engine_id


def taken(one: Balancer, wants: Ticket | None = None) -> tuple[Endpoint, Ticket]:
    wants = wants or ticket()
    endpoint = one.choose(wants, 0.0)
    assert endpoint is not None
    one.take(endpoint, wants, 0.0)
    return endpoint, wants


def test_requests_go_where_the_fewest_tokens_are_outstanding() -> None:
    one = balancer(route("a", slots=9), route("b", slots=9))
    first = take(one, ticket(1000))
    assert {take(one, ticket(100)) for _ in range(5)} == {"a", "b"} - {first}


def test_prompt_that_is_computed_counts_no_more() -> None:
    one = balancer(route("a", slots=9), route("b", slots=9))
    busy, big = taken(one, ticket(1000))
    taken(one, ticket(100))
    busy.prefilled(big)
    busy.prefilled(big)
    assert (busy.prefill_tokens, busy.outstanding) == (0, 0)
    assert take(one) == busy.route.engine_id


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
    one.update([route("a", slots=4), route("b", slots=1)], 0.0)
    assert sorted(str(take(one)) for _ in range(3)) == ["None", "a", "b"]


def test_lease_of_nothing_keeps_requests_away() -> None:
    one = balancer(route("a"))
    one.grant({"a": 0})
    assert take(one) is None
    assert not one.can_serve(now_s=0.0)


def test_prompts_beyond_the_bound_wait_until_a_first_byte() -> None:
    one = balancer(route("a", slots=9), prefill_limit=1000)
    endpoint, first = taken(one, ticket(800))
    assert take(one, ticket(300)) is None
    assert take(one, ticket(200)) == "a"
    endpoint.prefilled(first)
    assert take(one, ticket(300)) == "a"


def test_prompt_larger_than_the_bound_passes_alone() -> None:
    one = balancer(route("a", slots=9), prefill_limit=1000)
    assert [take(one, ticket(5000)), take(one, ticket(1))] == ["a", None]


def test_kv_cache_bounds_what_is_sent_and_lets_one_request_pass() -> None:
    one = balancer(route("a", slots=10, kv_tokens=1000))
    endpoint, first = taken(one, ticket(800, 100))
    endpoint.prefilled(first)
    assert take(one, ticket(200, 100)) is None  # 1.125 x 1000 is promised at most
    assert take(one, ticket(100, 100)) == "a"
    lone = balancer(route("a", slots=10, kv_tokens=1000))
    assert take(lone, ticket(5000)) == "a"


def test_gateway_with_a_part_of_the_slots_has_that_part_of_the_kv_cache() -> None:
    one = balancer(route("a", slots=10, kv_tokens=1000))
    one.grant({"a": 5})
    endpoint, first = taken(one, ticket(500))
    endpoint.prefilled(first)
    assert take(one, ticket(100)) is None


def test_ejected_endpoint_comes_back_after_its_time_with_one_request_first() -> None:
    one = balancer(route("a"))
    (endpoint,) = one
    until_s = endpoint.breaker.failed(0.0)
    assert take(one, now_s=until_s - 0.1) is None
    assert not one.can_serve(now_s=until_s - 0.1)
    assert [take(one, now_s=until_s), take(one, now_s=until_s)] == ["a", None]
    endpoint.breaker.succeeded()
    assert take(one, now_s=until_s) == "a"


def test_ejected_endpoint_comes_back_when_its_route_changes_and_not_otherwise() -> None:
    one = balancer(route("a"))
    (endpoint,) = one
    endpoint.breaker.failed(0.0)
    one.update([route("a")], 0.0)
    assert take(one) is None
    one.update([route("a", url="http://127.0.0.1:2")], 0.0)
    assert take(one) == "a"


def test_avoided_endpoint_is_taken_only_where_no_other_is_free() -> None:
    one = balancer(route("a", slots=1), route("b", slots=1))
    avoid = {"a"}
    assert [take(one, ticket(avoid=avoid)), take(one, ticket(avoid=avoid))] == ["b", "a"]


def test_requests_on_trial_are_never_in_one_engine_together_before_a_first_byte() -> None:
    one = balancer(route("a", slots=9))
    endpoint, first = taken(one, ticket(died=["x"]))
    assert take(one, ticket(died=["x"])) is None
    assert take(one) == "a"
    endpoint.prefilled(first)  # a guess, for an answer that is not streamed
    assert take(one, ticket(died=["x"])) is None
    endpoint.acquit(first)
    assert take(one, ticket(died=["x"])) == "a"


def test_request_on_trial_shuns_engines_with_another_that_lost_its_own() -> None:
    """Whose answer may take long without a byte: the next on trial must not cost it its second
    engine where there is another."""
    one = balancer(route("a", slots=2), route("b", slots=2), route("x"))
    spared = ticket(died=["x"], avoid={"x"}, keys=prompt_keys(1))
    endpoint, _ = taken(one, spared)
    endpoint.acquit(spared)  # it lived for some time with it
    (other,) = {"a", "b"} - {endpoint.route.engine_id}
    busy = next(e for e in one if e.route.engine_id == other)
    one.take(busy, ticket(500), 0.0)
    poison = ticket(died=["x"], avoid={"x"}, keys=prompt_keys(1))
    assert take(one, poison) == other, "though the prompt's home is the first, and less is to do"
    busy.acquit(poison)
    assert take(one, ticket(died=["x"], avoid={"x"})) == endpoint.route.engine_id, "none is better"


def test_endpoint_that_left_the_routes_takes_nothing_but_is_counted_until_its_work_is_done() -> (
    None
):
    one = balancer(route("a"))
    endpoint, running = taken(one)
    one.update([], 0.0)
    assert take(one) is None
    assert one.in_flight() == {"a": 1}
    one.release(endpoint, running)
    assert one.in_flight() == {}


def test_endpoint_that_comes_back_remembers_what_runs_in_it() -> None:
    one = balancer(route("a", slots=2))
    taken(one)
    one.update([], 0.0)
    one.update([route("a", slots=2)], 0.0)
    assert [take(one), take(one)] == ["a", None]


def prompt_keys(number: int) -> tuple[int, ...]:
    return keys_of("org", "", (f"{number:04}" * 200).encode())


def test_same_beginning_goes_to_the_same_engine_and_beginnings_are_spread() -> None:
    one = balancer(*(route(name, slots=99) for name in "abcd"))
    homes: dict[int, set[str | None]] = {}
    for turn in range(3):
        for number in range(40):
            wants = ticket(100, keys=prompt_keys(number))
            endpoint = one.choose(wants, float(turn))
            assert endpoint is not None
            one.take(endpoint, wants, float(turn))
            one.release(endpoint, wants)
            homes.setdefault(number, set()).add(endpoint.route.engine_id)
    assert all(len(engines) == 1 for engines in homes.values())
    assert len(set.union(*homes.values())) == 4


def test_busy_engine_with_more_than_its_share_passes_a_key_on() -> None:
    one = balancer(*(route(name, slots=99) for name in "abcd"))
    engines = [take(one, ticket(100, keys=prompt_keys(1))) for _ in range(40)]
    assert len(set(engines)) == 4
    assert max(engines.count(name) for name in engines) <= 1.25 * 40 / 4 + 1


def test_engine_that_did_more_before_has_its_part_of_a_burst() -> None:
    one = balancer(route("a", slots=99), route("b", slots=99))
    for _ in range(100):  # one long session, alone
        endpoint, wants = taken(one, ticket(1000, keys=prompt_keys(0)))
        one.release(endpoint, wants)
    burst = [take(one, ticket(10, 100, keys=prompt_keys(number))) for number in range(1, 33)]
    assert 8 <= burst.count("a") <= 24


def test_new_endpoint_beside_others_warms_up_for_known_beginnings_too() -> None:
    one = balancer(route("a", slots=999), route("b", slots=999))
    one.update([route(name, slots=999) for name in "abc"], 100.0)
    fresh = [take(one, ticket(10, keys=prompt_keys(number)), now_s=100.0) for number in range(110)]
    assert 0 < fresh.count("c") < 20


def test_new_endpoint_beside_others_warms_up() -> None:
    one = balancer(route("a", slots=999), route("b", slots=999))
    one.update([route(name, slots=999) for name in "abc"], 100.0)
    fresh = [take(one, ticket(100), now_s=100.0) for _ in range(110)]
    assert 0 < fresh.count("c") < 20
    for endpoint in one:
        for load in list(endpoint.loads):
            one.release(endpoint, load)
    later = [take(one, ticket(100), now_s=100.0 + WARM_UP_S) for _ in range(90)]
    assert later.count("c") == 30
