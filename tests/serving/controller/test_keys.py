"""Keys: made, stored as digests, checked, installed and renewed."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from models.errors import BadRequestError
from serving.controller.key_store import KeyStore, make_key
from serving.controller.keys import ensure_keys, ensure_keys_async, make_record
from serving.controller.store import Store
from serving.credentials import KeyIndex
from serving.protocol import KeyRecord, Role


async def stored(url: str) -> tuple[KeyRecord, ...]:
    store = await Store.open(url)
    keys = await KeyStore(store).records()
    await store.close()
    return keys


def find_key(records: Iterable[KeyRecord], key: str) -> KeyRecord | None:
    match = KeyIndex(records).find(key.encode())
    return None if match is None else match.record


def is_key(record: KeyRecord, key: str) -> bool:
    return find_key([record], key) is not None


def test_keys_are_long_random_and_tell_their_role() -> None:
    keys = {make_key(Role.ADMIN) for _ in range(10)} | {make_key(Role.INFERENCE) for _ in range(10)}
    assert len(keys) == 20
    assert {len(key) for key in keys} == {43}
    assert {key[:3] for key in keys} == {"pa-", "pk-"}


def test_record_of_a_key_holds_neither_the_key_nor_much_of_it() -> None:
    key = make_key(Role.ADMIN)
    record = make_record(key, Role.ADMIN, "operator")
    assert record.prefix == key[:10]
    assert key not in record.model_dump_json()
    assert is_key(record, key)
    assert not is_key(record, key + "x")
    assert make_record(key, Role.ADMIN, "operator").digest != record.digest  # its own salt


@pytest.mark.parametrize(("key", "prefix"), [("12345678", "1234"), ("0123456789a", "01234")])
def test_record_of_a_short_given_key_shows_at_most_half_of_it(key: str, prefix: str) -> None:
    assert make_record(key, Role.INFERENCE, "tenant").prefix == prefix


@pytest.mark.parametrize("key", ["", "1234567", "with a blank", "ümlaute-key", "new\nline-key"])
def test_record_refuses_keys_that_are_short_or_unfit_for_a_header(key: str) -> None:
    with pytest.raises(BadRequestError, match="at least 8"):
        make_record(key, Role.INFERENCE, "tenant")


def test_find_key_tells_keys_with_the_same_prefix_apart() -> None:
    keys = ["pk-same-prefix-one", "pk-same-prefix-two"]
    records = [make_record(key, Role.INFERENCE, key) for key in keys]
    assert find_key(records, keys[1]) == records[1]
    assert find_key(records, "pk-same-prefix-three") is None


def test_ensure_keys_makes_both_keys_once(database_url: str) -> None:
    made = ensure_keys(database_url)
    assert made.admin_key is not None
    assert made.api_key is not None
    assert ensure_keys(database_url) == (None, None)
    keys = asyncio.run(stored(database_url))
    assert {(k.role, k.name) for k in keys} == {("admin", "operator"), ("inference", "tenant")}
    assert find_key(keys, made.api_key) is not None


async def test_ensure_keys_installs_given_keys_in_place_of_the_first(database_url: str) -> None:
    made = await ensure_keys_async(database_url)
    assert made.admin_key is not None
    assert await ensure_keys_async(database_url, "given-admin", "given-tenant") == (None, None)
    keys = await stored(database_url)
    assert len(keys) == 2
    assert find_key(keys, made.admin_key) is None
    admin = find_key(keys, "given-admin")
    assert admin is not None
    assert admin.role is Role.ADMIN
    await ensure_keys_async(database_url, "given-admin", "given-tenant")
    assert await stored(database_url) == keys  # the same key again changes nothing
    assert await ensure_keys_async(database_url) == (None, None)
    assert await stored(database_url) == keys


async def test_ensure_keys_renews_what_it_is_told_to(database_url: str) -> None:
    first = await ensure_keys_async(database_url)
    renewed = await ensure_keys_async(database_url, renew=frozenset({Role.INFERENCE}))
    assert renewed.admin_key is None
    assert renewed.api_key not in (None, first.api_key)
    keys = await stored(database_url)
    assert first.api_key is not None
    assert find_key(keys, first.api_key) is None


def run_command(tmp_path: Path, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PENSTOCK_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/p.db", **more}
    return subprocess.run(
        [sys.executable, "-m", "serving.controller.keys", *args],
        capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip


def test_keys_command_prints_new_keys_once_and_nothing_later(tmp_path: Path) -> None:
    made = json.loads(run_command(tmp_path, PENSTOCK_ADMIN_KEY="given-admin").stdout)
    assert made["admin_key"] is None
    assert made["api_key"].startswith("pk-")
    renewed = json.loads(run_command(tmp_path, "--renew", "admin").stdout)
    assert renewed["admin_key"].startswith("pa-")
    assert renewed["api_key"] is None


def test_keys_command_fails_with_a_hint_and_no_traceback(tmp_path: Path) -> None:
    result = run_command(tmp_path, PENSTOCK_ADMIN_KEY="short")
    assert result.returncode == 2
    assert result.stdout == ""
    assert "error: a key needs at least 8" in result.stderr
    assert "hint: " in result.stderr
    assert "Traceback" not in result.stderr
