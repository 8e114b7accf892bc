"""Makes keys and checks them; installs the first ones of a platform.

    python -m serving.controller.keys [--renew admin|api|both]

prints the newly made keys as JSON, once: they are stored as salted digests only. It reads
`PENSTOCK_DATABASE_URL`, and `PENSTOCK_ADMIN_KEY` and `PENSTOCK_API_KEY` where they are given.
"""

import argparse
import asyncio
import hashlib
import hmac
import json
import secrets
import sys
import time
from collections.abc import Iterable
from typing import NamedTuple

from pydantic import SecretStr

from models.errors import BadRequestError, PenstockError
from serving.controller.store import Store
from serving.protocol import KeyRecord, Role
from serving.settings import Settings

PREFIX_LENGTH = 10
SHORTEST = 8
MARKS = {Role.ADMIN: "pa-", Role.INFERENCE: "pk-"}
FIRST_NAMES = {Role.ADMIN: "operator", Role.INFERENCE: "tenant"}
"""Names of the keys that a platform starts with, one for each role."""


class KeysSettings(Settings):
    """What the command needs of the settings of the controller and of `penstock up`."""

    database_url: str = "sqlite+aiosqlite:///penstock.db"
    api_key: SecretStr | None = None
    admin_key: SecretStr | None = None


class NewKeys(NamedTuple):
    """Keys in plain text that were made just now; None where one was there already or given."""

    admin_key: str | None
    api_key: str | None


def make_key(role: Role) -> str:
    """A new random key with 240 bits: `pa-` (admin) or `pk-` (inference) and 40 characters."""
    return MARKS[role] + secrets.token_urlsafe(30)


def make_record(key: str, role: Role, name: str) -> KeyRecord:
    """What is stored of a key.

    Raises:
        BadRequestError: If the key is shorter than SHORTEST or cannot stand in a header.
    """
    if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
        raise BadRequestError(
            f"a key needs at least {SHORTEST} printable ASCII characters without blanks",
            hint="leave PENSTOCK_ADMIN_KEY and PENSTOCK_API_KEY unset to have keys made",
        )
    salt = secrets.token_hex(16)
    return KeyRecord(
        key_id=f"key-{secrets.token_hex(8)}",
        name=name,
        role=role,
        # Of a short key that was given, at most the half is shown.
        prefix=key[: min(PREFIX_LENGTH, len(key) // 2)],
        salt=salt,
        digest=_digest(salt, key),
    )


def is_key(record: KeyRecord, key: str) -> bool:
    """Whether `key` is the one that was stored, in constant time."""
    return hmac.compare_digest(_digest(record.salt, key), record.digest)


def find_key(records: Iterable[KeyRecord], key: str) -> KeyRecord | None:
    """The record of a key, or None if nobody was given it."""
    for record in records:
        if key.startswith(record.prefix) and is_key(record, key):
            return record
    return None


def ensure_keys(
    database_url: str,
    admin_key: str | None = None,
    api_key: str | None = None,
    renew: frozenset[Role] = frozenset(),
) -> NewKeys:
    """Sees to it that there is a first key of each role; blocking, outside of an event loop.

    A given key takes the place of the first key of its role, which then holds no more; given
    again it changes nothing. A key that is missing, or in `renew`, is made and returned.

    Raises:
        DatabaseError: If the registry cannot be opened.
        BadRequestError: If a given key is too short.
    """
    return asyncio.run(ensure_keys_async(database_url, admin_key, api_key, renew))


async def ensure_keys_async(
    database_url: str,
    admin_key: str | None = None,
    api_key: str | None = None,
    renew: frozenset[Role] = frozenset(),
) -> NewKeys:
    """`ensure_keys` for those who run in an event loop."""
    store = await Store.open(database_url)
    try:
        return NewKeys(
            admin_key=await _ensure(store, Role.ADMIN, admin_key, Role.ADMIN in renew),
            api_key=await _ensure(store, Role.INFERENCE, api_key, Role.INFERENCE in renew),
        )
    finally:
        await store.close()


async def _ensure(store: Store, role: Role, given: str | None, renew: bool) -> str | None:
    name = FIRST_NAMES[role]
    first = [key for key in await store.keys() if key.role is role and key.name == name]
    if given is not None:
        if not any(is_key(record, given) for record in first):
            await store.put_key(make_record(given, role, name), time.time())
        return None
    if first and not renew:
        return None
    made = make_key(role)
    await store.put_key(make_record(made, role, name), time.time())
    return made


def _digest(salt: str, key: str) -> str:
    return hashlib.sha256((salt + key).encode()).hexdigest()


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m serving.controller.keys", description=__doc__)
    parser.add_argument("--renew", choices=("admin", "api", "both"), help="replace first keys")
    renew = {
        None: frozenset[Role](),
        "admin": frozenset({Role.ADMIN}),
        "api": frozenset({Role.INFERENCE}),
        "both": frozenset(Role),
    }[parser.parse_args().renew]
    try:
        given = KeysSettings.load()
        new = ensure_keys(
            given.database_url,
            given.admin_key.get_secret_value() if given.admin_key else None,
            given.api_key.get_secret_value() if given.api_key else None,
            renew,
        )
    except PenstockError as exc:
        sys.stderr.write(f"error: {exc}\n" + (f"hint: {exc.hint}\n" if exc.hint else ""))
        return exc.exit_code
    sys.stdout.write(json.dumps(new._asdict()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
