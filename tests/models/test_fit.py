"""The sizing planner's word at the deploy."""

import pytest

from models.catalog import entries
from models.config_json import weights_of
from models.fit import check_fit
from models.manifest import parse_manifest
from models.plan import DoesNotFitError
from models.precision import Precision

LLAMA_70B = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 8192, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672,
    "vocab_size": 128256, "max_position_embeddings": 131072, "torch_dtype": "bfloat16",
}  # fmt: skip


def manifest(**fields: object):  # type: ignore[no-untyped-def]
    return parse_manifest({"name": "m", "source": "hf://a/b", **fields})


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_every_variant_of_the_catalog_may_be_deployed(entry) -> None:  # type: ignore[no-untyped-def]
    for variant in entry.variants:
        # A variant's own repository says how its weights are quantized; the entry's is not that.
        method = "awq" if variant.weights is Precision.INT4 else variant.weights.value
        quantized = variant.weights not in (Precision.BF16, weights_of(entry.config))
        config = entry.config | (
            {"quantization_config": {"quant_method": method}} if quantized else {}
        )
        assert check_fit(entry.manifest(variant), config, None) == []


def test_model_that_cannot_fit_says_by_how_much_and_what_would() -> None:
    one = manifest(resources={"accelerator": "h100", "gpus": 1})
    with pytest.raises(DoesNotFitError, match=r"[\d.]+ GiB too much") as caught:
        check_fit(one, LLAMA_70B, None)
    assert "h200" in str(caught.value.hint)
    assert "engine.max_model_len" in str(caught.value.hint)
    eight = {"accelerator": "h100", "gpus": 8, "tensor_parallel": 8}
    assert check_fit(manifest(resources=eight), LLAMA_70B, None) == []


def test_quantization_and_context_of_the_manifest_count() -> None:
    resources = {"accelerator": "h200", "gpus": 1}
    with pytest.raises(DoesNotFitError):
        check_fit(manifest(resources=resources), LLAMA_70B, None)
    small = {"quantization": "fp8", "max_model_len": 4096}
    assert check_fit(manifest(resources=resources, engine=small), LLAMA_70B, None) == []


def test_cpu_is_judged_by_the_files() -> None:
    with pytest.raises(DoesNotFitError, match=r"76\.0 GiB more than its 24\.0 GiB"):
        check_fit(manifest(), None, 100 << 30, machine_gib=24.0)
    (warning,) = check_fit(manifest(), None, 4 << 30, machine_gib=24.0)
    assert "resources.memory_gib: 2 GiB are less" in warning
    assert check_fit(manifest(), None, 1 << 30, machine_gib=24.0) == []


@pytest.mark.parametrize(
    "config", [{"architectures": ["RwkvForCausalLM"]}, LLAMA_70B | {"quantization_config": {}}]
)
def test_what_the_planner_does_not_know_is_no_reason_to_refuse(config: dict[str, object]) -> None:
    (warning,) = check_fit(manifest(resources={"accelerator": "h200", "gpus": 1}), config, None)
    assert "not known" in warning
