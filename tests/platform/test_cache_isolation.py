"""Two organisations with the same prompt never share a prefix cache: by vLLM's own counters."""

import json

import httpx
import pytest
from openai import OpenAI

from tests.platform.platform import Platform, eventually

pytestmark = pytest.mark.engine

PROMPT = "Tell me about hosts, engines, pools and the gateway of Penstock, please. " * 12
"""Several blocks of the cache long."""

HITS = "vllm:prefix_cache_hits_total"
QUERIES = "vllm:prefix_cache_queries_total"


def key_of(platform: Platform, organisation: str) -> str:
    """A key of a new organisation's."""
    for command in (
        ["org", "create", organisation],
        ["project", "create", f"{organisation}/main"],
        ["key", "create", f"key-of-{organisation}", "--project", f"{organisation}/main"],
    ):
        done = platform.penstock(*command, "--output", "json")
        assert done.returncode == 0, done.stderr
    key = str(json.loads(done.stdout)["secret"])
    headers = {"Authorization": f"Bearer {key}"}
    eventually(
        lambda: httpx.get(f"{platform.url}/v1/models", headers=headers, timeout=30).is_success,
        within_s=10,
        what=f"the gateway knows the key of {organisation}",
    )
    return key


def cached_tokens(client: OpenAI, prompt: str = PROMPT, **extra: object) -> int:
    """Of the prompt, as the answer says."""
    answer = client.completions.create(
        model="guide", prompt=prompt, max_tokens=1, extra_body=extra or None
    )
    assert answer.usage is not None
    details = answer.usage.prompt_tokens_details
    return (details.cached_tokens or 0) if details else 0


def test_one_organisation_hits_its_own_cache_and_never_anothers(platform: Platform) -> None:
    clients = [
        OpenAI(base_url=f"{platform.url}/v1", api_key=key_of(platform, name), max_retries=20)
        for name in ("isolated-a", "isolated-b")
    ]
    ours, theirs = clients
    cached_tokens(ours, "wakes the engine")

    def hits() -> float:
        return platform.engine_metric("guide", HITS)

    before = hits()
    assert cached_tokens(ours) == 0
    assert cached_tokens(ours) > 0  # the same organisation's second time
    own = hits()
    assert own > before
    assert cached_tokens(theirs) == 0  # the other organisation's first time
    assert hits() == own
    assert cached_tokens(theirs) > 0
    assert platform.engine_metric("guide", QUERIES) > 0
    for client in clients:
        client.close()


def test_tenant_cannot_choose_the_salt(client: OpenAI) -> None:
    with pytest.raises(Exception, match="cache_salt may not be set"):
        cached_tokens(client, cache_salt="mine")
