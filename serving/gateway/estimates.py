"""How many tokens a request will take, learned from what the engines told of others. Pure."""

from serving.gateway.tokens import Tokens

FORGET = 0.99
"""Weight of what is known when the next answer is learned from: the last 100 count."""

FIRST_BYTES_A_TOKEN = 4.0
FIRST_OUTPUT = 128.0
"""What is assumed before anything was learned, with the weight of FIRST_WEIGHT answers."""

FIRST_WEIGHT = 2.0
FIRST_PROMPT = 256.0


class Estimates:
    """One model's bytes for each prompt token, and tokens for each answer."""

    def __init__(self) -> None:
        self._prompt_tokens = FIRST_PROMPT * FIRST_WEIGHT
        self._prompt_bytes = self._prompt_tokens * FIRST_BYTES_A_TOKEN
        self._answers = FIRST_WEIGHT
        self._output_tokens = FIRST_OUTPUT * FIRST_WEIGHT

    def prompt(self, prompt_bytes: int) -> int:
        """Tokens of a prompt with so many bytes of text, at least 1."""
        return max(1, round(prompt_bytes * self._prompt_tokens / self._prompt_bytes))

    def output(self, max_tokens: int | None, answers: int = 1) -> int:
        """Tokens that a request for so many answers will be given."""
        mean = self._output_tokens / self._answers
        each = mean if max_tokens is None else min(mean, max_tokens)
        return round(each * answers)

    def learn(self, prompt_bytes: int, answers: int, tokens: Tokens) -> None:
        """Takes in what a whole answer took. A prompt of media says nothing of text."""
        if prompt_bytes > 0 and tokens.prompt > 0:
            self._prompt_tokens = self._prompt_tokens * FORGET + tokens.prompt
            self._prompt_bytes = self._prompt_bytes * FORGET + prompt_bytes
        self._answers = self._answers * FORGET + answers
        self._output_tokens = self._output_tokens * FORGET + tokens.completion
