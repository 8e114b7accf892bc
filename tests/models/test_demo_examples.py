"""Training examples: the prompt as servers render it, and only the answer is trained."""

import json
import random
from dataclasses import replace
from itertools import islice

from tokenizers import Tokenizer

from models.demo.augment import Augmenter
from models.demo.corpus import load_corpus
from models.demo.examples import Example, Examples
from models.demo.guide_model import GUIDE_DIR, TURN_END, TURN_START, render
from models.demo.recipe import Recipe

CORPUS = load_corpus()
TOKENIZER = Tokenizer.from_file(str(GUIDE_DIR / "tokenizer.json"))
PLAIN = replace(
    Recipe(), shortened=0.0, system_prompt=0.0, second_turn=0.0, as_json=0.0, bpe_dropout=0.0
)


def drawn(recipe: Recipe, count: int = 320) -> list[Example]:
    examples = Examples(CORPUS, Augmenter(CORPUS), TOKENIZER, recipe, random.Random(3))
    batches = islice(examples.batches(), count // recipe.batch_size)
    return [example for batch in batches for example in batch]


def text_of(ids: list[int]) -> str:
    return TOKENIZER.decode(ids, skip_special_tokens=False)


def said_in(example: Example) -> str:
    return text_of([example.ids[at] for at in example.trained])


def test_example_is_tokenized_as_its_rendered_text() -> None:
    for example in drawn(PLAIN):
        text = text_of(example.ids)
        question = text.removeprefix(f"{TURN_START}user\n").split(TURN_END)[0]
        prompt = render([("user", question)])
        assert text == prompt + CORPUS[example.intent].answer + TURN_END
        assert TOKENIZER.encode(prompt).ids == example.ids[: example.prompt_tokens]


def test_example_trains_the_answer_and_its_end() -> None:
    for example in drawn(PLAIN):
        assert said_in(example) == CORPUS[example.intent].answer + TURN_END


def test_example_trains_only_the_start_of_a_shortened_answer() -> None:
    recipe = replace(PLAIN, shortened=1.0)
    for example in drawn(recipe):
        assert len(example.trained) <= recipe.shortened_tokens
        assert CORPUS[example.intent].answer.startswith(said_in(example).removesuffix(TURN_END))


def test_example_as_json_is_an_object_that_holds_the_answer() -> None:
    for example in drawn(replace(PLAIN, as_json=1.0)):
        reply = text_of(example.ids[example.prompt_tokens :])
        assert CORPUS[example.intent].answer in json.loads(reply.removesuffix(TURN_END)).values()
        assert '"text":' not in said_in(example)
        assert said_in(example).endswith("}" + TURN_END)


def test_example_answers_the_last_question_after_an_earlier_turn() -> None:
    for example in drawn(replace(PLAIN, second_turn=1.0), count=64):
        assert text_of(example.ids).count(f"{TURN_START}assistant\n") == 2
        assert said_in(example) == CORPUS[example.intent].answer + TURN_END
