"""Keys of prompts, which of them is too hot, and the ring."""

from serving.gateway.affinity import BLOCK_BYTES, SEEN_AT_LEAST, Popularity, Ring, keys_of

SYSTEM = b"You are a helpful assistant. " * 40


def test_prompts_share_the_keys_of_their_common_beginning() -> None:
    one = keys_of("org", "", SYSTEM + b"What is Penstock?" * 100)
    other = keys_of("org", "", SYSTEM + b"Who made the turbine?" * 100)
    common = len(SYSTEM) // BLOCK_BYTES
    assert one[:2] == other[:2]
    assert common >= 2
    assert one[-1] != other[-1]


def test_organisations_and_sessions_have_keys_of_their_own() -> None:
    assert not set(keys_of("a", "", SYSTEM)) & set(keys_of("b", "", SYSTEM))
    in_session = keys_of("a", "chat-7", SYSTEM)
    assert in_session[0] == keys_of("a", "chat-7", b"another beginning" * 30)[0]
    assert in_session[0] != keys_of("a", "chat-8", SYSTEM)[0]


def test_short_prompt_has_one_key_and_an_empty_one_none() -> None:
    assert len(keys_of("org", "", b"hi")) == 1
    assert keys_of("org", "", b"") == ()


def test_key_that_many_requests_share_gives_way_to_the_next() -> None:
    popularity = Popularity()
    chosen = [popularity.key_for((1, 100 + number), engines=4) for number in range(400)]
    assert chosen[:SEEN_AT_LEAST] == [1] * SEEN_AT_LEAST
    assert chosen.count(1) <= 0.2 * len(chosen)
    assert chosen[-1] == 499


def test_key_of_a_single_session_stays() -> None:
    popularity = Popularity()
    others = iter(range(1000, 9000))
    for _ in range(200):
        for _ in range(20):
            popularity.key_for((next(others),), engines=4)
        assert popularity.key_for((7, 8), engines=4) == 7


def test_counts_are_halved_so_that_yesterdays_heat_is_forgotten() -> None:
    popularity = Popularity()
    for _ in range(2000):
        popularity.key_for((1, 2), engines=2)
    for number in range(40_000):
        popularity.key_for((100 + number,), engines=2)
    assert popularity.key_for((1, 2), engines=2) == 1
    assert len(popularity._counts) < 10_000


def test_ring_names_every_engine_once_in_an_order_of_the_keys_own() -> None:
    ring = Ring(["a", "b", "c"])
    orders = {tuple(ring.walk(key * 2654435761 % 2**32)) for key in range(200)}
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(orders) == 6
    assert list(Ring().walk(1)) == []


def test_ring_spreads_keys_and_moves_few_when_an_engine_comes() -> None:
    keys = [keys_of("org", str(number), b"")[0] for number in range(4000)]
    before, after = Ring("abc"), Ring("abcd")
    homes = [next(before.walk(key)) for key in keys]
    moved = [(was, now) for key, was in zip(keys, homes, strict=True)
             if (now := next(after.walk(key))) != was]  # fmt: skip
    assert max(homes.count(name) for name in "abc") <= 1.3 * len(keys) / 3
    assert {now for _, now in moved} == {"d"}
    assert len(moved) <= 0.33 * len(keys)
