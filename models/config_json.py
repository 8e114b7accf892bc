"""Reads a model's architecture from its config.json, as Hugging Face repositories ship it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from models.architecture import Architecture, LayerGroup
from models.config_fields import Config, ConfigError
from models.layers import Dense, Experts, GatedDelta, GroupedQuery, Latent
from models.precision import Precision


def read_architecture(fields: Mapping[str, Any]) -> Architecture:
    """What a config.json describes.

    Raises:
        ConfigError: If its architecture is unknown, or a field that counts is missing.
    """
    config = Config(fields)
    family = next(iter(config.words("architectures")), None)
    if family is None:
        raise ConfigError("config.json names no architecture", param="architectures")
    read = _FAMILIES.get(family)
    if read is None:
        raise ConfigError(
            f"the planner does not know the architecture {family!r}",
            param="architectures",
            hint=f"it knows {', '.join(sorted(_FAMILIES))}",
        )
    return read(family, config)


def weights_of(fields: Mapping[str, Any]) -> Precision:
    """The precision in which a config.json says that the weights are stored.

    Raises:
        ConfigError: If it names a quantization that is not known.
    """
    config = Config(fields)
    if not config.has("quantization_config"):
        inner = config.part("text_config") if config.has("text_config") else config
        stored = config.word("torch_dtype", "dtype") or inner.word("torch_dtype", "dtype")
        return Precision.FP32 if stored == "float32" else Precision.BF16
    quantization = config.part("quantization_config")
    method = f"{quantization.word('quant_method')} {quantization.word('quant_algo')}".lower()
    for known, precision in _METHODS.items():
        if known in method:
            return precision
    raise ConfigError(
        f"the planner does not know the quantization {method.strip()!r}",
        param="quantization_config",
        hint="say how the weights are stored with --weights",
    )


_METHODS = {
    "mxfp4": Precision.MXFP4,
    "nvfp4": Precision.NVFP4,
    "fp8": Precision.FP8,
    "awq": Precision.INT4,
    "gptq": Precision.INT4,
}


def _attention(config: Config, **extra: bool) -> GroupedQuery:
    heads = config.number("num_attention_heads")
    hidden = config.number("hidden_size")
    return GroupedQuery(
        heads=heads,
        kv_heads=config.number("num_key_value_heads", default=heads),
        head_dim=config.number("head_dim", default=hidden // heads),
        **extra,
    )


def _assemble(
    family: str, config: Config, groups: list[LayerGroup], tied: bool, vocabulary: int | None = None
) -> Architecture:
    hidden = config.number("hidden_size")
    return Architecture(
        family=family,
        hidden=hidden,
        groups=tuple(groups),
        vocabulary=config.number("vocab_size", default=vocabulary),
        tied=config.flag("tie_word_embeddings", tied),
        max_context=config.number(
            "max_position_embeddings", default=131072 if vocabulary else None
        ),
        other_values=hidden,  # the final norm
    )


def _decoder(family: str, config: Config) -> Architecture:
    """Llama, Mistral, Qwen2 and Qwen3: all layers alike."""
    attention = _attention(
        config,
        qkv_bias=config.flag("attention_bias", family.startswith("Qwen2")),
        head_norms=family.startswith("Qwen3"),
    )
    window = config.optional("sliding_window")
    if window and config.flag("use_sliding_window", family.startswith("Mistral")):
        attention = replace(attention, window=window)
    feedforward: Dense | Experts = Dense(config.number("intermediate_size"))
    group = LayerGroup(
        config.number("num_hidden_layers"), attention, feedforward, 2 * config.number("hidden_size")
    )
    return _assemble(family, config, [group], tied=False)


def _moe(family: str, config: Config) -> Architecture:
    """Qwen3 MoE and Mixtral: all layers alike, with experts."""
    experts = Experts(
        count=config.number("num_experts", "num_local_experts"),
        active=config.number("num_experts_per_tok"),
        size=config.number("moe_intermediate_size", "intermediate_size"),
    )
    attention = _attention(config, head_norms=family.startswith("Qwen3"))
    group = LayerGroup(
        config.number("num_hidden_layers"), attention, experts, 2 * config.number("hidden_size")
    )
    return _assemble(family, config, [group], tied=False)


def _deepseek(family: str, config: Config) -> Architecture:
    """DeepSeek-V2, V3 and R1: latent attention, first layers dense, then experts.

    The layer that predicts a second token (num_nextn_predict_layers) is not loaded by default
    and not counted, as in the published number.
    """
    layers, hidden = config.number("num_hidden_layers"), config.number("hidden_size")
    attention = Latent(
        heads=config.number("num_attention_heads"),
        q_rank=config.optional("q_lora_rank"),
        kv_rank=config.number("kv_lora_rank"),
        nope_dim=config.number("qk_nope_head_dim"),
        rope_dim=config.number("qk_rope_head_dim"),
        value_dim=config.number("v_head_dim"),
    )
    size = config.number("moe_intermediate_size")
    experts = Experts(
        count=config.number("n_routed_experts"),
        active=config.number("num_experts_per_tok"),
        size=size,
        shared_size=config.number("n_shared_experts") * size,
        router_bias=family == "DeepseekV3ForCausalLM",
    )
    dense = config.number("first_k_dense_replace")
    groups = [
        LayerGroup(dense, attention, Dense(config.number("intermediate_size")), 2 * hidden),
        LayerGroup(layers - dense, attention, experts, 2 * hidden),
    ]
    return _assemble(family, config, groups, tied=False)


def _gpt_oss(family: str, config: Config) -> Architecture:
    """gpt-oss: every other layer sees a sliding window; experts in all."""
    layers, hidden = config.number("num_hidden_layers"), config.number("hidden_size")
    attention = _attention(config, qkv_bias=True, output_bias=True, sinks=True)
    experts = Experts(
        count=config.number("num_local_experts", "num_experts"),
        active=config.number("num_experts_per_tok", "experts_per_token"),
        size=config.number("intermediate_size"),
        router_bias=True,
        biased=True,
    )
    full = layers - _sliding(config, layers, every=2)
    local = replace(attention, window=config.number("sliding_window"))
    groups = [
        LayerGroup(layers - full, local, experts, 2 * hidden),
        LayerGroup(full, attention, experts, 2 * hidden),
    ]
    return _assemble(family, config, groups, tied=False)


def _sliding(config: Config, layers: int, every: int) -> int:
    """Layers with a sliding window: by their list, else all but each `every`-th."""
    kinds = config.words("layer_types")
    if kinds:
        return kinds.count("sliding_attention")
    return layers - layers // config.number("sliding_window_pattern", default=every)


def _gemma(family: str, config: Config) -> Architecture:
    """Gemma 3: five layers of six see a sliding window. Defaults are those of transformers."""
    layers, hidden = config.number("num_hidden_layers"), config.number("hidden_size")
    attention = _attention(config, head_norms=True)
    feedforward = Dense(config.number("intermediate_size"))
    local = _sliding(config, layers, every=6)
    window = replace(attention, window=config.number("sliding_window"))
    groups = [
        LayerGroup(local, window, feedforward, 4 * hidden),
        LayerGroup(layers - local, attention, feedforward, 4 * hidden),
    ]
    return _assemble(family, config, groups, tied=True, vocabulary=262208)


def _qwen3_next(family: str, config: Config) -> Architecture:
    """Qwen3-Next: three layers of four are linear attention; experts in all."""
    layers, hidden = config.number("num_hidden_layers"), config.number("hidden_size")
    experts = Experts(
        count=config.number("num_experts"),
        active=config.number("num_experts_per_tok"),
        size=config.number("moe_intermediate_size"),
        shared_size=config.number("shared_expert_intermediate_size"),
        shared_gate=True,
    )
    linear = GatedDelta(
        key_heads=config.number("linear_num_key_heads"),
        value_heads=config.number("linear_num_value_heads"),
        key_dim=config.number("linear_key_head_dim"),
        value_dim=config.number("linear_value_head_dim"),
        kernel=config.number("linear_conv_kernel_dim"),
    )
    full = layers // config.number("full_attention_interval", default=4)
    attention = _attention(config, head_norms=True, gated=True)
    groups = [
        LayerGroup(layers - full, linear, experts, 2 * hidden),
        LayerGroup(full, attention, experts, 2 * hidden),
    ]
    return _assemble(family, config, groups, tied=False)


def _encoder(family: str, config: Config) -> Architecture:
    """BERT and XLM-RoBERTa: no cache, learned positions, biases everywhere."""
    hidden = config.number("hidden_size")
    attention = _attention(config, qkv_bias=True, output_bias=True, cached=False)
    feedforward = Dense(config.number("intermediate_size"), matrices=2, biased=True)
    positions = config.number("max_position_embeddings")
    types = config.number("type_vocab_size", default=1)
    group = LayerGroup(
        config.number("num_hidden_layers"), attention, feedforward, norm_values=4 * hidden
    )
    ranks = family.endswith("ForSequenceClassification")
    head = hidden * hidden + hidden + (hidden + 1 if ranks else 0)
    model = _assemble(family, config, [group], tied=True)
    # RoBERTa's positions begin behind the padding token's: two fewer than the table has.
    limit = positions - 2 if "Roberta" in family else positions
    other = (positions + types) * hidden + 2 * hidden + head
    return replace(model, generates=False, max_context=limit, other_values=other)


def _with_vision(text: Callable[[str, Config], Architecture]) -> Callable[..., Architecture]:
    """A language model below a vision tower, which is loaded and never quantized here."""

    def read(family: str, config: Config) -> Architecture:
        model = text(family, config.part("text_config"))
        if not config.has("vision_config"):
            return model
        tower = config.part("vision_config")
        hidden = tower.number("hidden_size")
        gated = tower.word("model_type") == "pixtral"
        feedforward = (3 if gated else 2) * hidden * tower.number("intermediate_size")
        layers = tower.number("num_hidden_layers") * (4 * hidden * hidden + feedforward)
        merge = config.optional("spatial_merge_size")
        merger = (merge * hidden) * (merge * hidden) if merge else 0
        bridge = hidden * model.hidden + (model.hidden**2 if gated else 0)
        return replace(model, other_values=model.other_values + layers + merger + bridge)

    return read


_FAMILIES: dict[str, Callable[[str, Config], Architecture]] = {
    "LlamaForCausalLM": _decoder,
    "MistralForCausalLM": _decoder,
    "Qwen2ForCausalLM": _decoder,
    "Qwen3ForCausalLM": _decoder,
    "Qwen3MoeForCausalLM": _moe,
    "MixtralForCausalLM": _moe,
    "DeepseekV2ForCausalLM": _deepseek,
    "DeepseekV3ForCausalLM": _deepseek,
    "GptOssForCausalLM": _gpt_oss,
    "Gemma3ForCausalLM": _gemma,
    "Gemma3ForConditionalGeneration": _with_vision(_gemma),
    "Mistral3ForConditionalGeneration": _with_vision(_decoder),
    "Qwen3NextForCausalLM": _qwen3_next,
    "XLMRobertaModel": _encoder,
    "XLMRobertaForSequenceClassification": _encoder,
    "BertModel": _encoder,
}
