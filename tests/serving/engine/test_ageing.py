"""What several hosts tidy up at once is ordered by what is left of it."""

import os
from pathlib import Path

from serving.engine.ageing import by_age


def test_paths_come_oldest_first_and_without_those_that_just_went(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    for name, at in zip(names, (30, 10, 20), strict=True):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (at, at))
    gone = tmp_path / "gone"
    found = by_age([gone, *(tmp_path / name for name in names)])
    assert [path.name for path in found] == ["b", "c", "a"]
