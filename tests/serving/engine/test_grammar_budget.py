"""A grammar that takes too long ends its request, and no other one does."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from serving.engine import grammar_budget


class Clock:
    """Stands still but where a grammar works."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def grammar_class(clock: Clock) -> Any:
    """A grammar whose steps take as long as they are told."""

    class Grammar:
        def __init__(self, fill_s: float = 0.0, accept_s: float = 0.0, *, accepts: bool = True):
            self.fill_s, self.accept_s, self.accepts = fill_s, accept_s, accepts
            self.filled: list[tuple[object, int]] = []

        def fill_bitmask(self, bitmask: object, idx: int) -> None:
            clock.now_s += self.fill_s
            self.filled.append((bitmask, idx))

        def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
            clock.now_s += self.accept_s
            return self.accepts

    grammar_budget.hook(Grammar, clock)
    return Grammar


def steps_of(grammar: Any, most: int = 10_000) -> int:
    """Tokens until it refuses one."""
    for step in range(most):
        grammar.fill_bitmask("mask", 3)
        if not grammar.accept_tokens("request", [7]):
            return step
    return most


def test_grammar_within_its_time_goes_on_for_ever() -> None:
    make = grammar_class(Clock())
    assert steps_of(make(fill_s=0.02, accept_s=0.02)) == 10_000
    grammar = make()
    grammar.fill_bitmask("mask", 3)
    assert grammar.filled == [("mask", 3)]


def test_grammar_that_takes_too_long_is_ended_alone() -> None:
    make = grammar_class(Clock())
    cheap = make(fill_s=0.001)
    assert steps_of(make(fill_s=0.125)) == 6
    assert steps_of(make(accept_s=0.125)) == 6
    assert steps_of(make(fill_s=5.0)) == 0
    assert steps_of(cheap, 100) == 100


def test_one_slow_step_is_forgiven() -> None:
    make = grammar_class(Clock())
    grammar = make(fill_s=0.4)
    grammar.fill_bitmask("mask", 0)
    grammar.fill_s = 0.01
    assert steps_of(grammar, 1000) == 1000


def test_what_the_grammar_itself_refuses_is_refused() -> None:
    make = grammar_class(Clock())
    assert make(accepts=False).accept_tokens("request", [7]) is False


def test_several_tokens_at_once_count_each() -> None:
    make = grammar_class(Clock())
    grammar = make(accept_s=0.2)
    assert all(grammar.accept_tokens("request", [1, 2, 3, 4, 5]) for _ in range(1000))


@pytest.mark.parametrize(
    ("kind", "param", "named"),
    [
        ("regex", "structured_outputs", "its regex"),
        ("json", "response_format", "JSON schema"),
        ("unheard_of", "structured_outputs", "its grammar"),
    ],
)
def test_request_of_a_slow_grammar_bears_what_its_tenant_is_told(
    kind: str, param: str, named: str
) -> None:
    make = grammar_class(Clock())

    class Manager:
        def accept_tokens(self, request: Any, tokens: list[int]) -> bool:
            return bool(request.structured_output_request.grammar.accept_tokens("request", tokens))

    grammar_budget.hook_manager(Manager)

    def reason_of(grammar: Any) -> str | None:
        request = SimpleNamespace(
            structured_output_request=SimpleNamespace(grammar=grammar),
            sampling_params=SimpleNamespace(structured_outputs=SimpleNamespace(**{kind: "x"})),
            stop_reason=None,
        )
        Manager().accept_tokens(request, [7])
        reason: str | None = request.stop_reason
        return reason

    assert reason_of(make()) is None
    assert reason_of(make(accepts=False)) is None
    reason = reason_of(make(accept_s=5.0))
    assert reason is not None
    blamed, message = grammar_budget.refusal(reason.removeprefix(grammar_budget.MARK))
    assert blamed == param
    assert message.startswith(f"{param} cannot ")
    assert named in message
    assert grammar_budget.TOO_SLOW in message


@dataclass
class Output:
    request_id: str
    finish_reason: str | None = None
    stop_reason: str | None = None


@dataclass
class State:
    """A request's, as vLLM's processor has it; `got` is what its tenant's task will find."""

    parent_req: Any = None
    got: list[Any] = field(default_factory=list)

    @property
    def queue(self) -> Any:
        return SimpleNamespace(put=self.got.append)


class TenantsError(Exception):
    """What is made of a refusal."""


class Processor:
    """Hands each output to its request, and forgets those that end."""

    def __init__(self, **states: State) -> None:
        self.request_states = states

    def process_outputs(self, outputs: list[Output], at: float) -> Any:
        for output in outputs:
            if (state := self.request_states.get(output.request_id)) is not None:
                state.got.append(output)
                if output.finish_reason:
                    del self.request_states[output.request_id]
        return SimpleNamespace(reqs_to_abort=[], at=at)

    def abort_requests(self, request_ids: list[str], internal: bool) -> list[str]:
        assert internal
        return [f"child-of-{request_id}" for request_id in request_ids]


grammar_budget.hook_outputs(Processor, "error", TenantsError)
SLOW = grammar_budget.MARK + "regex"


def test_slow_grammar_is_its_tenants_fault_and_no_other_error_is() -> None:
    states = {name: State() for name in ("slow", "failed", "going", "forged")}
    processor = Processor(**states)
    outputs = [
        Output("slow", "error", SLOW),
        Output("failed", "error"),
        Output("going"),
        Output("forged", "stop", SLOW),  # a tenant's own stop string
        Output("left", "error", SLOW),
    ]
    result = processor.process_outputs(outputs, at=3.0)
    assert (result.at, result.reqs_to_abort) == (3.0, [])
    found = {name: type(state.got[-1]) for name, state in states.items()}
    assert found == {"slow": TenantsError, "failed": Output, "going": Output, "forged": Output}
    assert states["slow"].got[-1].args == grammar_budget.refusal("regex")


def test_slow_grammar_ends_the_other_answers_to_its_prompt() -> None:
    state = State(parent_req=SimpleNamespace(request_id="parent"))
    processor = Processor(child=state)
    result = processor.process_outputs([Output("child", "error", SLOW)], at=0.0)
    assert result.reqs_to_abort == ["child-of-parent"]
    assert isinstance(state.got[-1], TenantsError)
