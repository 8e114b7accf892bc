"""Whether an engine gets requests: kept away after a failure, then probed by one. Pure."""

from dataclasses import dataclass

FIRST_S = 1.5
"""How long an endpoint is kept away after its first failure; doubled by each one that follows."""

LONGEST_S = 30.0


@dataclass(slots=True)
class Breaker:
    """One endpoint's; times are monotonic seconds."""

    failures: int = 0  # in a row
    until_s: float = 0.0
    probing: bool = False  # one request has been let in to see whether all is well again

    def lets_in(self, now_s: float) -> bool:
        """Whether a request may be sent now."""
        return now_s >= self.until_s and not self.probing

    def sent(self) -> None:
        """A request is on its way; after a failure it is the probe, and no other goes beside it."""
        if self.failures:
            self.probing = True

    def succeeded(self) -> None:
        """The engine answered."""
        self.failures, self.probing = 0, False

    def gave_up(self) -> None:
        """A request ended without telling anything, as when its tenant left."""
        self.probing = False

    def failed(self, now_s: float, for_s: float | None = None) -> float:
        """Keeps requests away, and returns until when.

        Requests that fail while nothing is let in were sent before: they are the same failure.
        """
        if now_s >= self.until_s:
            longer_s = min(LONGEST_S, FIRST_S * 2.0**self.failures)
            self.failures = min(self.failures + 1, 30)
            self.until_s = now_s + (longer_s if for_s is None else for_s)
        self.probing = False
        return self.until_s

    def pause(self, until_s: float) -> None:
        """Keeps requests away for a moment, without a verdict."""
        self.until_s = max(self.until_s, until_s)
        self.probing = False

    def reset(self) -> None:
        """The endpoint is another one now."""
        self.failures, self.until_s, self.probing = 0, 0.0, False
