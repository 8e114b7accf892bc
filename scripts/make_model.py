"""Makes a Qwen3 model with random weights and the built-in model's tokenizer, to measure with.

The architecture, and so the time of a step, is a real model's; the words are not. Every token that
it says has a text, and none ends the answer, so that each chunk of a stream can be seen.
"""

import argparse
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

GUIDE = Path(__file__).parents[1] / "models" / "demo" / "guide"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
HIDDEN = 768


def make(folder: Path, layers: int, seed: int = 0) -> int:
    """Writes the model into a folder; gives back its number of parameters."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER:
        shutil.copy(GUIDE / name, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = Qwen3Config(
        vocab_size=2048,
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=12,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )
    model = Qwen3ForCausalLM(config).to(torch.bfloat16)
    with torch.no_grad():
        for token in range(config.vocab_size):
            text = tokenizer.decode([token], skip_special_tokens=True)
            # A logit of 0 is never the highest of two thousand random ones.
            if not (text.isascii() and text.isprintable() and text):
                model.lm_head.weight[token] = 0
    model.save_pretrained(folder)
    return int(sum(weights.numel() for weights in model.parameters()))


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=14, help="7M parameters each")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parsed = parser.parse_args()
    count = make(parsed.folder, parsed.layers, parsed.seed)
    sys.stdout.write(f"{parsed.folder}: {count / 1e6:.0f}M parameters\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
