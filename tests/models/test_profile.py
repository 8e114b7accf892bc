"""Tuned profiles: every file valid, every one fits its hardware, the manifest's own words win."""

from pathlib import Path
from typing import get_args

import pytest

from models import catalog
from models.catalog import Entry, Task, Variant
from models.hardware import hardware_named
from models.manifest import EngineSpec, Goal, Manifest, parse_manifest
from models.precision import Precision
from models.profile import (
    COMMON,
    FOLDER,
    Mark,
    ProfileError,
    load_profiles,
    manifest_with_goal,
    settings_of,
    with_profile,
)
from models.roofline import Deployment

GOALS: tuple[Goal, ...] = get_args(Goal)
FILES = sorted(FOLDER.glob("*.yaml"))
TUNED = [
    pytest.param(entry, variant, goal, id=f"{entry.name}-{variant.resources.pool}-{goal}")
    for entry in catalog.entries()
    for variant in entry.variants
    if variant.resources.accelerator in ("h200", "gb200", "h100", "cpu")
    for goal in GOALS
]


def tuned(entry: Entry, variant: Variant, goal: Goal) -> Manifest:
    return with_profile(manifest_with_goal(entry.manifest(variant), goal))


def test_each_model_of_the_catalog_has_a_file() -> None:
    assert {path.stem for path in FILES} == {COMMON, *catalog.names()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_is_valid(path: Path) -> None:
    profiles = load_profiles(path)
    reasons = [s.why for layer in profiles.layers for s in layer.settings.values()]
    assert all(reason == reason.strip() for reason in reasons)


@pytest.mark.parametrize(("entry", "variant", "goal"), TUNED)
def test_profile_fits_by_the_planner(entry: Entry, variant: Variant, goal: Goal) -> None:
    manifest = tuned(entry, variant, goal)
    engine, resources = manifest.engine, variant.resources
    if resources.accelerator == "cpu":
        return  # the cache of an engine on a CPU is what its manifest says
    fp8 = str(engine.args.get("kv_cache_dtype")).startswith("fp8")
    deployment = Deployment(
        entry.architecture,
        hardware_named(resources.accelerator),
        variant.weights,
        Precision.FP8 if fp8 else Precision.BF16,
        resources.tensor_parallel,
        resources.pipeline_parallel,
    )
    batched = engine.args["max_num_batched_tokens"]
    assert isinstance(batched, int)
    longest = engine.max_model_len or entry.architecture.max_context
    assert deployment.sequences(longest, batched, engine.max_num_seqs, 1) == 1
    # Half of the slots filled with sequences of 1,024 tokens: what is promised must be usable.
    if entry.task is Task.CHAT:
        half = engine.max_num_seqs // 2
        assert deployment.sequences(1024, batched, engine.max_num_seqs, half) == half
    else:
        assert batched >= longest or entry.name.startswith("qwen3")


@pytest.mark.parametrize(("entry", "variant", "goal"), TUNED)
def test_profile_keeps_its_own_arguments_consistent(
    entry: Entry, variant: Variant, goal: Goal
) -> None:
    engine = tuned(entry, variant, goal).engine
    assert EngineSpec.model_validate(engine.model_dump()) == engine
    captured = engine.args.get("max_cudagraph_capture_size", engine.max_num_seqs)
    assert isinstance(captured, int)
    batched = engine.args.get("max_num_batched_tokens")
    assert batched is None or (isinstance(batched, int) and batched >= engine.max_num_seqs)


def test_goals_differ_where_it_matters() -> None:
    entry = catalog.entry_named("qwen3-8b")
    slots = [tuned(entry, entry.variants[0], goal).engine.max_num_seqs for goal in GOALS]
    assert dict(zip(GOALS, slots, strict=True)) == {
        "throughput": 1024, "latency": 64, "balanced": 256,
    }  # fmt: skip


def gpu(**fields: object) -> Manifest:
    document = {
        "name": "m", "source": "hf://some/body",
        "resources": {"accelerator": "h200", "gpus": 1}, **fields,
    }  # fmt: skip
    return parse_manifest(document)


def test_no_profile_changes_nothing() -> None:
    plain = gpu()
    assert with_profile(plain) is plain


def test_own_arguments_win() -> None:
    own = {"max_num_seqs": 7, "args": {"max-num-batched-tokens": 999, "swap_space": 4}}
    engine = with_profile(gpu(profile="throughput", engine=own)).engine
    assert engine.max_num_seqs == 7
    assert engine.args["max-num-batched-tokens"] == 999
    assert "max_num_batched_tokens" not in engine.args
    assert engine.args["swap_space"] == 4
    assert engine.args["stream_interval"] == 8


def test_profile_twice_is_profile_once() -> None:
    once = with_profile(gpu(profile="latency"))
    assert with_profile(once) == once
    stored = Manifest.model_validate_json(
        gpu(profile="latency").model_dump_json(exclude_unset=True)
    )
    assert with_profile(stored) == once


def test_profile_of_unknown_hardware_sets_nothing() -> None:
    odd = gpu(profile="balanced", resources={"accelerator": "tpu", "gpus": 1})
    assert settings_of(odd) == {}
    assert with_profile(odd) is odd


def test_model_that_embeds_takes_its_texts_whole() -> None:
    found = with_profile(gpu(profile="latency", engine={"args": {"runner": "pooling"}}))
    assert found.engine.args["max_num_batched_tokens"] == 8192


def test_catalogs_numbers_give_way_to_the_goal_and_its_parsers_stay() -> None:
    entry = catalog.entry_named("qwen3-8b")
    manifest = manifest_with_goal(entry.manifest(entry.variants[0]), "latency")
    assert "max_num_seqs" not in manifest.engine.model_fields_set
    assert manifest.engine.tool_parser == "hermes"
    assert manifest.engine.max_model_len == 40960
    assert manifest.profile == "latency"


def test_deepseek_guesses_ahead_with_its_own_layer() -> None:
    entry = catalog.entry_named("deepseek-r1")
    found = settings_of(manifest_with_goal(entry.manifest(entry.variants[0]), "latency"))
    assert found["speculative_config"].mark is Mark.PUBLISHED
    assert "min_p" in found["speculative_config"].why


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        ({"settings": {"model": {"value": "x", "why": "a reason that is long"}}}, "args.model"),
        ({"settings": {"a": {"value": 1, "why": "short"}}}, "why"),
        ({"settings": {"a": {"value": 1, "why": "a" * 20, "mark": "measured"}}}, "source"),
        ({"settings": {"max_num_seqs": {"value": "x", "why": "a" * 20}}}, "whole number"),
        ({"settings": {}}, "settings"),
        ({"goals": ["fast"], "settings": {"a": {"value": 1, "why": "a" * 20}}}, "goals"),
    ],
)
def test_faulty_file_names_its_fault(
    layer: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "common.yaml"
    document = {"apiVersion": "penstock/v1", "kind": "Profiles", "layers": [layer]}
    path.write_text(str(document).replace("'", '"'))
    with pytest.raises(ProfileError, match=complaint):
        load_profiles(path)


def test_file_of_another_model_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "other.yaml"
    copy.write_text((FOLDER / "qwen3-8b.yaml").read_text())
    with pytest.raises(ProfileError, match="must have that name"):
        load_profiles(copy)
