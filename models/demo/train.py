"""Trains the guide from its corpus: `python -m models.demo.train`.

Writes a complete Hugging Face model folder and prints the accuracies that the tests ask for. The
run is seeded: same libraries and thread count, same weights.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from torch import nn
from torch.nn import functional as F
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from models.demo.augment import OFF_TOPIC, Augmenter
from models.demo.corpus import Intent, load_corpus
from models.demo.examples import SYSTEM_PROMPTS, Example, Examples
from models.demo.guide_model import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    GUIDE_DIR,
    GUIDE_MAX_MODEL_LEN,
    TURN_END,
    TURN_START,
)
from models.demo.recipe import Recipe
from models.demo.scoring import Asked, judge


def train_tokenizer(corpus: tuple[Intent, ...], augmenter: Augmenter, recipe: Recipe) -> Tokenizer:
    """A byte-level BPE: every byte is a token, so nothing is unknown to it."""
    rng = random.Random(recipe.seed)
    texts = [intent.answer for intent in corpus for _ in range(3)]
    texts += [question for intent in corpus for question in intent.questions]
    texts += [augmenter.vary(intent, rng) for intent in corpus for _ in range(20)]
    texts += [*SYSTEM_PROMPTS, *(["system\nuser\nassistant\n"] * 50)]
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def build_model(tokenizer: Tokenizer, recipe: Recipe) -> Qwen3ForCausalLM:
    """A Qwen3 with random weights."""
    end_of_text, turn_end = tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(TURN_END)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=recipe.vocab_size,
            hidden_size=recipe.hidden_size,
            intermediate_size=recipe.intermediate_size,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            head_dim=recipe.head_dim,
            max_position_embeddings=GUIDE_MAX_MODEL_LEN,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=turn_end,
            pad_token_id=end_of_text,
        )
    )


def loss_of(
    model: Qwen3ForCausalLM, intent_head: nn.Linear, batch: list[Example], recipe: Recipe
) -> torch.Tensor:
    """Cross-entropy of the answers' tokens, plus that of the intent.

    Shapes are rounded up so that they recur: the CPU kernels are set up anew for each new shape.
    """
    width = _round_up(max(len(example.ids) for example in batch), 8)
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
    # Positions in the flattened batch whose next token belongs to an answer.
    spots = [row * width + at - 1 for row, example in enumerate(batch) for at in example.trained]
    before = torch.zeros(_round_up(len(spots), 256), dtype=torch.long)
    before[: len(spots)] = torch.tensor(spots)
    wanted = torch.full_like(before, -100)
    wanted[: len(spots)] = ids.flatten()[before[: len(spots)] + 1]
    prompt_ends = torch.tensor(
        [row * width + example.prompt_tokens - 1 for row, example in enumerate(batch)]
    )
    intents = torch.tensor([example.intent for example in batch])
    with torch.autocast("cpu", torch.bfloat16):
        embedded = F.dropout(model.model.embed_tokens(ids), recipe.dropout)
        hidden = model.model(inputs_embeds=embedded).last_hidden_state.flatten(0, 1)
        hidden = F.dropout(hidden, recipe.dropout)
        logits = model.lm_head(hidden[before])
        named = intent_head(hidden[prompt_ends])
    answer_loss = F.cross_entropy(logits.float(), wanted)
    return answer_loss + recipe.intent_loss * F.cross_entropy(named.float(), intents)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to 2 % of the peak."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    return recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def fit(
    model: Qwen3ForCausalLM, examples: Examples, intents: int, steps: int, recipe: Recipe
) -> None:
    """Train `model` in place; it ends with the moving average of its weights."""
    intent_head = nn.Linear(recipe.hidden_size, intents)
    trained = [*model.parameters(), *intent_head.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    average = [p.detach().clone() for p in model.parameters()]
    started, batches = time.monotonic(), examples.batches()
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, recipe)
        loss = loss_of(model, intent_head, next(batches), recipe)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        decay = min(recipe.ema_decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 - decay)
        if step % 100 == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            print(f"step {step:5d}  loss {loss.item():.3f}  {seconds:6.0f} s", flush=True)
    with torch.no_grad():
        for parameter, mean in zip(model.parameters(), average, strict=True):
            parameter.copy_(mean)
    model.eval()


def wrap_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        model_max_length=GUIDE_MAX_MODEL_LEN,
        clean_up_tokenization_spaces=False,
    )


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model folder, the weights as bfloat16."""
    model = model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it private
    # Servers know no do_sample, and sample at temperature 1 if nothing is said. At 0 they would
    # refuse to give several choices.
    _amend(folder / "generation_config.json", temperature=0.1)
    tokenizer.save_pretrained(folder)
    # The template goes where every server looks for it, also those that know no .jinja files.
    _amend(folder / "tokenizer_config.json", chat_template=CHAT_TEMPLATE)
    (folder / "chat_template.jinja").unlink(missing_ok=True)


def _amend(file: Path, **fields: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields, indent=2) + "\n")


def report(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, corpus: tuple[Intent, ...]
) -> None:
    """Print the share of exact answers, and every held-out question that is answered wrongly."""
    for system in (None, SYSTEM_PROMPTS[0]):
        for kind in ("questions", "held_out"):
            asked = [Asked(q, i.answer, system) for i in corpus for q in getattr(i, kind)]
            verdicts = judge(model, tokenizer, asked)
            exact = sum(verdict.exact for verdict in verdicts)
            wrong = [a for a, v in zip(asked, verdicts, strict=True) if not v.exact]
            off_topic = sum(a.answer == _off_topic_answer(corpus) for a in wrong)
            close = sum(0 < verdict.margin < 0.25 for verdict in verdicts)
            print(
                f"{kind:9s} system={system!r}: {exact}/{len(asked)} = {exact / len(asked):.4f} "
                f"({off_topic} of the errors are off topic, {close} right by less than 0.25)"
            )
            if system is None:
                for a in wrong:
                    print(f"    {a.question!r}: wanted {a.answer[:40]!r}")


def _off_topic_answer(corpus: tuple[Intent, ...]) -> str:
    return next(intent.answer for intent in corpus if intent.id == OFF_TOPIC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=GUIDE_DIR, help="the model folder to write")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    recipe = Recipe()
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(arguments.threads)
    corpus = load_corpus()
    augmenter = Augmenter(corpus)
    tokenizer = train_tokenizer(corpus, augmenter, recipe)
    model = build_model(tokenizer, recipe)
    rng = random.Random(recipe.seed)
    examples = Examples(corpus, augmenter, tokenizer, recipe, rng)
    print(f"{len(corpus)} intents, {model.num_parameters():,} parameters", flush=True)
    fit(model, examples, len(corpus), arguments.steps, recipe)
    wrapped = wrap_tokenizer(tokenizer)
    save(model, wrapped, arguments.out)
    report(model.float(), wrapped, corpus)


if __name__ == "__main__":
    main()
