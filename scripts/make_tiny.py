"""Makes tiny models of the other kinds on the spot, for tests and for trying things out.

    adapter BASE FOLDER    a LoRA adapter of a model's folder, which has it say other things
    embedding FOLDER       an encoder that embeds texts
    reranker FOLDER        an encoder with a head that scores pairs of texts

All weights are random: what matters is the form of what comes in and out, and that it is the same
each time. Needs no torch.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

GUIDE = Path(__file__).parents[1] / "models" / "demo" / "guide"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
TARGETS = ("o_proj", "down_proj")
HIDDEN, INNER, HEADS, LAYERS, VOCABULARY, POSITIONS = 64, 128, 2, 2, 2048, 256

Tensors = dict[str, np.ndarray]


def make_adapter(base: Path, folder: Path, rank: int = 8, seed: int = 0) -> int:
    """Writes an adapter of all layers' output projections; gives back its number of parameters."""
    draw = np.random.default_rng(seed)
    tensors: Tensors = {}
    for name, (outer, inner) in _projections(base).items():
        key = f"base_model.model.{name}"
        tensors[f"{key}.lora_A.weight"] = draw.normal(0, inner**-0.5, (rank, inner))
        tensors[f"{key}.lora_B.weight"] = draw.normal(0, 1, (outer, rank))
    if not tensors:
        raise SystemExit(f"{base} has no layer of {', '.join(TARGETS)}")
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank,
        "target_modules": list(TARGETS), "bias": "none", "lora_dropout": 0.0,
        "base_model_name_or_path": base.name, "inference_mode": True,
    }  # fmt: skip
    return _write(folder, "adapter_config.json", "adapter_model.safetensors", config, tensors)


def make_encoder(folder: Path, *, labels: int | None = None, seed: int = 0) -> int:
    """Writes a BERT with the built-in model's tokenizer; gives back its number of parameters.

    Args:
        labels: Of the head that judges texts; None: no head, it embeds.
    """
    draw = np.random.default_rng(seed)
    tensors = _encoder_weights(draw)
    config = {
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "dtype": "float32", "pad_token_id": 0,
        "position_embedding_type": "absolute",
    }  # fmt: skip
    if labels is not None:
        tensors = {f"bert.{name}": value for name, value in tensors.items()}
        tensors |= _linear(draw, "classifier", labels, HIDDEN)
        names = {str(n): f"LABEL_{n}" for n in range(labels)}
        config |= {
            "architectures": ["BertForSequenceClassification"], "num_labels": labels,
            "id2label": names, "label2id": {name: int(n) for n, name in names.items()},
        }  # fmt: skip
    written = _write(folder, "config.json", "model.safetensors", config, tensors)
    for name in TOKENIZER:
        shutil.copy(GUIDE / name, folder)
    return written


def _projections(base: Path) -> dict[str, tuple[int, int]]:
    """The layers that the adapter changes: width of their output and of their input."""
    found: dict[str, tuple[int, int]] = {}
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, "numpy") as opened:
            for name in opened.keys():  # noqa: SIM118, not a mapping
                layer = name.removesuffix(".weight")
                if name != layer and layer.endswith(TARGETS):
                    outer, inner = opened.get_slice(name).get_shape()
                    found[layer] = (outer, inner)
    return found


def _encoder_weights(draw: np.random.Generator) -> Tensors:
    tensors: Tensors = {}
    for name, rows in (("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2)):
        tensors[f"embeddings.{name}_embeddings.weight"] = draw.normal(0, 1, (rows, HIDDEN))
    tensors |= _norm("embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            tensors |= _linear(draw, f"{layer}.attention.self.{part}", HIDDEN, HIDDEN)
        tensors |= _linear(draw, f"{layer}.attention.output.dense", HIDDEN, HIDDEN)
        tensors |= _norm(f"{layer}.attention.output.LayerNorm")
        tensors |= _linear(draw, f"{layer}.intermediate.dense", INNER, HIDDEN)
        tensors |= _linear(draw, f"{layer}.output.dense", HIDDEN, INNER)
        tensors |= _norm(f"{layer}.output.LayerNorm")
    return tensors | _linear(draw, "pooler.dense", HIDDEN, HIDDEN)


def _linear(draw: np.random.Generator, name: str, outer: int, inner: int) -> Tensors:
    weights = draw.normal(0, inner**-0.5, (outer, inner))
    return {f"{name}.weight": weights, f"{name}.bias": np.zeros(outer)}


def _norm(name: str) -> Tensors:
    return {f"{name}.weight": np.ones(HIDDEN), f"{name}.bias": np.zeros(HIDDEN)}


def _write(
    folder: Path, config_name: str, weights_name: str, config: dict[str, object], tensors: Tensors
) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / config_name).write_text(json.dumps(config, indent=2) + "\n")
    exact = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    save_file(exact, folder / weights_name, metadata={"format": "pt"})
    return sum(value.size for value in exact.values())


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    adapter = kinds.add_parser("adapter", help="a LoRA adapter")
    adapter.add_argument("base", type=Path)
    adapter.add_argument("--rank", type=int, default=8)
    embedding = kinds.add_parser("embedding", help="an encoder")
    reranker = kinds.add_parser("reranker", help="an encoder with a head")
    for kind in (adapter, embedding, reranker):
        kind.add_argument("folder", type=Path)
        kind.add_argument("--seed", type=int, default=0, help="of the weights")
    parsed = parser.parse_args()
    if parsed.kind == "adapter":
        count = make_adapter(parsed.base, parsed.folder, parsed.rank, parsed.seed)
    else:
        labels = 1 if parsed.kind == "reranker" else None
        count = make_encoder(parsed.folder, labels=labels, seed=parsed.seed)
    sys.stdout.write(f"{parsed.folder}: {count} parameters\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
