"""How fast engines compute prompts, learned from streams, for answers that show no first byte."""

FIRST_TOKENS_PER_S = 20_000.0

SHORTEST_S = 0.01
LONGEST_S = 5.0
EXCUSE = 4.0
"""An engine that takes so many times longer than usual does not hang yet."""

SLOWEST_TOKENS_PER_S = 200.0
"""Where nothing is known yet: a model of some billion parameters on a laptop."""

NEWEST = 0.1
"""Weight of the newest answer in the mean."""


class PrefillSpeed:
    """One model's; pure."""

    def __init__(self) -> None:
        self._tokens_per_s = FIRST_TOKENS_PER_S
        self._is_learned = False

    def learn(self, tokens: int, took_s: float) -> None:
        """An engine that held `tokens` of prompts gave a first byte after this time."""
        if tokens > 0 and took_s > 0:
            self._is_learned = True
            self._tokens_per_s += NEWEST * (tokens / took_s - self._tokens_per_s)

    def seconds_for(self, tokens: int) -> float:
        """How long an engine needs for these tokens of prompts."""
        return min(LONGEST_S, max(SHORTEST_S, tokens / self._tokens_per_s))

    def excuse_s(self, tokens: int) -> float:
        """How long an engine may seem to do nothing while it computes these tokens of prompts."""
        speed = self._tokens_per_s / EXCUSE if self._is_learned else SLOWEST_TOKENS_PER_S
        return tokens / speed
