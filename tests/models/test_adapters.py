"""Adapters that fit their model, and all the ways in which they do not."""

from pathlib import Path
from typing import Any

import pytest

from models import sources
from models.adapters import AdapterError, check_adapter
from models.cache import NodeCache
from models.manifest import parse_manifest
from models.sources import Access
from tests.models.adapter_files import write_adapter, write_base
from tests.models.hub import COMMIT, hub


def test_adapter_that_fits_is_taken(tmp_path: Path) -> None:
    check_adapter(write_adapter(tmp_path / "a"), write_base(tmp_path / "b"), max_rank=8)


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({"rank": 32}, "rank 32"),
        ({"rank_pattern": {"o_proj": 64}}, "rank 64"),
        ({"width": 16}, "width 16"),
        ({"layer": "transformer.h.0.mlp"}, "none of the layers"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "DoRA"),
        ({"r": None}, "no rank"),
    ],
)
def test_adapter_that_does_not_fit_is_refused_with_a_reason(
    tmp_path: Path, adapter: dict[str, Any], said: str
) -> None:
    folder, base = write_adapter(tmp_path / "a", **adapter), write_base(tmp_path / "b")
    with pytest.raises(AdapterError, match=said) as refused:
        check_adapter(folder, base, max_rank=16)
    assert refused.value.hint or "no rank" in said or "IA3" in said


def test_layers_that_the_base_keeps_in_another_form_are_not_compared(tmp_path: Path) -> None:
    base = write_base(tmp_path / "b", width=16, layer="model.layers.0.self_attn.o_proj.base")
    check_adapter(write_adapter(tmp_path / "a"), base)


@pytest.mark.parametrize("fault", ["cut", "no weights", "no config", "half", "no folder"])
def test_broken_folder_is_refused(tmp_path: Path, fault: str) -> None:
    folder = write_adapter(tmp_path / "a")
    weights = folder / "adapter_model.safetensors"
    match fault:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-3])
        case "no weights":
            weights.rename(folder / "adapter_model.bin")
        case "no config":
            (folder / "adapter_config.json").unlink()
        case "half":
            (folder / "adapter_model.safetensors.incomplete").touch()
        case "no folder":
            folder = tmp_path / "elsewhere"
    with pytest.raises(AdapterError):
        check_adapter(folder)


def test_adapter_of_the_hub_is_pinned_and_fetched(tmp_path: Path) -> None:
    write_adapter(tmp_path / "repo")
    access = Access(adapter=True)
    with hub("acme/pirate", tmp_path / "repo") as (endpoint, _):
        weights = {"endpoint": endpoint}
        manifest = parse_manifest({"name": "m", "source": "hf://acme/pirate", "weights": weights})
        door = manifest.weights.access(_NoSecrets()).door
        access = Access(door=door, adapter=True)
        found = sources.inspect("hf://acme/pirate", access)
        assert found.source == f"hf://acme/pirate@{COMMIT}"
        have = sources.have(found.source, access, NodeCache(tmp_path / "cache"))
        check_adapter(have.folder)
        have.release()


def test_local_adapter_is_copied_so_that_nobody_can_take_it_away(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a")
    cache = NodeCache(tmp_path / "cache")
    have = sources.have(f"file://{folder}", Access(adapter=True, copy=True), cache)
    (folder / "adapter_model.safetensors").unlink()
    check_adapter(have.folder)
    have.release()


class _NoSecrets:
    def read(self, reference: str | None) -> str | None:
        return None
