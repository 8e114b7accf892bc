"""What a model is for: generating text, embedding texts, or scoring them. Pure.

Told from its config.json as vLLM 0.32 tells it: by the architecture's name, and what the
engine's arguments say.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

POOLING_MARK = "modules.json"
"""Sentence Transformers' file: its models embed, whatever their architecture is called."""


class Task(StrEnum):
    """What tenants can ask of a model."""

    GENERATE = "generate"
    """Chat, completions, responses, messages."""
    EMBED = "embed"
    """Embeddings, and scores by their likeness."""
    CLASSIFY = "classify"
    """Scores by the model's own head: a reranker."""


EMBEDDERS = frozenset({
    "BertModel", "BgeM3EmbeddingModel", "BertForMaskedLM", "DeepseekV3BidirectionalModel",
    "EmbeddingGemma2Model", "Gemma2Model", "Gemma3TextModel", "GteModel", "GteNewModel",
    "JinaEmbeddingsV5Model", "LlamaBidirectionalModel", "LlamaModel", "MistralModel",
    "ModernBertModel", "NomicBertModel", "Qwen2Model", "Qwen3Model", "RobertaForMaskedLM",
    "RobertaModel", "VoyageQwen3BidirectionalEmbedModel", "XLMRobertaModel",
})  # fmt: skip
"""By name, for some of those that end in Model generate."""

_BY_SUFFIX = (
    (("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel"), Task.GENERATE),
    (("ForSequenceClassification", "ForRanking"), Task.CLASSIFY),
)


def task_of(
    config: Mapping[str, Any], files: Iterable[str], args: Mapping[str, object]
) -> Task | None:
    """The model's task; None where only the engine can tell.

    Args:
        config: Its config.json.
        files: Names of its files.
        args: Arguments for vLLM, by their long names.
    """
    plain = {name.lstrip("-").replace("-", "_"): str(value) for name, value in args.items()}
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    known = next((task for ends, task in _BY_SUFFIX if name.endswith(ends)), None)
    if name in EMBEDDERS:
        known = Task.EMBED
    if "hf_overrides" in plain or "model_impl" in plain:
        return None  # another architecture than the one that config.json names
    if (convert := plain.get("convert", "auto")) in ("embed", "classify"):
        return Task(convert)
    runner = plain.get("runner", "auto")
    if runner == "generate":
        return Task.GENERATE
    pools = runner == "pooling" or (known is Task.GENERATE and POOLING_MARK in set(files))
    if pools and known in (None, Task.GENERATE):
        return None if known is None else Task.EMBED
    return known
