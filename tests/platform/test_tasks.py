"""Models that embed and score, and what a model does not do: through every route, and metered."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.platform.conftest import API_KEY
from tests.platform.platform import Platform, eventually

pytestmark = pytest.mark.engine

MAKE = Path(__file__).parents[2] / "scripts" / "make_tiny.py"
NAMES = {"tiny-embedder": "embedding", "tiny-reranker": "reranker"}
CHAT = {"messages": [{"role": "user", "content": "What is Penstock?"}], "max_tokens": 5}


@pytest.fixture(scope="module")
def tenant(platform: Platform) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=platform.url, headers=headers, timeout=120) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def deployed(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Both models, asleep."""
    folder = tmp_path_factory.mktemp("tiny")
    for name, kind in NAMES.items():
        command = [sys.executable, MAKE, kind, folder / name]
        subprocess.run(command, check=True, capture_output=True)
        document = {
            "name": name,
            "source": (folder / name).as_uri(),
            "engine": {"max_num_seqs": 4, "kv_cache_gib": 0.03},
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document))
        done = platform.penstock("deploy", "-f", str(path))
        assert done.returncode == 0, done.stderr
        assert platform.is_listed(name)
    yield
    for name in NAMES:
        platform.delete(name)
    eventually(
        lambda: not [e for e in platform.items("engines") if e["model"] in NAMES],
        30, "engines of the deleted models end",
    )  # fmt: skip


def post(tenant: httpx.Client, path: str, model: str, **body: Any) -> httpx.Response:
    return tenant.post(path, json={"model": model, **body})


def ask(tenant: httpx.Client, path: str, model: str, **body: Any) -> dict[str, Any]:
    answer = post(tenant, path, model, **body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize(
    ("model", "path", "body", "instead"),
    [
        ("tiny-embedder", "/v1/chat/completions", CHAT, "/v1/embeddings"),
        ("tiny-embedder", "/v1/messages", CHAT, "/v1/embeddings"),
        ("tiny-reranker", "/v1/completions", {"prompt": "a"}, "/v1/rerank"),
        ("tiny-reranker", "/v1/embeddings", {"input": "a"}, "/v1/rerank"),
        ("guide", "/v1/embeddings", {"input": "a"}, "/v1/chat/completions"),
        ("guide", "/v1/rerank", {"query": "a", "documents": ["b"]}, "/v1/chat/completions"),
    ],
)
def test_what_a_model_cannot_do_is_refused_and_wakes_nobody(
    platform: Platform, tenant: httpx.Client, model: str, path: str, body: dict[str, Any],
    instead: str,
) -> None:  # fmt: skip
    answer = post(tenant, path, model, **body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("model", "unsupported_task")
    assert instead in error["message"]
    if model in NAMES:
        assert not [e for e in platform.items("engines") if e["model"] == model]


def test_embeddings_scores_and_ranks_are_answered_and_metered(
    platform: Platform, tenant: httpx.Client, admin: httpx.Client
) -> None:
    texts = ["water", "a turbine"]
    embedded = ask(tenant, "/v1/embeddings", "tiny-embedder", input=texts)
    assert [len(item["embedding"]) for item in embedded["data"]] == [64, 64]
    again = ask(tenant, "/v1/embeddings", "tiny-embedder", input=texts[0])
    assert again["data"][0]["embedding"] == pytest.approx(
        embedded["data"][0]["embedding"], abs=1e-4
    )
    spent = {"tiny-embedder": embedded["usage"]["prompt_tokens"] + again["usage"]["prompt_tokens"]}

    scored = ask(tenant, "/v1/score", "tiny-reranker", text_1="water", text_2=texts)
    scores = [item["score"] for item in scored["data"]]
    assert all(0 <= score <= 1 for score in scores) and len(set(scores)) == 2
    ranked = ask(tenant, "/v1/rerank", "tiny-reranker", query="water", documents=texts)
    order = [item["index"] for item in ranked["results"]]
    assert order == sorted(range(2), key=lambda index: -scores[index])
    spent["tiny-reranker"] = scored["usage"]["prompt_tokens"] + ranked["usage"]["prompt_tokens"]

    def metered() -> dict[str, int]:
        answer = admin.get("/usage", params={"by": "model"})
        assert answer.status_code == 200, answer.text
        items = answer.json()["items"]
        return {item["group"]: item["prompt_tokens"] for item in items if item["group"] in NAMES}

    eventually(lambda: metered() == spent, 30, f"usage is {spent}")


def test_chat_model_answers_responses_and_messages(tenant: httpx.Client) -> None:
    response = ask(tenant, "/v1/responses", "guide", input="What is Penstock?", max_output_tokens=5)
    assert response["output"][-1]["content"][0]["text"]
    message = ask(tenant, "/v1/messages", "guide", **CHAT)
    assert message["content"][0]["text"]
    assert message["usage"]["output_tokens"] == 5
