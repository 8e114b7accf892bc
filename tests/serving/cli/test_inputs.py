"""What callers type."""

import pytest

from models.errors import BadRequestError
from serving.cli.inputs import allowed, checked, seconds
from serving.scaling import ScalingChange


@pytest.mark.parametrize(
    ("text", "found"), [("90s", 90.0), ("1.5m", 90.0), ("12h", 43_200.0), ("0d", 0.0)]
)
def test_duration_is_in_seconds(text: str, found: float) -> None:
    assert seconds(text, "--overlap") == found


@pytest.mark.parametrize("text", ["", "s", "90", "-1h", "nand", "infd", "1e9d"])
def test_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="--overlap must be a duration"):
        seconds(text, "--overlap")


def test_allow_list_is_names_or_everything() -> None:
    assert allowed(["a", "b"], everything=False) == ("a", "b")
    assert allowed(None, everything=True) is None
    for names, everything in ((["a"], True), (None, False), ([], False)):
        with pytest.raises(BadRequestError, match="either --model"):
            allowed(names, everything=everything)


def test_field_at_fault_is_named() -> None:
    with pytest.raises(BadRequestError, match=r"^min: ") as caught:
        checked(ScalingChange, min=-1)
    assert caught.value.param == "min"
