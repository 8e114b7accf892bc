"""Models made on the spot: a real model's shape, random weights, and a tokenizer of whole words.

Needs no torch: the files are written as their formats say (safetensors version 0; tokenizers'
JSON). Every word is one token, so a prompt's length is exact, and every token has a text, so each
chunk of a stream can be seen.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SPECIAL = ("<|end|>", "<|unk|>")
SPREAD = 0.02
"""Standard deviation of the weights, as models are initialised with."""
BLOCK_VALUES = 1 << 24
"""Random values that are made once and written again and again."""
SHARD_BYTES = 4 << 30
NO_SPECIAL_TOKENS = "{% for m in messages %}{{ m.content }} {% endfor %}"
"""The chat template: the words of all messages."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama by its sizes."""

    name: str
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int
    fp8: bool = False
    """Weights of the layers in 8 bits; such a shape gets no weights, vLLM makes them up."""

    @property
    def head_dim(self) -> int:
        """Values of one head."""
        return self.hidden // self.heads

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and sizes of each tensor, as Llama's checkpoints have them."""
        kv = self.kv_heads * self.head_dim
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            stem = f"model.layers.{layer}"
            yield f"{stem}.input_layernorm.weight", (self.hidden,)
            yield f"{stem}.post_attention_layernorm.weight", (self.hidden,)
            for name, rows in (("q", self.hidden), ("k", kv), ("v", kv)):
                yield f"{stem}.self_attn.{name}_proj.weight", (rows, self.hidden)
            yield f"{stem}.self_attn.o_proj.weight", (self.hidden, self.hidden)
            for name in ("gate", "up"):
                yield f"{stem}.mlp.{name}_proj.weight", (self.inner, self.hidden)
            yield f"{stem}.mlp.down_proj.weight", (self.hidden, self.inner)
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocabulary, self.hidden)

    @property
    def parameters(self) -> int:
        """All values."""
        return sum(math.prod(sizes) for _, sizes in self.tensors())

    def config(self) -> dict[str, object]:
        """Its config.json."""
        found: dict[str, object] = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "hidden_size": self.hidden, "intermediate_size": self.inner,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
            "vocab_size": self.vocabulary, "max_position_embeddings": self.context,
            "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
            "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
            "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 0,
        }  # fmt: skip
        if self.fp8:
            found["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "dynamic"}
        return found


def write(shape: Shape, folder: Path, *, weights: bool) -> None:
    """Writes a model's folder.

    Args:
        shape: The model.
        folder: Made if it is not there.
        weights: Whether to write random ones; else a file that stands for them, for engines that
            make weights up themselves (`--load-format dummy`).

    Raises:
        OSError: If the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(shape.config(), indent=1))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    _write_tokenizer(folder, shape.vocabulary)
    if not weights:
        _write_shard(folder / "model.safetensors", [("model.norm.weight", (shape.hidden,))])
        return
    shards = list(_shards(shape))
    index: dict[str, str] = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / name, tensors)
        index |= {tensor: name for tensor, _ in tensors}
    total = {"total_size": 2 * shape.parameters}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": total, "weight_map": index})
    )


def _shards(shape: Shape) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    shard: list[tuple[str, tuple[int, ...]]] = []
    size = 0
    for name, sizes in shape.tensors():
        if shard and size + 2 * math.prod(sizes) > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append((name, sizes))
        size += 2 * math.prod(sizes)
    yield shard


def _write_shard(path: Path, tensors: list[tuple[str, tuple[int, ...]]]) -> None:
    header: dict[str, object] = {}
    offset = 0
    for name, sizes in tensors:
        end = offset + 2 * math.prod(sizes)
        header[name] = {"dtype": "BF16", "shape": list(sizes), "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    noise = _bf16(np.random.default_rng(7).normal(0.0, SPREAD, _block(tensors)))
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for _, sizes in tensors:
            left = math.prod(sizes)
            # A vector is a norm's, which is 1 in the beginning.
            block = _bf16(np.ones(left)) if len(sizes) == 1 else noise
            while left > 0:
                part = block[:left]
                file.write(part.tobytes())
                left -= len(part)


def _block(tensors: list[tuple[str, tuple[int, ...]]]) -> int:
    return min(BLOCK_VALUES, max(math.prod(sizes) for _, sizes in tensors))


def _bf16(
    values: "np.ndarray[tuple[int], np.dtype[np.float64]]",
) -> "np.ndarray[tuple[int], np.dtype[np.uint16]]":
    """The upper halves of 32-bit floats."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    words = [*SPECIAL, *(f"w{number}" for number in range(vocabulary - len(SPECIAL)))]
    added = [
        {"id": number, "content": word, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for number, word in enumerate(SPECIAL)
    ]  # fmt: skip
    vocab = {word: number for number, word in enumerate(words)}
    document = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None,
        "decoder": None, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": SPECIAL[1]},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(document))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL[0],
        "unk_token": SPECIAL[1], "chat_template": NO_SPECIAL_TOKENS,
        "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
