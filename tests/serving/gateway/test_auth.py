"""Keys: who gets in, and who no longer does."""

import pytest

from models.errors import UnauthenticatedError, UnavailableError
from serving.gateway.auth import Keyring
from serving.protocol import IdentitiesDelta, KeyRecord, Role
from tests.serving.gateway.fake_controller import record_of


def keyring(*records: KeyRecord) -> Keyring:
    made = Keyring()
    made.apply(IdentitiesDelta(version=1, full=True, keys=records))
    return made


def test_key_is_found_by_its_digest() -> None:
    ring = keyring(record_of("sk-one-abcdef", Role.INFERENCE))
    for _ in range(2):  # the second time from what it remembers
        assert ring.authenticate(b"Bearer sk-one-abcdef").key_id == "key-1"


def test_keys_with_the_same_prefix_are_told_apart() -> None:
    ring = keyring(
        record_of("sk-sameprefix-1", Role.INFERENCE, "first"),
        record_of("sk-sameprefix-2", Role.ADMIN, "second"),
    )
    assert ring.authenticate(b"bearer sk-sameprefix-2").key_id == "second"


def test_prefixes_of_several_lengths_are_searched() -> None:
    short = record_of("sk-one-abcdef", Role.INFERENCE, "short").model_copy(update={"prefix": "sk"})
    ring = keyring(short, record_of("sk-two-abcdef", Role.INFERENCE, "long"))
    assert ring.authenticate(b"Bearer sk-one-abcdef").key_id == "short"
    assert ring.authenticate(b"Bearer sk-two-abcdef").key_id == "long"


@pytest.mark.parametrize(
    "header",
    [None, b"", b"Bearer", b"Bearer ", b"Basic sk-one-abcdef", b"sk-one-abcdef",
     b"Bearer sk-one-abcdeg", b"Bearer sk-one-abcde", b"Bearer \xff\xfe"],
)  # fmt: skip
def test_other_than_a_valid_key_is_refused(header: bytes | None) -> None:
    with pytest.raises(UnauthenticatedError):
        keyring(record_of("sk-one-abcdef", Role.INFERENCE)).authenticate(header)


def test_revoked_key_is_refused_though_it_was_seen() -> None:
    ring = keyring(record_of("sk-one-abcdef", Role.INFERENCE))
    ring.authenticate(b"Bearer sk-one-abcdef")
    ring.apply(IdentitiesDelta(version=2, full=True))
    with pytest.raises(UnauthenticatedError):
        ring.authenticate(b"Bearer sk-one-abcdef")


def test_unchanged_identities_keep_the_keys() -> None:
    ring = keyring(record_of("sk-one-abcdef", Role.INFERENCE))
    ring.apply(IdentitiesDelta(version=1, full=False))
    assert ring.authenticate(b"Bearer sk-one-abcdef")


def test_nobody_is_called_wrong_before_the_keys_are_known() -> None:
    with pytest.raises(UnavailableError):
        Keyring().authenticate(b"Bearer sk-one-abcdef")
