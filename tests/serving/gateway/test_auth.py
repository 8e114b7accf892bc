"""Keys: who gets in, who no longer does, and what a guesser learns."""

import statistics
import time

import pytest

from models.errors import ForbiddenError, UnauthenticatedError, UnavailableError
from serving.credentials import KeyIndex
from serving.gateway.auth import Keyring, ModelNotAllowedError, SteadyClock, check_model
from serving.gateway.visits import Visit
from serving.identities import DEFAULT_ORG, DEFAULT_PROJECT, KeySecret, LimitRecord
from serving.protocol import IdentitiesDelta, KeyRecord, Role
from tests.serving.gateway.fake_controller import record_of

KEY = "sk-one-abcdef"


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"here"), (b"authorization", b"Bearer " + key.encode())]


def keyring(*records: KeyRecord) -> Keyring:
    made = Keyring()
    made.apply(IdentitiesDelta(version=1, full=True, keys=records))
    return made


def test_key_is_found_by_its_digest() -> None:
    assert keyring(record_of(KEY, Role.INFERENCE)).authenticate(bearer(KEY)).key_id == "key-1"


def test_keys_with_the_same_prefix_are_told_apart() -> None:
    ring = keyring(
        record_of("sk-sameprefix-1", Role.INFERENCE, "first"),
        record_of("sk-sameprefix-2", Role.ADMIN, "second"),
    )
    headers = [(b"authorization", b"bearer sk-sameprefix-2")]
    assert ring.authenticate(headers).key_id == "second"


def test_prefixes_of_several_lengths_are_searched() -> None:
    short = record_of(KEY, Role.INFERENCE, "short").model_copy(update={"prefix": "sk"})
    ring = keyring(short, record_of("sk-two-abcdef", Role.INFERENCE, "long"))
    assert ring.authenticate(bearer(KEY)).key_id == "short"
    assert ring.authenticate(bearer("sk-two-abcdef")).key_id == "long"


@pytest.mark.parametrize(
    "header",
    [b"", b"Bearer", b"Bearer ", b"Basic sk-one-abcdef", b"sk-one-abcdef",
     b"Bearer sk-one-abcdeg", b"Bearer sk-one-abcde", b"Bearer \xff\xfe", b"Bearer " + b"x" * 9000],
)  # fmt: skip
def test_other_than_a_valid_key_is_refused(header: bytes) -> None:
    with pytest.raises(UnauthenticatedError):
        keyring(record_of(KEY, Role.INFERENCE)).authenticate([(b"authorization", header)])


@pytest.mark.parametrize(
    "headers",
    [[], [*bearer(KEY), *bearer(KEY)], [*bearer(KEY), (b"x-api-key", KEY.encode())],
     [*bearer(KEY), (b"x-api-key", b"")]],
)  # fmt: skip
def test_no_key_or_two_of_them_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(UnauthenticatedError):
        keyring(record_of(KEY, Role.INFERENCE)).authenticate(headers)


@pytest.mark.parametrize("query", [b"api_key=sk-one-abcdef", b"x=1&key=y", b"q=pk-whatever"])
def test_key_in_the_url_is_refused_even_beside_a_valid_one(query: bytes) -> None:
    with pytest.raises(UnauthenticatedError, match="URL") as caught:
        keyring(record_of(KEY, Role.INFERENCE)).authenticate(bearer(KEY), query)
    assert KEY not in str(caught.value)


def test_anthropics_header_bears_a_key_too() -> None:
    ring = keyring(record_of(KEY, Role.INFERENCE))
    assert ring.authenticate([(b"x-api-key", KEY.encode())]).key_id == "key-1"


def test_revoked_key_is_refused_though_it_was_seen() -> None:
    ring = keyring(record_of(KEY, Role.INFERENCE), record_of("sk-two-abcdef", Role.INFERENCE, "2"))
    ring.authenticate(bearer(KEY))
    ring.apply(IdentitiesDelta(version=2, full=False, removed=("key-1",)))
    with pytest.raises(UnauthenticatedError):
        ring.authenticate(bearer(KEY))
    assert ring.authenticate(bearer("sk-two-abcdef"))


def test_key_expires_by_a_clock_that_nobody_sets() -> None:
    wall, count = [1000.0], [0.0]
    ring = Keyring(SteadyClock(lambda: wall[0], lambda: count[0]))
    record = record_of(KEY, Role.INFERENCE).model_copy(update={"expires_at": 1060.0})
    ring.apply(IdentitiesDelta(version=1, full=True, keys=(record,)))
    wall[0] += 1e6  # a jump forward ends no key
    assert ring.authenticate(bearer(KEY))
    count[0] = 60.0
    wall[0] -= 2e6  # and one back revives none
    with pytest.raises(UnauthenticatedError, match="expired"):
        ring.authenticate(bearer(KEY))


def test_rotated_key_is_valid_beside_the_new_one_until_the_overlap_ends() -> None:
    now = [1000.0]
    ring = Keyring(lambda: now[0])
    old = record_of(KEY, Role.INFERENCE)
    previous = KeySecret(prefix=old.prefix, salt=old.salt, digest=old.digest, expires_at=1010.0)
    new = record_of("sk-new-abcdef", Role.INFERENCE).model_copy(update={"previous": previous})
    ring.apply(IdentitiesDelta(version=1, full=True, keys=(new,)))
    assert ring.authenticate(bearer(KEY)) is ring.authenticate(bearer("sk-new-abcdef"))
    now[0] = 1010.0
    assert ring.authenticate(bearer("sk-new-abcdef"))
    with pytest.raises(UnauthenticatedError):
        ring.authenticate(bearer(KEY))


def test_unchanged_identities_keep_the_keys() -> None:
    ring = keyring(record_of(KEY, Role.INFERENCE))
    ring.apply(IdentitiesDelta(version=1, full=False))
    assert ring.authenticate(bearer(KEY))


def test_nobody_is_called_wrong_before_the_keys_are_known() -> None:
    with pytest.raises(UnavailableError):
        Keyring().authenticate(bearer(KEY))


def test_snapshot_brings_everything_back() -> None:
    ring = keyring(record_of(KEY, Role.INFERENCE))
    limit = LimitRecord(limit_id="limit:key-1:*", scope_id="key-1", concurrent=3)
    ring.apply(IdentitiesDelta(version=2, full=False, limits=(limit,)))
    again = Keyring()
    again.apply(ring.snapshot())
    assert again.authenticate(bearer(KEY)).key_id == "key-1"
    assert (again.limits, again.version) == ({limit.limit_id: limit}, 2)


def test_visit_is_charged_to_the_keys_project_or_to_the_default_one() -> None:
    record = record_of(KEY, Role.INFERENCE).model_copy(
        update={"org_id": "org-a", "project_id": "proj-a"}
    )
    ring = keyring(record, record_of("pa-admin-abcdef", Role.ADMIN, "key-2"))
    visit = Visit("r", "/v1/chat/completions", 0.0)
    ring.admit(visit, bearer(KEY))
    assert (visit.key_id, visit.org_id, visit.project_id) == ("key-1", "org-a", "proj-a")
    ring.admit(visit, bearer("pa-admin-abcdef"))
    assert (visit.org_id, visit.project_id) == (DEFAULT_ORG, DEFAULT_PROJECT)


def test_viewers_key_calls_no_model() -> None:
    ring = keyring(record_of(KEY, Role.VIEWER))
    with pytest.raises(ForbiddenError):
        ring.admit(Visit("r", "/v1/chat/completions", 0.0), bearer(KEY))


def test_model_off_the_list_is_refused_whether_it_exists_or_not() -> None:
    record = record_of(KEY, Role.INFERENCE)
    check_model(record, "anything")
    listed = record.model_copy(update={"models": ("guide",)})
    check_model(listed, "guide")
    with pytest.raises(ModelNotAllowedError) as caught:
        check_model(listed, "other" * 100)
    assert (caught.value.status, caught.value.code) == (403, "model_not_allowed")
    assert len(str(caught.value)) < 300


# --- what a guesser learns from the clock -----------------------------------------------------

RIGHT = "pk-" + "r" * 40
GUESSES = {
    "right": RIGHT,
    "same beginning": RIGHT[:-1] + "x",
    "another beginning": "pk-" + "w" * 40,
    "revoked": "pk-" + "v" * 40,
}


def crowd() -> KeyIndex:
    records = [record_of(f"pk-{i:07d}" + "k" * 33, Role.INFERENCE, f"k{i}") for i in range(1000)]
    index = KeyIndex([*records, record_of(RIGHT, Role.INFERENCE, "right")])
    index.put(record_of(GUESSES["revoked"], Role.INFERENCE, "revoked"))
    index.remove("revoked")
    return index


def test_every_guess_costs_the_same_digests() -> None:
    index = crowd()
    computed = {}
    for name, guess in GUESSES.items():
        before = index.digests
        found = index.find(guess.encode())
        computed[name] = index.digests - before
        assert (found is not None) == (name == "right")
    assert set(computed.values()) == {1}


def test_right_and_wrong_keys_take_the_same_time() -> None:
    """Interleaved, by their medians; a guess that skipped its digest would take a third of it."""
    index = crowd()
    guesses = {name: guess.encode() for name, guess in GUESSES.items()}
    took: dict[str, list[int]] = {name: [] for name in guesses}
    for _ in range(4000):
        for name, guess in guesses.items():
            began = time.perf_counter_ns()
            index.find(guess)
            took[name].append(time.perf_counter_ns() - began)
    medians = {name: statistics.median(times) for name, times in took.items()}
    assert max(medians.values()) < 1.5 * min(medians.values()), medians
