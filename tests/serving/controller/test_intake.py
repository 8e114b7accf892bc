"""What a deploy looks at before it becomes a revision, over a real hub on loopback."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.protocol import FetchReport
from tests.models.hub import COMMIT, hub
from tests.models.test_sources import write_model
from tests.serving.controller.served import Served, serve
from tests.serving.controller.world import settings


@pytest.fixture
async def served(database_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "HUB").write_text("hf_secret\n")
    chosen = settings(
        database_url=database_url,
        pools={"cpu": 2, "h200x1": 1},
        secrets_dir=tmp_path / "secrets",
        allow_pickle=True,
    )
    async with serve(chosen) as served:
        yield served


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return write_model(tmp_path / "repo")


async def deploy(served: Served, source: str, query: str = "", **fields: Any) -> httpx.Response:
    body = {"name": "mine", "source": source, **fields}
    return await served.admin.post(f"/admin/v1/models{query}", json=body)


def told(response: httpx.Response) -> str:
    return str(response.json()["error"]["message"])


async def test_source_is_pinned_to_a_commit_and_kept_so(served: Served, repo: Path) -> None:
    with hub("acme/tiny", repo) as (endpoint, _):
        weights = {"endpoint": endpoint}
        first = await deploy(served, "hf://acme/tiny@main", weights=weights)
        assert first.json()["manifest"]["source"] == f"hf://acme/tiny@{COMMIT}"
        again = await deploy(served, "hf://acme/tiny", weights=weights)
        assert (again.json()["changed"], again.json()["revision"]) == (False, 1)
    # A pinned source may be deployed while its place is away: hosts may have it.
    away = await deploy(served, f"hf://acme/tiny@{COMMIT}", weights=weights)
    assert away.json()["changed"] is False
    assert "not looked at" in away.json()["warnings"][0]
    unpinned = await deploy(served, "hf://acme/tiny", weights=weights)
    assert (unpinned.status_code, "could not be fetched" in told(unpinned)) == (503, True)


async def test_dry_run_changes_nothing(served: Served, repo: Path) -> None:
    with hub("acme/tiny", repo) as (endpoint, _):
        answer = await deploy(
            served, "hf://acme/tiny", "?dry_run=true", weights={"endpoint": endpoint}
        )
        assert answer.json()["manifest"]["source"].endswith(COMMIT)
        assert (answer.json()["changed"], answer.json()["revision"]) == (True, 1)
    assert (await served.admin.get("/admin/v1/models")).json() == {"items": []}


async def test_token_comes_from_a_named_secret_and_is_never_shown(
    served: Served, repo: Path
) -> None:
    with hub("acme/tiny", repo, token="hf_secret", gated=True) as (endpoint, _):
        weights = {"endpoint": endpoint}
        gated = await deploy(served, "hf://acme/tiny", weights=weights)
        assert (gated.status_code, "is gated" in told(gated)) == (400, True)
        missing = await deploy(
            served, "hf://acme/tiny", weights=weights | {"token": "${secret:NONE}"}
        )
        assert told(missing) == "there is no secret NONE"
        plain = await deploy(served, "hf://acme/tiny", weights=weights | {"token": "hf_secret"})
        assert plain.status_code == 400
        granted = await deploy(
            served, "hf://acme/tiny", weights=weights | {"token": "${secret:HUB}"}
        )
        assert granted.status_code == 201
        shown = (await served.admin.get("/admin/v1/models/mine")).text
        assert "hf_secret" not in granted.text + shown
        assert "${secret:HUB}" in shown


async def test_two_deploys_at_once_one_wins_the_other_is_told(served: Served) -> None:
    first = await deploy(served, "builtin://guide", "?if_revision=0")
    second = await deploy(served, "builtin://guide", "?if_revision=0", engine={"max_num_seqs": 3})
    assert (first.status_code, second.status_code) == (201, 409)
    assert "by somebody else meanwhile: revision 1" in told(second)
    third = await deploy(served, "builtin://guide", "?if_revision=1", engine={"max_num_seqs": 3})
    assert third.json()["revision"] == 2


async def test_unknown_architecture_names_those_of_vllm(served: Served, repo: Path) -> None:
    (repo / "config.json").write_text('{"architectures": ["Qwen3ForCausaLM"]}')
    with hub("acme/tiny", repo) as (endpoint, _):
        refused = await deploy(served, "hf://acme/tiny", weights={"endpoint": endpoint})
    assert refused.status_code == 400
    assert "'Qwen3ForCausaLM'" in told(refused)
    assert "Qwen3ForCausalLM" in told(refused)


async def test_pickled_weights_need_the_manifests_word(served: Served, repo: Path) -> None:
    (repo / "model.safetensors").unlink()
    (repo / "pytorch_model.bin").write_bytes(b"pickle")
    with hub("acme/tiny", repo) as (endpoint, _):
        weights: dict[str, object] = {"endpoint": endpoint}
        refused = await deploy(served, "hf://acme/tiny", weights=weights)
        assert "no *.safetensors weights" in told(refused)
        allowed = await deploy(served, "hf://acme/tiny", weights=weights | {"allow_pickle": True})
        assert allowed.status_code == 201


async def test_remote_code_needs_the_operators_word(served: Served) -> None:
    refused = await deploy(served, "builtin://guide", engine={"trust_remote_code": True})
    assert refused.status_code == 403
    assert "engine.trust_remote_code is not allowed" in told(refused)


async def test_model_that_cannot_fit_says_by_how_much(served: Served, repo: Path) -> None:
    (repo / "config.json").write_text(
        '{"architectures": ["LlamaForCausalLM"], "hidden_size": 8192, "num_hidden_layers": 80,'
        ' "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672,'
        ' "vocab_size": 128256, "max_position_embeddings": 131072, "torch_dtype": "bfloat16"}'
    )
    with hub("acme/tiny", repo) as (endpoint, _):
        refused = await deploy(
            served,
            "hf://acme/tiny",
            weights={"endpoint": endpoint},
            resources={"accelerator": "h200", "gpus": 1},
        )
    assert refused.status_code == 400
    assert "GiB too much" in told(refused)
    assert refused.json()["error"]["code"] == "does_not_fit"


async def test_half_written_local_folder_is_named(served: Served, repo: Path) -> None:
    index = repo / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-2.safetensors"}}')
    answer = await deploy(served, f"file://{repo}")
    assert "half written" in answer.json()["warnings"][0]
    assert "model-2.safetensors" in answer.json()["warnings"][0]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Qwen3", "write it in lower case: 'qwen3'"),
        ("q" * 200, "at most 63 characters; this has 200"),
        ("-x", "must begin and end with a letter or digit"),
    ],
)
async def test_bad_name_says_what_is_wrong(served: Served, name: str, says: str) -> None:
    refused = await served.admin.post(
        "/admin/v1/models", json={"name": name, "source": "builtin://guide"}
    )
    assert refused.status_code == 400
    assert says in told(refused)


async def test_weights_are_fetched_beforehand_on_every_host_of_the_pool(
    served: Served, repo: Path
) -> None:
    host = await served.host("h1")
    with hub("acme/tiny", repo) as (endpoint, _):
        await deploy(served, "hf://acme/tiny", weights={"endpoint": endpoint})
    assert [m.source for m in (await host.poll()).prefetch or ()] == [f"hf://acme/tiny@{COMMIT}"]
    known = await served.internal.get(
        "/internal/v1/hosts/h1/assignment", params={"prefetch": host.assignment.prefetch_id}
    )
    assert known.json()["prefetch"] is None, "what a host knows is not on a cold start's way"
    late = await served.host("h2")
    assert [m.name for m in (await late.poll()).prefetch or ()] == ["mine"]
    earlier = {"model": "mine", "source": "hf://acme/tiny@0", "done": True}
    now = {"model": "mine", "source": f"hf://acme/tiny@{COMMIT}", "done_bytes": 5}
    for reported, shown in (([], (0, False)), ([earlier], (0, False)), ([now], (5, False))):
        await served.internal.post("/internal/v1/hosts/h1/report", json={"fetches": reported})
        (fetch,) = (await served.admin.get("/admin/v1/models/mine")).json()["fetches"]
        assert (fetch["done_bytes"], fetch["done"]) == shown
    await served.admin.delete("/admin/v1/models/mine")
    assert (await host.poll()).prefetch == ()


async def test_start_that_fetches_its_weights_has_no_time_limit(served: Served, repo: Path) -> None:
    await served.host("h1")
    await deploy(served, "builtin://guide", scaling={"min": 1})
    loop = served.controller.loop
    while not loop.fleet.bound():  # noqa: ASYNC110  # the loop runs by itself
        await asyncio.sleep(0.01)
    (engine,) = loop.fleet.bound()
    host = loop.fleet.find("h1")
    assert host is not None
    late_s = engine.bound_s + 1000.0
    assert loop.fleet.fetched_s(engine, late_s) == 0.0
    host.fetches = (FetchReport(model="mine", source="x", done_bytes=1, total_bytes=2),)
    assert loop.fleet.fetched_s(engine, late_s) == late_s
    host.fetches = ()
    assert loop.fleet.fetched_s(engine, late_s + 5.0) == late_s
