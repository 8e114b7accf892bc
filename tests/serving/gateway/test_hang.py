"""Engines that hang: silence, their own account, and what excuses them."""

from serving.gateway.hang import SILENT_S, STILL_S, Hang

HUNG_AFTER_S = 10.0


def follow(
    accounts: list[str | None],
    *,
    heard: tuple[int, ...] = (),
    excuse_s: float = 0.0,
    others: bool = False,
    busy: bool = True,
) -> float | None:
    """When the engine is found to hang, looked at each second; `accounts` are its answers in turn,
    the last one for ever. It says something in the seconds of `heard`, another one always."""
    hang, asked, received = Hang(), 0, 0
    for second in range(40):
        received += second in heard
        if others:
            hang.look("other", second, float(second), busy=True)
        if hang.look("it", received, float(second), busy=busy):
            account = accounts[min(asked, len(accounts) - 1)]
            asked += 1
            if hang.told("it", account, float(second), excuse_s):
                return float(second)
    return None


def test_engine_without_steps_is_found_within_ten_seconds() -> None:
    found_s = follow(["same"])
    assert found_s is not None
    assert SILENT_S + STILL_S <= found_s < HUNG_AFTER_S


def test_engine_that_speaks_is_not_asked() -> None:
    assert follow(["same"], heard=tuple(range(0, 40, 3))) is None


def test_engine_that_is_silent_but_makes_steps_is_well() -> None:
    assert follow([str(number) for number in range(40)]) is None


def test_engine_without_requests_is_well() -> None:
    assert follow(["same"], busy=False) is None


def test_long_prompts_excuse_for_a_while() -> None:
    assert follow(["same"], excuse_s=10.0) == SILENT_S + STILL_S + 10.0


def test_engine_that_answers_nothing_hangs_only_while_others_are_heard() -> None:
    assert follow([None]) is None
    found_s = follow([None], others=True)
    assert found_s is not None
    assert found_s < HUNG_AFTER_S


def test_engine_that_hung_and_speaks_again_begins_anew() -> None:
    assert follow(["same"], heard=(6, 12, 18)) == 18 + SILENT_S + STILL_S
