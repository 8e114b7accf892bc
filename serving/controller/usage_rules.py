"""The rule by which usage is made from attempts; pure. `docs/concepts/metering.md` tells it."""

from dataclasses import dataclass
from typing import Literal

from serving.metered import UsageStatus

UnknownRule = Literal["bill", "forgive"]


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens by kind: cached is part of the prompt, reasoning part of the completion."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0


NOTHING = TokenCounts()


def usage_of(
    status: UsageStatus, delivered: int, attempt: TokenCounts, rule: UnknownRule
) -> TokenCounts:
    """What is billed of a request whose gateway could not say it, from its last attempt.

    Args:
        status: How the request ended; some byte of the answer left, or may have left.
        delivered: Parts of the stream that went out, each of at least one token.
        attempt: What the recorder of its last engine counted.
        rule: What the operator wants where nobody knows how much went out.
    """
    match status:
        case UsageStatus.COMPLETE:
            return attempt
        case UsageStatus.CUT | UsageStatus.CANCELLED:
            # The engine may have made more than went out. Parts hold one token or, where the
            # tenant reads slowly, several: the count of parts errs in the tenant's favour.
            completion = min(delivered, attempt.completion)
            reasoning = min(attempt.reasoning, completion)
            return TokenCounts(attempt.prompt, attempt.cached, completion, reasoning)
        case UsageStatus.UNKNOWN:
            return attempt if rule == "bill" else NOTHING
        case UsageStatus.FAILED:
            return NOTHING
