"""Measured profiles: what they say of engines, when they count, and what they refuse."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from models.catalog import entry_named
from models.hardware import hardware_named
from models.manifest import Manifest, parse_manifest
from models.precision import Precision
from models.profile import ProfileError
from models.profile_measured import Measured, load_measured, write_measured
from models.profile_search import VLLM, Here, Search, find_measured, profiles_named
from models.sizing import Ask, plan

ROOT = Path(__file__).parents[2]
HERE = Here(vllm="0.32.0", cpu="2 x Some Processor")
DOCUMENT: dict[str, Any] = {
    "model": "guide", "source": "builtin://guide", "goal": "throughput", "pool": "cpu",
    "hardware": HERE.cpu, "vllm": HERE.vllm, "measured_at": "2026-11-22",
    "slo": {"ttft_p99": 2.0}, "settings": {"max_num_seqs": 64},
    "slots": 64, "prompt_tokens": 64, "answer_tokens": 64,
    "levels": [
        {"concurrency": 1, "output_tokens_s": 180.0, "ttft_p99_s": 0.03, "tpot_p50_s": 0.0052,
         "tpot_p99_s": 0.006},
        {"concurrency": 32, "output_tokens_s": 2200.0, "ttft_p99_s": 0.2, "tpot_p50_s": 0.013,
         "tpot_p99_s": 0.02},
    ],
    "pareto": [
        {"concurrency": 32, "output_tokens_s": 2200.0, "ttft_p99_s": 0.2, "tpot_p50_s": 0.013,
         "tpot_p99_s": 0.02},
    ],
    "steps": [{"batch": 1, "step_s": 0.005}, {"batch": 32, "step_s": 0.0112}],
    "prefill_tokens_s": 20000.0, "trials": 40, "failed_trials": 1,
    "paired": {"pairs": 10, "ratio": 1.1, "low": 1.05, "high": 1.15},
}  # fmt: skip


def measured(**fields: Any) -> Measured:
    return Measured.model_validate(DOCUMENT | fields)


def guide(**fields: Any) -> Manifest:
    return parse_manifest({"name": "mine", "source": "builtin://guide", **fields})


def found(folder: Path, manifest: Manifest, *profiles: Measured) -> Search:
    for profile in profiles:
        write_measured(folder, profile)
    return find_measured(folder, manifest, HERE)


def test_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_measured(tmp_path / "new", measured())
    assert path.name == "guide-cpu-throughput.yaml"
    assert load_measured(path) == measured()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_steps_between_batches_lie_on_lines() -> None:
    profile = measured()
    assert profile.line == pytest.approx((0.0048, 0.0002))
    assert profile.step_s(1) == profile.step_s(0.5) == 0.005
    assert profile.step_s(16.5) == pytest.approx(0.0081)
    assert profile.step_s(64) == pytest.approx(0.0112 + 32 * 0.0002)


def test_line_never_falls_with_the_batch() -> None:
    falling = measured(steps=[{"batch": 1, "step_s": 0.01}, {"batch": 8, "step_s": 0.005}])
    assert falling.line == pytest.approx((0.0075, 0.0))
    single = measured(steps=[{"batch": 4, "step_s": 0.01}])
    assert single.line == pytest.approx((0.01, 0.0))


def test_error_is_the_worst_over_what_was_measured() -> None:
    profile = measured()
    predicted = [profile.tokens_s(level.concurrency, 64, 64) for level in profile.levels]
    off = [p / level.output_tokens_s for p, level in zip(predicted, profile.levels, strict=True)]
    assert profile.error_factor == pytest.approx(max(*off, *(1 / ratio for ratio in off)))


def test_profile_counts_for_the_model_whatever_its_name_and_revision(tmp_path: Path) -> None:
    assert found(tmp_path, guide(), measured()).profile == measured()
    assert found(tmp_path, guide(source="hf://some/body")) == Search(None)
    assert find_measured(None, guide(), HERE) == Search(None)
    assert find_measured(tmp_path / "nowhere", guide(), HERE) == Search(None)


@pytest.mark.parametrize(
    ("fields", "manifest", "reason"),
    [
        ({"vllm": "0.31.0"}, {}, "measured with vLLM 0.31.0, and this is 0.32.0"),
        ({"hardware": "64 x Other"}, {}, "measured on 64 x Other, and this is 2 x Some Processor"),
        ({"pool": "h200x1"}, {}, "measured on h200x1, and this is cpu"),
        ({}, {"resources": {"tensor_parallel": 2}}, "this has tensor 2 x pipeline 1"),
        ({}, {"engine": {"build": "old"}}, "engine build old"),
    ],
    ids=["version", "processor", "pool", "split", "build"],
)
def test_profile_of_something_else_is_left_aside_with_a_warning(
    fields: dict[str, Any], manifest: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    search = found(tmp_path, guide(**manifest), measured(**fields))
    assert search.profile is None
    (warning,) = search.warnings
    assert reason in warning


def test_profile_of_the_manifests_goal_comes_first(tmp_path: Path) -> None:
    both = measured(), measured(goal="latency")
    assert found(tmp_path, guide(profile="latency"), *both).profile == both[1]
    assert found(tmp_path, guide(), *both).profile == both[0]
    assert profiles_named(tmp_path, "guide", HERE).profile == both[0]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", yaml.safe_dump(DOCUMENT | {"prefill_tokens_s": float("nan")}),
     yaml.safe_dump(DOCUMENT | {"steps": []}), yaml.safe_dump(DOCUMENT | {"colour": "blue"}),
     yaml.safe_dump(DOCUMENT | {"steps": [{"batch": 2, "step_s": 1}, {"batch": 1, "step_s": 2}]})],
    ids=["empty", "list", "broken", "nan", "no-steps", "unknown", "disorder"],
)  # fmt: skip
def test_file_that_is_no_profile_is_a_warning(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(ProfileError, match="odd"):
        load_measured(tmp_path / "odd.yaml")
    search = found(tmp_path, guide(), measured())
    assert search.profile == measured()
    assert "left aside" in search.warnings[0]


def test_plan_reads_what_was_measured_before_formulas() -> None:
    entry = entry_named("guide")
    ask = Ask(
        "guide", entry.architecture, hardware_named("cpu"), Precision.FP32, context=1024,
        concurrency=32, prompt_tokens=64, answer_tokens=64, profile=measured(),
    )  # fmt: skip
    answer = plan(ask)
    assert answer.profile is not None
    assert "2 x Some Processor" in answer.profile
    assert answer.prefill.expected == 20000.0
    assert answer.decode is not None
    assert answer.decode.expected == pytest.approx(1 / 0.0112)
    assert answer.throughput is not None
    assert answer.throughput.low < answer.throughput.expected < answer.throughput.high
    assert answer.throughput.expected == pytest.approx(measured().tokens_s(32, 64, 64))


def test_plan_with_other_parallel_sizes_goes_by_formulas() -> None:
    entry = entry_named("guide")
    ask = Ask("guide", entry.architecture, hardware_named("cpu"), Precision.FP32, context=512)
    other = Ask(
        "guide", entry.architecture, hardware_named("cpu"), Precision.FP32, context=512,
        profile=measured(tensor_parallel=2),
    )  # fmt: skip
    assert plan(other) == plan(ask)
    assert plan(ask).profile is None


def test_pinned_version_is_the_packages() -> None:
    assert f"vllm=={VLLM}" in (ROOT / "pyproject.toml").read_text()


def test_this_machine_has_a_name() -> None:
    here = Here.of_this_machine()
    assert " x " in here.cpu
    assert here.vllm
