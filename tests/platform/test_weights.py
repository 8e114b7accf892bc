"""Models of an object store and a hub, served end to end: fetched at the deploy, not at a wake."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai import InternalServerError, OpenAI

from models.sources import BUILTINS
from tests.models.buckets import BUCKET, KEY_ID, SECRET, s3
from tests.models.hub import COMMIT, hub
from tests.platform.platform import Platform, eventually

pytestmark = pytest.mark.engine

HELLO = [{"role": "user", "content": "Hello"}]
ENGINE = {"max_num_seqs": 8, "kv_cache_gib": 0.03}


@pytest.fixture
def secrets(platform: Platform) -> Iterator[None]:
    folder = platform.data_dir / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    values = {"S3_KEY_ID": KEY_ID, "S3_SECRET": SECRET, "HUB_TOKEN": "hf_secret"}
    for name, value in values.items():
        (folder / name).write_text(value)
    yield
    for name in values:
        (folder / name).unlink()


def deploy(
    platform: Platform, tmp_path: Path, name: str, source: str, weights: dict[str, str]
) -> dict[str, Any]:
    """Deploys with `--wait`, which ends when the weights are on the node; returns the model."""
    path = tmp_path / f"{name}.yaml"
    document = {"name": name, "source": source, "weights": weights, "engine": ENGINE}
    path.write_text(yaml.safe_dump(document))
    done = platform.penstock("deploy", "-f", str(path))
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stderr
    again = platform.penstock("deploy", "-f", str(path), "--dry-run")
    assert "nothing would change" in again.stderr, again.stdout
    assert platform.is_listed(name)
    return platform.model(name)


def answer(client: OpenAI, model: str) -> str | None:
    reply = client.chat.completions.create(
        model=model, messages=HELLO, temperature=0, max_tokens=40, timeout=100
    )
    return reply.choices[0].message.content


def cached(platform: Platform, source: str) -> dict[str, Any]:
    folder = str(platform.data_dir / "cache")
    done = platform.penstock("cache", "list", "--output", "json", "--cache-dir", folder)
    assert done.returncode == 0, done.stderr
    return next(i for i in json.loads(done.stdout)["items"] if i["source"].startswith(source))


def delete(platform: Platform, name: str) -> None:
    assert platform.penstock("delete", name).returncode == 0
    eventually(
        lambda: not [e for e in platform.items("engines") if e["model"] == name], 30, "it ends"
    )


def test_model_of_an_object_store_is_served(
    platform: Platform, client: OpenAI, secrets: None, tmp_path: Path
) -> None:
    with s3() as store:
        store.put("guide", BUILTINS["guide"])
        model = deploy(
            platform,
            tmp_path,
            "from-s3",
            f"s3://{BUCKET}/guide",
            {
                "endpoint": store.url,
                "region": "us-east-1",
                "access_key_id": "${secret:S3_KEY_ID}",
                "secret_access_key": "${secret:S3_SECRET}",
            },
        )
    # The store is gone: the first wake needs nothing of it.
    assert model["source"].startswith(f"s3://{BUCKET}/guide#")
    assert all(fetch["done"] for fetch in model["fetches"])
    assert answer(client, "from-s3") == answer(client, "guide")
    assert cached(platform, f"s3://{BUCKET}/guide")["in_use"]
    delete(platform, "from-s3")
    eventually(
        lambda: not cached(platform, f"s3://{BUCKET}/guide")["in_use"], 10, "its weights are free"
    )


def test_model_of_a_gated_repository_is_served(
    platform: Platform, client: OpenAI, secrets: None, tmp_path: Path
) -> None:
    with hub("acme/guide", BUILTINS["guide"], token="hf_secret", gated=True) as (endpoint, _):
        model = deploy(
            platform,
            tmp_path,
            "from-hub",
            "hf://acme/guide@main",
            {"endpoint": endpoint, "token": "${secret:HUB_TOKEN}"},
        )
        assert model["source"] == f"hf://acme/guide@{COMMIT}"
        # Somebody writes into the node's cache: the next start finds it, and fetches that anew.
        key = cached(platform, "hf://acme/guide")["key"]
        weights = platform.data_dir / "cache" / "snapshots" / key / "model.safetensors"
        weights.resolve().chmod(0o644)
        weights.resolve().write_bytes(b"broken")
        assert answer(client, "from-hub") == answer(client, "guide")
        traced = platform.penstock("trace", "from-hub")
        assert "fetched" in traced.stdout
    described = platform.penstock("describe", "from-hub")
    assert "weights are on" in described.stdout
    assert "hf_secret" not in described.stdout + described.stderr
    delete(platform, "from-hub")


@pytest.fixture
def full_disk(platform: Platform) -> Iterator[None]:
    """The node's cache lies on a disk of 2 MiB, less than the guide's weights."""
    folder = platform.data_dir / "cache"
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk that is full")
    yield
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


def test_full_disk_at_a_fetch_fails_that_model_alone_and_says_so(
    platform: Platform, client: OpenAI, full_disk: None, tmp_path: Path
) -> None:
    with hub("acme/large", BUILTINS["guide"]) as (endpoint, _):
        path = tmp_path / "large.yaml"
        document = {"name": "large", "source": "hf://acme/large@main", "engine": ENGINE}
        path.write_text(yaml.safe_dump(document | {"weights": {"endpoint": endpoint}}))
        done = platform.penstock("deploy", "-f", str(path))
        assert done.returncode != 0
        assert "disk of the node cache is full" in done.stderr and "hint:" in done.stderr
        assert platform.is_listed("large")
        with pytest.raises(InternalServerError, match="large has failed"):
            answer(client, "large")
        assert "disk of the node cache is full" in platform.penstock("describe", "large").stdout
        assert answer(client, "guide")
        subprocess.run(["umount", "--lazy", str(platform.data_dir / "cache")], check=True)  # room
        again = platform.penstock("deploy", "-f", str(path))
        assert again.returncode == 0, again.stderr
        assert answer(client, "large") == answer(client, "guide")
    delete(platform, "large")
