"""One real platform for the whole session: Ray, launcher, controller, gateway, vLLM engines."""

import os
from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI

from tests.platform.platform import Platform

ADMIN_KEY = "test-admin-key-0123456789"
API_KEY = "test-tenant-key-0123456789"
LONG = os.environ.get("LONG_TESTS") == "1"
"""Whether tests that are mostly repetition take all of it (`make test-long`)."""


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """`penstock up --detach`, and after the last test `penstock down` with nothing left over."""
    running = Platform(tmp_path_factory.mktemp("platform") / "data", ADMIN_KEY, API_KEY)
    running.up()
    yield running
    running.down()
    assert running.leftovers() == []


@pytest.fixture(scope="session")
def client(platform: Platform) -> Iterator[OpenAI]:
    """The official client, unmodified, with the tenant's key."""
    with OpenAI(base_url=f"{platform.url}/v1", api_key=API_KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def admin(platform: Platform) -> Iterator[httpx.Client]:
    """The admin API through the gateway."""
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx.Client(base_url=f"{platform.url}/admin/v1", headers=headers, timeout=30) as client:
        yield client
