"""LoRA adapters on real engines: they change the answer under their name, and nothing else."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml
from openai import OpenAI

from models.sources import BUILTINS
from tests.platform.conftest import API_KEY
from tests.platform.platform import Platform, eventually

pytestmark = pytest.mark.engine

MAKE = Path(__file__).parents[2] / "scripts" / "make_tiny.py"
NAME = "voices"
PIRATE = f"{NAME}:pirate"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of the built-in model, one of too high a rank, and one of another model."""
    folder = tmp_path_factory.mktemp("adapters")
    other = folder / "other"
    runs: dict[str, list[Any]] = {
        "pirate": [BUILTINS["guide"], "--rank", "8"],
        "large": [BUILTINS["guide"], "--rank", "64"],
    }
    for name, flags in runs.items():
        command = [sys.executable, MAKE, "adapter", flags[0], folder / name, *flags[1:]]
        subprocess.run(command, check=True, capture_output=True)
    _write_other_base(other)
    subprocess.run([sys.executable, MAKE, "adapter", other, folder / "foreign"], check=True,
                   capture_output=True)  # fmt: skip
    return {name: folder / name for name in ("pirate", "large", "foreign")}


def _write_other_base(folder: Path) -> None:
    """A model whose layers have the built-in one's names, and other widths."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir()
    layer = "model.layers.0.mlp.down_proj.weight"
    save_file({layer: np.zeros((64, 96), np.float32)}, folder / "model.safetensors")


@pytest.fixture
def deployed(platform: Platform, tmp_path: Path) -> Iterator[None]:
    document = {
        "name": NAME,
        "source": "builtin://guide",
        "engine": {"max_num_seqs": 4, "kv_cache_gib": 0.03, "lora": {"at_once": 2}},
        "scaling": {"min": 1, "max": 2, "idle_timeout_s": 600},
    }
    path = tmp_path / "voices.yaml"
    path.write_text(yaml.safe_dump(document))
    done = platform.penstock("deploy", "-f", str(path), "--wait")
    assert done.returncode == 0, done.stderr
    assert platform.is_listed(NAME)
    yield
    platform.delete(NAME)
    eventually(lambda: not engines(platform), 30, "engines of the deleted model end")


def engines(platform: Platform, phase: str = "") -> list[dict[str, Any]]:
    found = [e for e in platform.items("engines") if e["model"] == NAME]
    return [e for e in found if e["phase"] == phase] if phase else found


def say(client: OpenAI, model: str) -> str:
    answer = client.completions.create(
        model=model, prompt="What is Penstock?", max_tokens=12, temperature=0, timeout=60
    )
    assert answer.model == model
    return answer.choices[0].text


def loaded(admin: httpx.Client) -> tuple[int, int]:
    (view,) = admin.get(f"/models/{NAME}/adapters").json()["items"]
    return view["loaded"], view["engines"]


def test_adapter_is_heard_under_its_name_alone_through_death_and_scale_up(
    platform: Platform, client: OpenAI, admin: httpx.Client, deployed: None, made: dict[str, Path]
) -> None:
    plain = say(client, NAME)
    (engine,) = engines(platform)
    added = platform.penstock("adapter", "add", NAME, "pirate", made["pirate"].as_uri())
    assert added.returncode == 0, added.stderr
    assert "loaded in 1 of 1 engines" in added.stderr
    assert platform.is_listed(PIRATE)
    assert [e["engine_id"] for e in engines(platform)] == [engine["engine_id"]]
    rough = say(client, PIRATE)
    assert rough != plain
    assert say(client, NAME) == plain
    assert {NAME, PIRATE} <= {model.id for model in client.models.list()}

    reasons = {
        "large": ("rank 64", "max_rank"),
        "foreign": ("another base model", "base_model_name_or_path"),
    }
    for name, (said, advice) in reasons.items():
        refused = platform.penstock("adapter", "add", NAME, name, made[name].as_uri())
        assert refused.returncode == 2
        assert said in refused.stderr and advice in refused.stderr
    assert say(client, NAME) == plain

    os.kill(engine["pid"], signal.SIGKILL)
    eventually(
        lambda: [e for e in engines(platform, "ready") if e["engine_id"] != engine["engine_id"]],
        120, "another engine serves",
    )  # fmt: skip
    assert (say(client, PIRATE), say(client, NAME)) == (rough, plain)

    assert platform.penstock("scale", NAME, "--min", "2").returncode == 0
    eventually(lambda: loaded(admin) == (2, 2), 120, "the second engine has it too")
    for _ in range(6):
        assert (say(client, PIRATE), say(client, NAME)) == (rough, plain)

    def used() -> set[str]:
        done = platform.penstock("usage", "--by", "model", "--output", "json")
        assert done.returncode == 0, done.stderr
        return {item["group"] for item in json.loads(done.stdout)["items"]}

    eventually(lambda: {NAME, PIRATE} <= used(), 30, "both are metered, each by its name")

    assert platform.penstock("adapter", "rm", NAME, "pirate").returncode == 0

    def is_gone() -> bool:
        try:
            say(client, PIRATE)
        except openai.NotFoundError:
            return True
        return False

    eventually(is_gone, 20, "the adapter is gone")
    assert say(client, NAME) == plain


def test_tenants_cannot_load_adapters(platform: Platform) -> None:
    body = {"lora_name": "mine", "lora_path": "/etc"}
    headers = {"Authorization": f"Bearer {API_KEY}"}
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        answer = httpx.post(f"{platform.url}{path}", json=body, headers=headers, timeout=30)
        assert answer.status_code == 404
