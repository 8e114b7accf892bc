"""Writes a tiny Qwen3 with random weights and a byte-level tokenizer, for tests of engines.

The weights say nothing sensible, but at temperature 0 the same thing each time.
"""

import argparse
import subprocess
import sys
from pathlib import Path

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
THINK = ["<think>", "</think>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_apart(folder: Path, *flags: str) -> Path:
    """Writes it in a process of its own, so that the caller needs neither torch nor transformers;
    returns the folder.

    Args:
        folder: Of the model.
        flags: As on this module's command line: `--seed`, `--spread`, `--thinks`.
    """
    command = [sys.executable, "-m", "tests.serving.engine.tiny_model", str(folder), *flags]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder


def write(folder: Path, seed: int = 0, spread: float = 0.02, *, thinks: bool = False) -> None:
    """Writes configuration, tokenizer and safetensors weights of about 0.3M parameters.

    With a spread of 0.02, as before a training, one token follows another for ever; with 0.2 the
    text goes on and on, and shows each error of the arithmetic. One that `thinks` has the marks of
    reasoning among its tokens.
    """
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = THINK if thinks else []
    vocabulary = {symbol: index for index, symbol in enumerate([*SPECIAL, *alphabet, *marks])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    core.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in marks])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=320,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        eos_token_id=SPECIAL.index("<|im_end|>"),
        bos_token_id=None,
        dtype="float32",
        initializer_range=spread,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spread", type=float, default=0.02)
    parser.add_argument("--thinks", action="store_true")
    options = parser.parse_args()
    write(options.folder, options.seed, options.spread, thinks=options.thinks)
