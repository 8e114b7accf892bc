"""What is different about servers that others run: a manifest's `endpoints`. Pure.

They have no recorder and no account of their steps, may be silent for minutes over one answer, and
say "too many requests" of a quota that is the operator's, not the tenant's.
"""

import math

from serving.protocol import ModelRoute

SILENT_S = 600.0
"""For so long such a server may say nothing: OpenAI's own client waits no longer by default."""

FULL = frozenset({429, 503})
"""Answers of a server that has no more room."""

REST_S = 1.0
"""It is left alone for so long, where it does not say how long."""

LONGEST_REST_S = 30.0
"""One that wants more is tried again all the same: quotas are raised, too."""

SECRET_CHARS = 8
"""Shorter tokens keep nobody out, and may be words of an answer."""

HEADERS = "accept-encoding: identity\r\nuser-agent: penstock\r\n"
"""An answer is passed on as it comes, but for its encoding; some servers refuse the nameless."""


def is_elsewhere(route: ModelRoute) -> bool:
    """Whether others serve the model."""
    return any(endpoint.external for endpoint in route.endpoints)


def rest_s(retry_after: str | None) -> float:
    """How long a server is left alone that has no more room, by its Retry-After in seconds."""
    try:
        asked_s = float(retry_after or "")
    except ValueError:  # none, or a date
        return REST_S
    return min(LONGEST_REST_S, max(REST_S, asked_s)) if math.isfinite(asked_s) else REST_S


def without_tokens(said: bytes, route: ModelRoute) -> bytes:
    """A server's words without the tokens that such servers are shown: some repeat them."""
    for endpoint in route.endpoints:
        if endpoint.external and len(endpoint.token) >= SECRET_CHARS:
            said = said.replace(endpoint.token.encode(), b"***")
    return said
