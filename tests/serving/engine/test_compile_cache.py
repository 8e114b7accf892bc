"""Which engines share what they compiled, and for how long it is kept."""

import os
from pathlib import Path

from models.manifest import Manifest, parse_manifest
from serving.engine import versions
from serving.engine.compile_cache import (
    KEPT,
    compiles,
    folder,
    key,
    machine_of,
    machine_of_this_node,
)

WEIGHTS = Path("/cache/snapshots/abc")
ZEN = "processor : 0\nflags\t\t: avx2 fma\n"
SAPPHIRE = "processor : 0\nflags\t\t: fma avx2 avx512f amx_bf16\n"


def manifest(accelerator: str = "cpu", **engine: object) -> Manifest:
    resources = {"accelerator": accelerator, "gpus": int(accelerator != "cpu")}
    return parse_manifest(
        {"name": "m", "source": "file:///m", "engine": engine, "resources": resources}
    )


def test_models_compile_on_gpus_and_where_they_are_told_to() -> None:
    assert not compiles(manifest())
    assert compiles(manifest(enforce_eager=False))
    assert compiles(manifest("h200"))
    assert not compiles(manifest("h200", enforce_eager=True))


def test_key_tells_apart_what_compiles_differently() -> None:
    plain = key(manifest(), WEIGHTS, "x")
    assert plain == key(manifest(spawn="exec"), WEIGHTS, "x")
    different = {
        plain,
        key(manifest(max_num_seqs=7), WEIGHTS, "x"),
        key(manifest(build="other"), WEIGHTS, "x"),
        key(manifest("h200"), WEIGHTS, "x"),
        key(manifest(), WEIGHTS.with_name("def"), "x"),
        key(manifest(), WEIGHTS, "y"),
    }
    assert len(different) == 6


def test_machines_differ_by_their_instruction_set_not_by_its_order() -> None:
    assert machine_of("x86_64", ZEN) != machine_of("x86_64", SAPPHIRE)
    assert machine_of("x86_64", ZEN) == machine_of("x86_64", "flags : fma avx2\n")
    assert machine_of("aarch64", "nothing to see") == "aarch64"


def test_this_node_is_told_with_the_build_that_compiles() -> None:
    assert machine_of_this_node().endswith(f", {versions.installed()}")


def test_folder_is_made_for_models_that_compile_alone(tmp_path: Path) -> None:
    assert folder(tmp_path, manifest(), WEIGHTS, "x") is None
    made = folder(tmp_path, manifest(enforce_eager=False), WEIGHTS, "x")
    assert made is not None and made.is_dir()
    assert folder(tmp_path, manifest(enforce_eager=False), WEIGHTS, "x") == made


def test_folders_not_used_for_longest_are_removed(tmp_path: Path) -> None:
    made = []
    for number in range(KEPT + 2):
        one = folder(tmp_path, manifest(enforce_eager=False, max_num_seqs=number + 1), WEIGHTS, "x")
        assert one is not None
        os.utime(one, (number, number))
        made.append(one)
    used = folder(tmp_path, manifest(enforce_eager=False, max_num_seqs=3), WEIGHTS, "x")
    assert used == made[2]
    assert [one.exists() for one in made] == [False] * 2 + [True] * KEPT
