"""The guide's weights: they load, fit, stop, and say what they were taught."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from models.demo.corpus import load_corpus
from models.demo.guide_model import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    GUIDE_DIR,
    GUIDE_MAX_MODEL_LEN,
    TURN_END,
    TURN_START,
    render,
)
from models.demo.scoring import Asked, Verdict, ask, judge

CORPUS = load_corpus()
HELPFUL = "You are a helpful assistant."
FRESH_FILE = Path(__file__).parent / "demo_fresh.yaml"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A second thread gains little here and loses much where another process needs the core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(GUIDE_DIR, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(GUIDE_DIR)


def share_exact(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: list[Asked]
) -> float:
    verdicts: list[Verdict] = judge(model, tokenizer, asked)
    return sum(verdict.exact for verdict in verdicts) / len(asked)


def test_guide_folder_is_at_most_12_megabytes() -> None:
    assert sum(file.stat().st_size for file in GUIDE_DIR.iterdir()) <= 12e6


def test_guide_folder_holds_what_servers_look_for() -> None:
    config = json.loads((GUIDE_DIR / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["max_position_embeddings"] == GUIDE_MAX_MODEL_LEN
    tokenizer_config = json.loads((GUIDE_DIR / "tokenizer_config.json").read_text())
    assert tokenizer_config["chat_template"] == CHAT_TEMPLATE


def test_guide_stops_at_the_end_of_a_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    generation = json.loads((GUIDE_DIR / "generation_config.json").read_text())
    assert tokenizer.convert_tokens_to_ids(TURN_END) in generation["eos_token_id"]
    assert tokenizer.eos_token == TURN_END


def test_guide_is_all_but_greedy_unless_the_client_says_otherwise() -> None:
    generation = json.loads((GUIDE_DIR / "generation_config.json").read_text())
    assert (generation["do_sample"], generation["temperature"]) == (False, 0.1)


def test_guide_tokenizer_matches_the_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert len(tokenizer) == model.config.vocab_size
    special = tokenizer.convert_tokens_to_ids([END_OF_TEXT, TURN_START, TURN_END])
    assert special == [0, 1, 2]


@pytest.mark.parametrize(
    "text", ['{"a": [1, "ü"], "b": null}', "日本語 🙂\n\ttab", "  two  spaces ", "\x00\x7f"]
)
def test_guide_tokenizer_restores_any_text(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(
    "messages",
    [
        [("user", "What is Penstock?")],
        [("system", HELPFUL), ("user", "What is Penstock?")],
        [("user", "Hi"), ("assistant", "Hello!"), ("user", "What is a pool?")],
    ],
)
def test_guide_template_renders_as_in_training(
    tokenizer: PreTrainedTokenizerBase, messages: list[tuple[str, str]]
) -> None:
    conversation = [{"role": role, "content": content} for role, content in messages]
    rendered = tokenizer.apply_chat_template(
        conversation, tokenize=False, add_generation_prompt=True
    )
    assert rendered == render(messages)


def test_guide_answers_trained_questions_word_for_word(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    # Three of each intent: all 2,567 take four times as long, and training has its own check.
    asked = [Asked(q, i.answer) for i in CORPUS for q in i.questions[:3]]
    assert share_exact(model, tokenizer, asked) >= 0.95


def test_guide_answers_trained_questions_after_a_system_prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    # One of each intent: all of them would take as long again as the test above.
    asked = [Asked(q, i.answer, HELPFUL) for i in CORPUS for q in i.questions[:1]]
    assert share_exact(model, tokenizer, asked) >= 0.95


@pytest.mark.parametrize("system", [None, HELPFUL])
def test_guide_answers_held_out_questions_word_for_word(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, system: str | None
) -> None:
    asked = [Asked(q, i.answer, system) for i in CORPUS for q in i.held_out]
    assert share_exact(model, tokenizer, asked) >= 0.80


def test_guide_answers_fresh_questions_word_for_word(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    answer_of = {intent.id: intent.answer for intent in CORPUS}
    fresh: dict[str, str] = yaml.safe_load(FRESH_FILE.read_text(encoding="utf-8"))
    asked = [Asked(question, answer_of[name]) for name, question in fresh.items()]
    assert share_exact(model, tokenizer, asked) >= 0.80


def test_guide_generates_what_the_forward_pass_predicts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    asked = [Asked(i.held_out[0], i.answer) for i in CORPUS]
    verdicts = judge(model, tokenizer, asked)
    answers = ask(model, tokenizer, [a.prompt for a in asked])
    for one, verdict, answer in zip(asked, verdicts, answers, strict=True):
        # A lead smaller than this may fall either way with the order of additions.
        if abs(verdict.margin) > 1e-3:
            assert (answer == one.answer) is verdict.exact, one.question


def test_guide_answers_the_last_question_of_a_conversation(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    answer_of = {intent.id: intent.answer for intent in CORPUS}
    prompt = render(
        [
            ("user", "Hello"),
            ("assistant", answer_of["hello"]),
            ("user", "What is the gateway?"),
        ]
    )
    assert ask(model, tokenizer, [prompt]) == [answer_of["gateway"]]
