"""Makes keys and checks them; installs the first ones of a platform.

    python -m serving.controller.keys [--renew admin|api|both]

prints the newly made keys as JSON, once: they are stored as salted digests only. It reads
`PENSTOCK_DATABASE_URL`, and `PENSTOCK_ADMIN_KEY` and `PENSTOCK_API_KEY` where they are given.
"""

import argparse
import asyncio
import json
import sys
import time
from typing import NamedTuple

from pydantic import SecretStr

from models.errors import BadRequestError, PenstockError
from serving.controller.key_store import KeyStore, make_key, make_secret
from serving.controller.store import Store
from serving.controller.tenancy_rows import new_id
from serving.credentials import KeyIndex
from serving.identities import KeyRecord, Role
from serving.settings import Settings

SHORTEST = 8
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
    secret = make_secret(key)
    return KeyRecord(
        key_id=new_id("key"),
        name=name,
        role=role,
        prefix=secret.prefix,
        salt=secret.salt,
        digest=secret.digest,
    )


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
    keys = KeyStore(store)
    records = await keys.records()
    first = [key for key in records if key.role is role and key.name == name]
    if given is not None:
        if KeyIndex(first).find(given.encode()) is None:
            await keys.put_first(make_record(given, role, name), time.time())
        return None
    if first and not renew:
        return None
    made = make_key(role)
    await keys.put_first(make_record(made, role, name), time.time())
    return made


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
