"""JSON that every reader takes."""

import json

from loadtests.gpu import strict


def test_what_is_no_number_is_null_however_deep() -> None:
    nan, infinite = float("nan"), float("inf")
    text = strict.dumps({"a": [1.5, nan], "b": {"c": (infinite, "x", None, True)}, "d": 2})
    assert json.loads(text) == {"a": [1.5, None], "b": {"c": [None, "x", None, True]}, "d": 2}
