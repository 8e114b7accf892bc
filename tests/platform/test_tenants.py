"""Tenants on a real platform: a key made, limited and revoked; and nothing secret in any log."""

import time

import httpx
import openai
import pytest
from openai import OpenAI

from tests.platform.conftest import ADMIN_KEY, API_KEY
from tests.platform.platform import Platform

pytestmark = pytest.mark.engine

PROMPT = "grandmothers-recipe-is-nobodys-business"


def test_key_is_made_limited_and_revoked_and_no_log_tells_of_it(
    platform: Platform, admin: httpx.Client
) -> None:
    made = platform.penstock("key", "create", "short-lived", "--model", "guide")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    limits = ("--requests-per-min", "2", "--max-tokens", "16")
    assert platform.penstock("limits", "set", "--key", "short-lived", *limits).returncode == 0
    with OpenAI(base_url=f"{platform.url}/v1", api_key=key, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["guide"]

        def ask() -> int:
            answer = client.chat.completions.create(
                model="guide", messages=[{"role": "user", "content": PROMPT}]
            )
            assert answer.usage is not None
            return answer.usage.completion_tokens

        assert max(ask(), ask()) <= 16
        with pytest.raises(openai.RateLimitError) as refused:
            ask()
        assert int(refused.value.response.headers["retry-after"]) > 30
        assert refused.value.response.headers["x-ratelimit-limit-requests"] == "2"
        key_id = admin.get("/keys").json()["items"][-1]["key_id"]
        assert admin.delete(f"/keys/{key_id}").status_code == 204
        ends = time.monotonic() + 10.0
        while True:
            try:
                client.models.list()
            except openai.AuthenticationError:
                break
            assert time.monotonic() < ends
    httpx.get(f"{platform.url}/v1/models?api_key={API_KEY}", timeout=30)
    for path in platform.data_dir.rglob("*.log"):
        text = path.read_text(errors="replace")
        for secret in (key, ADMIN_KEY, API_KEY, PROMPT):
            assert secret not in text, (path, secret)
