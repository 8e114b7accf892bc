"""`penstock plan` and `penstock catalog`: sizes before anything runs, and clear refusals."""

import json
from pathlib import Path

import pytest

from models.catalog import entry_named, names
from models.manifest import Manifest
from models.profile_measured import write_measured
from models.profile_search import Here
from tests.models.test_profile_measured import measured
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import FakePlatform


def test_plan_of_a_catalog_model_is_printed_both_ways(run: Run) -> None:
    wish = ("plan", "llama-3.3-70b", "--hardware", "H200", "--context", "8192")
    table = run(*wish, "--concurrency", "64")
    assert table.code == 0
    for word in ("70.55B", "2 x h200", "weights fp8", "tokens/s", "on-demand", "local NVMe"):
        assert word in table.out
    found = json.loads(run(*wish, "--output", "json").out)
    assert found["devices"] == 2
    assert found["throughput"]["low"] < found["throughput"]["expected"]


def test_plan_takes_the_variant_of_the_hardware(run: Run) -> None:
    found = json.loads(run("plan", "qwen3-8b", "--hardware", "l40s", "-o", "json").out)
    assert found["weights"] == "int4"
    asked = run("plan", "qwen3-8b", "--hardware", "l40s", "--weights", "fp8", "-o", "json")
    assert json.loads(asked.out)["weights"] == "fp8"


def test_plan_of_a_config_file_needs_nothing_else(run: Run, tmp_path: Path) -> None:
    config = entry_named("llama-3.1-8b").config | {"torch_dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for model in ("config.json", str(tmp_path), f"file://{tmp_path}"):
        found = json.loads(run("plan", model, "-o", "json").out)
        assert found["parameters_b"] == pytest.approx(8.03, rel=0.001)
        assert found["weights"] == "bf16"


def test_plan_without_a_measured_point_says_so(run: Run) -> None:
    assert "no published point of a100" in run("plan", "qwen3-8b", "--hardware", "a100").err
    assert "no published point" not in run("plan", "qwen3-8b").err


def test_plan_of_an_encoder_has_prompts_only(run: Run) -> None:
    outcome = run("plan", "bge-m3")
    assert outcome.code == 0
    assert "price" not in outcome.out


def test_plan_of_a_short_model_takes_its_limit(run: Run) -> None:
    found = json.loads(run("plan", "guide", "--hardware", "cpu", "-o", "json").out)
    assert found["context"] == min(8192, entry_named("guide").architecture.max_context)


def test_plan_that_cannot_fit_says_what_would(run: Run) -> None:
    outcome = run("plan", "llama-3.1-405b", "--hardware", "cpu")
    assert outcome.code == 2
    assert "GiB too much" in outcome.err
    assert "--hardware h200 on 8 x h200" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nobody",), 4, "catalog has no model 'nobody'"),
        (("qwen3-8b", "--hardware", "tpu"), 2, "known: h200"),
        (("qwen3-8b", "--context", "40961"), 2, "40960 tokens at most"),
        (("qwen3-8b", "--cache", "int4"), 2, "not kept in int4"),
        (("qwen3-8b", "--weights", "int3"), 2, "int3"),
        (("./nowhere/config.json",), 2, "there is no"),
        (("file:///nowhere",), 2, "there is no"),
        (("ftp://host/model",), 2, "unknown kind of source"),
    ],
)
def test_bad_wish_is_refused_with_a_reason(
    run: Run, arguments: tuple[str, ...], code: int, says: str
) -> None:
    outcome = run("plan", *arguments)
    assert outcome.code == code
    assert says in outcome.err
    assert not outcome.out


def test_unknown_architecture_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["RwkvForCausalLM"]}')
    outcome = run("plan", "config.json")
    assert outcome.code == 2
    assert "RwkvForCausalLM" in outcome.err
    assert "LlamaForCausalLM" in outcome.err


def test_catalog_is_listed_both_ways(run: Run) -> None:
    table = run("catalog")
    assert table.code == 0
    assert all(name in table.out for name in names())
    found = json.loads(run("catalog", "--output", "json").out)
    assert [item["name"] for item in found["items"]] == names()


def test_catalog_shows_one_model(run: Run) -> None:
    outcome = run("catalog", "llama-3.1-405b")
    assert "gb200x4" in outcome.out
    assert "gated" in outcome.err
    shown = json.loads(run("catalog", "llama-3.1-405b", "-o", "json").out)
    assert shown["manifests"][0]["resources"]["gpus"] == 8
    assert run("catalog", "nobody").code == 4


def sent(platform: FakePlatform) -> Manifest:
    body = next(call[3] for call in platform.asked if call[0] == "POST")
    return Manifest.model_validate_json(body)


def test_deploy_by_name_takes_the_variant_that_a_pool_runs(
    run: Run, platform: FakePlatform
) -> None:
    outcome = run("deploy", "qwen3-0.6b")
    assert outcome.code == 0, outcome.err
    assert sent(platform).resources.pool == "cpu"
    assert sent(platform).source == "hf://Qwen/Qwen3-0.6B"
    assert sent(platform).engine.tool_parser == "hermes"


def test_deploy_by_name_of_a_built_in_model(run: Run, platform: FakePlatform) -> None:
    assert run("deploy", "guide", "--name", "mine").code == 0
    assert sent(platform).source == "builtin://guide"


def test_deploy_by_name_and_accelerator(run: Run, platform: FakePlatform) -> None:
    assert run("deploy", "qwen3-8b", "--accelerator", "H200", "--no-wait").code == 0
    assert sent(platform).resources.pool == "h200x1"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("qwen3-32b",), 2, "no pool of this platform"),
        (("qwen3-32b", "--accelerator", "a100"), 2, "no variant of qwen3-32b for a100"),
        (("nobody",), 4, "catalog has no model 'nobody'"),
        (("model.yaml",), 2, "penstock deploy -f model.yaml"),
        (("builtin://guide", "--accelerator", "h200"), 2, "name of the catalog only"),
    ],
)
def test_deploy_by_name_is_refused_with_a_reason(
    run: Run, platform: FakePlatform, arguments: tuple[str, ...], code: int, says: str
) -> None:
    outcome = run("deploy", *arguments)
    assert outcome.code == code
    assert says in outcome.err
    assert not [call for call in platform.asked if call[0] == "POST"]


def test_deploy_by_name_with_a_profile_leaves_the_numbers_to_it(
    run: Run, platform: FakePlatform
) -> None:
    assert run("deploy", "qwen3-0.6b", "--profile", "latency").code == 0
    manifest = sent(platform)
    assert manifest.profile == "latency"
    assert "max_num_seqs" not in manifest.engine.model_fields_set
    assert manifest.engine.kv_cache_gib == 2.0


def test_deploy_of_a_source_takes_no_profile(run: Run) -> None:
    outcome = run("deploy", "hf://some/body", "--profile", "latency")
    assert outcome.code == 2
    assert "`profile`" in outcome.err


def test_plan_reads_a_measured_profile_before_its_formulas(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_PROFILES_DIR", str(tmp_path))
    here = Here.of_this_machine()
    wish = ("plan", "guide", "--hardware", "cpu", "-o", "json")
    formulas = json.loads(run(*wish).out)
    write_measured(tmp_path, measured(vllm=here.vllm, hardware="64 x Other"))
    other = run(*wish)
    assert json.loads(other.out) == formulas
    assert "is left aside" in other.err
    write_measured(tmp_path, measured(vllm=here.vllm, hardware=here.cpu))
    found = json.loads(run(*wish).out)
    assert found["prefill"]["expected"] == 20000.0 != formulas["prefill"]["expected"]
    assert "rates by the measured profile of guide" in run(*wish[:-2]).err
