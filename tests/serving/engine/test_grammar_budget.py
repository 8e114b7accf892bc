"""A grammar that takes too long ends its request, and no other one does."""

from typing import Any

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
