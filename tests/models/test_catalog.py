"""The catalog: every file valid, every variant fits its hardware by the planner."""

from pathlib import Path

import pytest

from models import catalog
from models.catalog import CatalogError, CatalogNotFoundError, Entry, Task, Variant
from models.errors import BadRequestError
from models.hardware import hardware_named
from models.manifest import load_manifest
from models.sizing import Ask, plan

ENTRIES = catalog.entries()
VARIANTS = [
    pytest.param(entry, variant, id=f"{entry.name}-{variant.resources.pool}")
    for entry in ENTRIES
    for variant in entry.variants
]


def test_catalog_has_the_models_that_people_serve() -> None:
    assert {
        "llama-3.1-8b", "llama-3.3-70b", "llama-3.1-405b", "qwen3-0.6b", "qwen3-8b", "qwen3-32b",
        "qwen3-235b-a22b", "deepseek-r1", "deepseek-v3", "gpt-oss-20b", "gpt-oss-120b",
        "mistral-small-24b", "gemma-3-27b", "bge-m3", "bge-reranker-v2-m3", "guide",
    } <= set(catalog.names())  # fmt: skip
    assert {entry.task for entry in ENTRIES} == set(Task)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_entry_covers_the_hardware(entry: Entry) -> None:
    accelerators = {variant.resources.accelerator for variant in entry.variants}
    if not entry.source.startswith("builtin://"):
        assert {"h200", "gb200", "h100"} <= accelerators


@pytest.mark.parametrize(("entry", "variant"), VARIANTS)
def test_variant_is_a_manifest(entry: Entry, variant: Variant) -> None:
    manifest = entry.manifest(variant)
    assert manifest.name == entry.name
    assert manifest.source == (variant.source or entry.source)
    assert manifest.resources == variant.resources


@pytest.mark.parametrize(("entry", "variant"), VARIANTS)
def test_variant_fits_by_the_planner(entry: Entry, variant: Variant) -> None:
    engine = entry.manifest(variant).engine
    resources = variant.resources
    longest = engine.max_model_len or entry.architecture.max_context
    found = plan(
        Ask(
            model=entry.name,
            architecture=entry.architecture,
            hardware=hardware_named(resources.accelerator),
            weights=variant.weights,
            cache=variant.cache,
            context=longest,
            concurrency=engine.max_num_seqs,
            tensor_parallel=resources.tensor_parallel,
            pipeline_parallel=resources.pipeline_parallel,
        )
    )
    # vLLM refuses to start where not one sequence of max_model_len fits.
    assert found.max_concurrency >= 1
    assert resources.gpus in (0, found.devices)
    if resources.accelerator == "cpu":
        cache_gib = engine.kv_cache_gib or 0.0625
        assert cache_gib >= found.cache_gib_a_sequence
        needed = found.memory.weights_gib + found.memory.reserve_gib + cache_gib
        assert resources.memory_gib >= needed


def test_plain_manifest_is_an_entry() -> None:
    entry = catalog.entry_named("guide")
    assert entry.manifest(entry.variants[0]) == load_manifest(catalog.FOLDER / "guide.yaml")


def test_variant_goes_over_the_entry() -> None:
    entry = catalog.entry_named("Qwen3-8B")
    manifest = entry.manifest(entry.for_accelerator("h200"))
    assert manifest.engine.tool_parser == "hermes"  # the entry's
    assert manifest.engine.args == {"kv_cache_dtype": "fp8"}  # the variant's
    assert manifest.source == "hf://Qwen/Qwen3-8B-FP8"


def test_arguments_of_entry_and_variant_are_joined(tmp_path: Path) -> None:
    entry = catalog.load_entry(written(tmp_path, "engine: {args: {kv_cache_dtype: fp8}}"))
    assert entry.manifest(entry.variants[0]).engine.args == {
        "runner": "pooling",
        "kv_cache_dtype": "fp8",
    }


def test_variant_is_found_by_accelerator_or_pool() -> None:
    entry = catalog.entry_named("llama-3.1-405b")
    assert entry.for_accelerator("GB200") is entry.for_accelerator("gb200x4")
    assert entry.for_pools(["cpu", "h100x8"]).resources.pool == "h100x8"
    with pytest.raises(BadRequestError, match="for a100") as caught:
        entry.for_accelerator("a100")
    assert "h200x8" in (caught.value.hint or "")
    with pytest.raises(BadRequestError, match="no pool"):
        entry.for_pools(["cpu"])


def test_unknown_name_is_not_found() -> None:
    for name in ("gpt-5", "../manifest", ""):
        with pytest.raises(CatalogNotFoundError):
            catalog.entry_named(name)


def written(folder: Path, extra: str = "", name: str = "mine") -> Path:
    path = folder / "mine.yaml"
    path.write_text(
        f"""
apiVersion: penstock/v1
kind: CatalogEntry
name: {name}
title: Mine
task: embed
licence: MIT
config: {{architectures: [LlamaForCausalLM]}}
source: hf://me/mine
engine: {{args: {{runner: pooling}}}}
variants:
  - weights: bf16
    resources: {{accelerator: h200, gpus: 1}}
    {extra}
"""
    )
    return path


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("colour: red", "colour"),
        ("source: ftp://x", "source"),
        ("engine: {max_num_seqs: 0}", "max_num_seqs"),
        ("engine: {args: {port: 1}}", "port"),
    ],
)
def test_file_edited_by_hand_names_the_field(extra: str, says: str, tmp_path: Path) -> None:
    path = written(tmp_path, extra)
    with pytest.raises(CatalogError, match=says) as caught:
        catalog.load_entry(path)
    assert str(path) in str(caught.value)


def test_file_must_have_the_name_of_its_entry(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="must have its name"):
        catalog.load_entry(written(tmp_path, name="other"))


@pytest.mark.parametrize("text", ["[", "- a", "", "kind: Model\nname: mine\n"])
def test_broken_file_is_a_clear_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(CatalogError, match=r"mine\.yaml"):
        catalog.load_entry(path)


def test_two_variants_for_one_pool_are_refused(tmp_path: Path) -> None:
    twin = "\n  - weights: fp8\n    resources: {accelerator: h200, gpus: 1}"
    with pytest.raises(CatalogError, match="share a pool"):
        catalog.load_entry(written(tmp_path, twin))


def test_built_in_manifest_of_an_unknown_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("kind: Model\nname: mine\nsource: hf://me/mine\n")
    with pytest.raises(CatalogError, match="built-in"):
        catalog.load_entry(path)
