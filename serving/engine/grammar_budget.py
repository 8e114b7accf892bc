"""Ends a request whose grammar costs too much of each step. Knows no vLLM.

A grammar says before each token which ones may follow. That takes a millisecond; but what a tenant
may write, as `((a{1,1000}){1,1000}){1,1000}`, `(\\w+\\s?){1,200}` or `s ::= s s s | ""`, takes
longer with each token, up to twice, and everybody else's next token waits for it: after some dozens
for seconds, and then the engine is taken to hang. No look at the grammar tells. So the time of the
thread that works for it is counted, which no load of the machine lengthens.
"""

import time
from collections.abc import Callable
from typing import Any

from serving.logs import get_logger

GRACE_S = 0.5
STEP_S = 0.05
"""A grammar may take so much, and so much more for each token. With a vocabulary of 128,000 tokens
a JSON schema takes under 1 ms a token, and a long one 6 ms for its first; `(\\w+ )*\\w+\\.` takes
15 ms for each. One that doubles its time with each token is ended at a step of half a second."""

_log = get_logger("penstock.engine")


def hook(grammar_class: Any, clock: Callable[[], float] = time.thread_time) -> None:
    """Has a class of vLLM's grammars refuse the next token where the time is used up.

    vLLM then ends that request with an error, and no other.

    Args:
        grammar_class: With `fill_bitmask` and `accept_tokens`, as vLLM's `StructuredOutputGrammar`.
        clock: Seconds that the calling thread has worked.
    """
    ordinary_fill: Callable[..., None] = grammar_class.fill_bitmask
    ordinary_accept: Callable[..., bool] = grammar_class.accept_tokens

    def fill_bitmask(grammar: Any, *args: Any, **named: Any) -> None:
        began_s = clock()
        ordinary_fill(grammar, *args, **named)
        grammar.spent_s = getattr(grammar, "spent_s", 0.0) + clock() - began_s

    def accept_tokens(grammar: Any, request_id: str, tokens: list[int]) -> bool:
        began_s = clock()
        accepted = ordinary_accept(grammar, request_id, tokens)
        grammar.spent_s = getattr(grammar, "spent_s", 0.0) + clock() - began_s
        grammar.tokens_seen = getattr(grammar, "tokens_seen", 0) + len(tokens)
        if grammar.spent_s <= GRACE_S + STEP_S * grammar.tokens_seen:
            return accepted
        _log.warning(
            "grammar_too_slow", request_id=request_id, spent_s=round(grammar.spent_s, 2),
            tokens=grammar.tokens_seen,
        )  # fmt: skip
        return False

    grammar_class.fill_bitmask = fill_bitmask
    grammar_class.accept_tokens = accept_tokens
