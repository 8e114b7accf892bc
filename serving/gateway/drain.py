"""How fast a line drains, by what left it in the last seconds. Pure: time is an argument."""

import math

MEMORY_S = 10.0
"""After this time a departure counts a third (1/e)."""

UNKNOWN_S = 5.0
"""A wait to suggest where nothing has left the line yet: the model may be waking."""

LONGEST_S = 60.0


class Drain:
    """Tokens that leave a line, as a rate that forgets."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._began_s: float | None = None
        self._at_s = 0.0

    def note(self, tokens: int, now_s: float) -> None:
        """So much has left just now."""
        if self._began_s is None:
            self._began_s = self._at_s = now_s
        self._sum = self._decayed(now_s) + tokens
        self._at_s = now_s

    def per_s(self, now_s: float) -> float:
        """Tokens a second; 0 where nothing left for long."""
        if self._began_s is None:
            return 0.0
        # The weights of the time since the first departure add up to this many seconds.
        seen_s = MEMORY_S * (1 - math.exp(-(now_s - self._began_s) / MEMORY_S))
        return self._decayed(now_s) / max(seen_s, 0.25)

    def seconds_for(self, tokens: int, now_s: float) -> float:
        """How long so many tokens will take to leave, from 1 to LONGEST_S."""
        rate = self.per_s(now_s)
        if rate <= 0:
            return UNKNOWN_S
        return min(LONGEST_S, max(1.0, tokens / rate))

    def _decayed(self, now_s: float) -> float:
        return self._sum * math.exp(-max(0.0, now_s - self._at_s) / MEMORY_S)
