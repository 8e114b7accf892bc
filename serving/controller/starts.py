"""Remembers how a model's starts went, and says when the next one may come. Pure.

Three failed starts in a row and the model has failed: it is tried once more each FAILED_RETRY_S
as long as it is wanted, and at once after a deploy. An engine that dies after it was ready for
STABLE_S did not fail to start: the count begins anew and it is started again at once.
"""

from dataclasses import dataclass

BACKOFF_S = (0.2, 1.0)
FAILED_AFTER = 3
FAILED_RETRY_S = 60.0
STABLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Starts:
    """The failed starts of a model in a row, and the last one's story; monotonic seconds."""

    failures: int = 0
    failed_s: float = 0.0
    error: str = ""
    hint: str | None = None
    host_id: str = ""

    def after_failure(
        self,
        now_s: float,
        *,
        ready_s: float | None,
        error: str,
        hint: str | None,
        host_id: str,
    ) -> "Starts":
        """An engine died that was ready since `ready_s`, or never."""
        if ready_s is not None and now_s - ready_s >= STABLE_S:
            return Starts()
        return Starts(self.failures + 1, now_s, error, hint, host_id)

    @property
    def why(self) -> str:
        """The last failure and its hint, in one line for the operator."""
        return f"{self.error} ({self.hint})" if self.hint else self.error

    @property
    def retry_s(self) -> float | None:
        """When the next start may come; None: at any time."""
        if not self.failures:
            return None
        if self.failures >= FAILED_AFTER:
            return self.failed_s + FAILED_RETRY_S
        return self.failed_s + BACKOFF_S[self.failures - 1]

    def has_failed(self, now_s: float) -> bool:
        """Whether the model counts as failed now."""
        return self.failures >= FAILED_AFTER and now_s < self.failed_s + FAILED_RETRY_S
