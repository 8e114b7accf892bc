"""Counting parameters and cache from config.json alone, against what the authors publish."""

from typing import Any

import pytest

from models.architecture import Architecture
from models.catalog import Entry, entries, entry_named
from models.config_fields import load_config
from models.config_json import ConfigError, read_architecture, weights_of
from models.precision import Precision

PUBLISHED = [entry for entry in entries() if entry.published]
LLAMA = entry_named("llama-3.1-8b").config
QWEN3_NEXT: dict[str, Any] = {
    "architectures": ["Qwen3NextForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 48,
    "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256,
    "num_experts": 512, "num_experts_per_tok": 10, "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512, "full_attention_interval": 4,
    "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "vocab_size": 151936,
    "max_position_embeddings": 262144, "tie_word_embeddings": False,
}  # fmt: skip


def named(name: str) -> Architecture:
    return entry_named(name).architecture


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry.name)
def test_parameters_are_those_published(entry: Entry) -> None:
    assert entry.published
    counted = entry.architecture.parameters / 1e9
    assert counted == pytest.approx(entry.published.parameters_b, rel=0.001)


@pytest.mark.parametrize(
    "entry", [e for e in PUBLISHED if e.published and e.published.active_b], ids=lambda e: e.name
)
def test_active_parameters_are_those_published(entry: Entry) -> None:
    assert entry.published
    assert entry.published.active_b
    counted = entry.architecture.active_parameters / 1e9
    assert counted == pytest.approx(entry.published.active_b, rel=0.025)


def test_hybrid_of_linear_attention_is_counted_too() -> None:
    model = read_architecture(QWEN3_NEXT)
    assert model.parameters / 1e9 == pytest.approx(80, rel=0.01)
    # Only each fourth layer's cache grows: 12 layers x 2 x 2 heads x 256.
    assert model.cache_values(2001) - model.cache_values(2000) == 12 * 2 * 2 * 256
    assert model.cache_values(1) > 36 * 32 * 128 * 128


def test_cache_of_grouped_queries_is_two_vectors_a_head() -> None:
    # 32 layers x 2 x 8 heads x 128 values: 128 KiB a token at 16 bits.
    assert named("llama-3.1-8b").cache_values(1) * 2 == 128 * 1024


def test_cache_of_latent_attention_is_one_vector_on_each_rank() -> None:
    model = named("deepseek-v3")
    assert model.cache_values(1) == 61 * (512 + 64)
    assert model.cache_values(1, ranks=8) == model.cache_values(1)


def test_cache_is_split_up_to_the_key_value_heads() -> None:
    model = named("llama-3.1-8b")
    assert model.cache_values(100, ranks=8) == model.cache_values(100) / 8
    assert model.cache_values(100, ranks=16) == model.cache_values(100) / 8


@pytest.mark.parametrize(
    ("name", "full", "local", "window", "values"),
    [("gpt-oss-20b", 12, 12, 128, 1024), ("gemma-3-27b", 10, 52, 1024, 4096)],
)
def test_cache_of_a_sliding_window_stops_growing(
    name: str, full: int, local: int, window: int, values: int
) -> None:
    assert named(name).cache_values(8192) == values * (full * 8192 + local * window)


def test_encoder_keeps_no_cache() -> None:
    assert named("bge-m3").cache_values(8192) == 0
    assert named("bge-m3").max_context == 8192


def test_batch_touches_more_experts_the_larger_it_is() -> None:
    model = named("qwen3-235b-a22b")
    one, many = model.expert_values_read(1), model.expert_values_read(1000)
    assert one == pytest.approx(model.expert_values * 8 / 128)
    assert many == pytest.approx(model.expert_values, rel=1e-6)


def test_unknown_architecture_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="MambaForCausalLM") as caught:
        read_architecture({"architectures": ["MambaForCausalLM"]})
    assert "LlamaForCausalLM" in (caught.value.hint or "")


@pytest.mark.parametrize("field", sorted(set(LLAMA) - {"num_key_value_heads"}))
def test_missing_field_is_named(field: str) -> None:
    fields = {name: value for name, value in LLAMA.items() if name != field}
    with pytest.raises(ConfigError) as caught:
        read_architecture(fields)
    assert caught.value.param == field


@pytest.mark.parametrize("value", [-1, 0, "32", 3.5, True])
def test_bad_number_is_named(value: object) -> None:
    with pytest.raises(ConfigError, match="num_hidden_layers"):
        read_architecture(LLAMA | {"num_hidden_layers": value})


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ({"quant_method": "fp8"}, Precision.FP8),
        ({"quant_method": "awq", "bits": 4}, Precision.INT4),
        ({"quant_method": "mxfp4"}, Precision.MXFP4),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, Precision.NVFP4),
    ],
)
def test_precision_follows_from_the_quantization(
    quantization: dict[str, object], expected: Precision
) -> None:
    assert weights_of({"quantization_config": quantization}) is expected


def test_precision_without_quantization_is_the_dtype() -> None:
    assert weights_of({"torch_dtype": "bfloat16"}) is Precision.BF16
    assert weights_of({"text_config": {"dtype": "float32"}}) is Precision.FP32


def test_unknown_quantization_asks_for_an_answer() -> None:
    with pytest.raises(ConfigError) as caught:
        weights_of({"quantization_config": {"quant_method": "aqlm"}})
    assert "--weights" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_broken_config_file_is_a_clear_error(text: str, tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_config(tmp_path)


def test_missing_config_file_is_a_clear_error(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="there is no"):
        load_config(tmp_path)
