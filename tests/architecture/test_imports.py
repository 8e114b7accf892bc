"""Who may import what, beyond the arrows that import-linter draws."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("models", "autoscaler", "serving", "loadtests")
ALLOWED = {
    "vllm": {
        "serving/engine/vllm_adapter.py",
        "serving/engine/vllm_patches.py",
        "serving/engine/vllm_share.py",
    },
    "ray": {"serving/engine/host.py", "serving/cli/ray_node.py", "serving/cli/ray_drain.py"},
}


def imports(path: Path) -> Iterator[str]:
    """The top-level names that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("library", sorted(ALLOWED))
def test_library_is_imported_only_where_it_belongs(library: str) -> None:
    importers = {
        str(path.relative_to(ROOT))
        for package in OURS
        for path in (ROOT / package).rglob("*.py")
        if library in imports(path)
    }
    assert importers <= ALLOWED[library]


def test_only_settings_know_the_prefix_of_variables() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for package in ("models", "autoscaler")
        for path in (ROOT / package).rglob("*.py")
        if "PENSTOCK_" in path.read_text()
    }
    assert not readers
