import pytest

from loadtests.fake.faults import Fault, FaultKind, fault_for, parse_fault


def test_fault_is_read_with_its_keys() -> None:
    assert parse_fault("reset:request=3,token=5") == Fault(FaultKind.RESET, request=3, token=5)
    assert parse_fault("429") == Fault(FaultKind.TOO_MANY)
    assert parse_fault("slow:every=2,seconds=0.5") == Fault(FaultKind.SLOW, every=2, seconds=0.5)


@pytest.mark.parametrize(
    "text", ["", "melt", "reset:when=3", "reset:request=x", "429:token=3", "reset:every=0"]
)
def test_fault_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_fault(text)


def test_fault_strikes_the_requests_it_names() -> None:
    third, even = parse_fault("reset:request=3"), parse_fault("hang:every=2")
    struck = [fault_for((third, even), number, seed=0) for number in range(1, 5)]
    assert struck == [None, even, third, even]


def test_fault_by_share_follows_from_the_seed() -> None:
    fault = parse_fault("500:share=0.3")
    struck = [fault.strikes(number, seed=1) for number in range(1, 1001)]
    assert struck == [fault.strikes(number, seed=1) for number in range(1, 1001)]
    assert struck != [fault.strikes(number, seed=2) for number in range(1, 1001)]
    assert 250 < sum(struck) < 350
