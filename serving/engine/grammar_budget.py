"""Ends a request whose grammar costs too much of each step. Knows no vLLM.

A grammar says before each token which ones may follow. That takes a millisecond; but what a tenant
may write, as `((a{1,1000}){1,1000}){1,1000}`, `(\\w+\\s?){1,200}` or `s ::= s s s | ""`, takes
longer with each token, up to twice, and everybody else's next token waits for it: after some dozens
for seconds, and then the engine is taken to hang. No look at the grammar tells. So the time of the
thread that works for it is counted, which no load of the machine lengthens.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from serving.logs import get_logger

GRACE_S = 0.5
STEP_S = 0.05
"""A grammar may take so much, and so much more for each token. With a vocabulary of 128,000 tokens
a JSON schema takes under 1 ms a token, and a long one 6 ms for its first; `(\\w+ )*\\w+\\.` takes
15 ms for each. One that doubles its time with each token is ended at a step of half a second."""

MARK = "penstock:grammar:"
"""What tells the API's process, as a reason to stop, that a grammar was too slow; its kind follows.
vLLM itself says of a request that it ended with an error, and no more: the answer would be 500."""

KINDS = ("regex", "grammar", "choice", "structural_tag", "json", "json_object")
"""Of vLLM's StructuredOutputsParams; one of them is set."""

TOO_SLOW = "takes the engine too long to tell which token may follow"
"""Part of the refusal, by which the gateway knows it."""

_log = get_logger("penstock.engine")


def refusal(kind: str) -> tuple[str, str]:
    """The field to blame for a grammar of this kind, and what the tenant is told."""
    if kind.startswith("json"):
        param, of = "response_format", "the JSON schema, of it, of structured_outputs or of a tool,"
    else:
        param, of = "structured_outputs", f"its {kind or 'grammar'}"
    return param, f"{param} cannot be so complex: {of} {TOO_SLOW}"


def hook(grammar_class: Any, clock: Callable[[], float] = time.thread_time) -> None:
    """Has a class of vLLM's grammars refuse the next token where the time is used up.

    vLLM then ends that request with an error, and no other; `hook_manager` and `hook_outputs` make
    it the tenant's.

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
        grammar.too_slow = True
        return False

    grammar_class.fill_bitmask = fill_bitmask
    grammar_class.accept_tokens = accept_tokens


def hook_manager(manager_class: Any) -> None:
    """Has the reason stand in the last output of a request whose grammar was too slow.

    Args:
        manager_class: With `accept_tokens`, as vLLM's `StructuredOutputManager` (0.32.0).
    """
    ordinary: Callable[..., bool] = manager_class.accept_tokens

    def accept_tokens(manager: Any, request: Any, *args: Any, **named: Any) -> bool:
        accepted = ordinary(manager, request, *args, **named)
        asked = request.structured_output_request
        if not accepted and getattr(asked.grammar, "too_slow", False):
            asked_for = request.sampling_params.structured_outputs
            kinds = (kind for kind in KINDS if getattr(asked_for, kind, None) is not None)
            request.stop_reason = MARK + next(kinds, "")
        return accepted

    manager_class.accept_tokens = accept_tokens


def hook_outputs(
    processor: Any, failed: object, make_error: Callable[[str, str], Exception]
) -> None:
    """Has such a request end with an error that is its tenant's.

    Args:
        processor: With `process_outputs`, as vLLM's `OutputProcessor` (0.32.0).
        failed: The `finish_reason` of an output that tells of an error.
        make_error: Of the field to blame and the message.
    """
    ordinary: Callable[..., Any] = processor.process_outputs

    def process_outputs(self: Any, outputs: Sequence[Any], *args: Any, **named: Any) -> Any:
        slow = [
            (state, output.stop_reason)
            for output in outputs
            if output.finish_reason == failed
            and str(output.stop_reason).startswith(MARK)
            # Looked up before: a request that ends here is gone afterwards.
            and (state := self.request_states.get(output.request_id)) is not None
        ]
        result = ordinary(self, outputs, *args, **named)
        for state, reason in slow:
            if state.parent_req is not None:  # further answers to the prompt (`n`) go to nobody
                others = self.abort_requests([state.parent_req.request_id], internal=True)
                result.reqs_to_abort.extend(others)
            if state.queue is not None:  # whoever waits has not seen the output yet
                state.queue.put(make_error(*refusal(reason.removeprefix(MARK))))
        return result

    processor.process_outputs = process_outputs
