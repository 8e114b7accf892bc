"""Which wheels are kept: what is needed, with the extras that were asked for, and no more."""

import zipfile
from pathlib import Path

from loadtests.gpu import wanted

WHEELS = {
    "Platform": ["Engine.Lib>=1", 'plots; extra == "draw"', 'tools; extra == "dev"'],
    "engine_lib": ["plain[fast]", 'old; python_version < "3"', "not-there"],
    "plain": ['fast-part; extra == "fast"', "engine-lib"],
    "fast_part": [],
    "plots": [],
    "tools": [],
    "old": [],
}


def make(folder: Path) -> None:
    for name, needs in WHEELS.items():
        lines = ["Metadata-Version: 2.1", f"Name: {name}", *(f"Requires-Dist: {n}" for n in needs)]
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}-1.0.dist-info/METADATA", "\n".join([*lines, "", ""]))


def names(folder: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in folder.iterdir()}


def test_what_is_needed_stays_and_the_rest_goes(tmp_path: Path) -> None:
    make(tmp_path)
    assert wanted.main(str(tmp_path), "platform[draw]") == 0
    assert names(tmp_path) == {"Platform", "engine_lib", "plain", "fast_part", "plots"}


def test_folder_without_what_is_wanted_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path)
    assert wanted.main(str(tmp_path), "another") == 1
    assert names(tmp_path) == set(WHEELS)
