"""Asks a model many questions at once and counts the answers that are right word for word."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.demo.guide_model import TURN_END, render


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and the only answer that counts."""

    question: str
    answer: str
    system: str | None = None

    @property
    def prompt(self) -> str:
        system = [("system", self.system)] if self.system is not None else []
        return render([*system, ("user", self.question)])


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether greedy decoding gives exactly the answer, and how close the decision was."""

    exact: bool
    margin: float
    """Least lead, in logits, of an expected token over its best rival; negative if not exact."""
    first_wrong: int | None
    """Index of the first answer token that greedy decoding gets wrong."""


@torch.inference_mode()
def judge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Asked],
    batch_size: int = 64,
) -> list[Verdict]:
    """Judge greedy decoding by one forward pass over prompt and expected answer.

    Greedy decoding yields the expected answer if and only if each of its tokens, the final
    `<|im_end|>` included, is the likeliest one after those before it. That needs one pass over
    all positions instead of one pass a token, and reports the margin besides.
    """
    prompts = [tokenizer(a.prompt, add_special_tokens=False)["input_ids"] for a in asked]
    answers = [tokenizer(a.answer + TURN_END, add_special_tokens=False)["input_ids"] for a in asked]
    verdicts: list[Verdict | None] = [None] * len(asked)
    order = sorted(range(len(asked)), key=lambda i: len(prompts[i]) + len(answers[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = max(len(prompts[i]) + len(answers[i]) for i in rows)
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        for row, i in enumerate(rows):
            ids[row, : len(prompts[i]) + len(answers[i])] = torch.tensor(prompts[i] + answers[i])
        hidden = model.model(input_ids=ids).last_hidden_state
        for row, i in enumerate(rows):
            first = len(prompts[i]) - 1
            logits = model.lm_head(hidden[row, first : first + len(answers[i])]).float()
            verdicts[i] = _verdict(logits, torch.tensor(answers[i]))
    return [verdict for verdict in verdicts if verdict is not None]


def _verdict(logits: torch.Tensor, expected: torch.Tensor) -> Verdict:
    right = logits.gather(1, expected[:, None])[:, 0]
    rivals = logits.scatter(1, expected[:, None], float("-inf")).max(dim=1).values
    leads = right - rivals
    wrong = torch.nonzero(leads <= 0)
    first_wrong = int(wrong[0]) if len(wrong) else None
    return Verdict(exact=first_wrong is None, margin=float(leads.min()), first_wrong=first_wrong)


@torch.inference_mode()
def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int = 128,
) -> list[str]:
    """Answers to rendered prompts, decoded greedily in one left-padded batch."""
    tokenizer.padding_side = "left"
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True, add_special_tokens=False)
    output = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
    answers = output[:, batch["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]
