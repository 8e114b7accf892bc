"""Our import names are generic; these guards pay for that."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("models", "autoscaler", "serving", "loadtests")


@pytest.mark.parametrize("name", PACKAGES)
def test_import_name_exists_once_on_the_path(name: str) -> None:
    found = {
        (Path(entry or ".") / name).resolve()
        for entry in sys.path
        if (Path(entry or ".") / name / "__init__.py").exists()
        or (Path(entry or ".") / f"{name}.py").exists()
    }
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin == str(ROOT / name / "__init__.py")
    assert found <= {ROOT / name}


def test_tests_have_a_complete_chain_of_packages() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_hold_a_docstring_and_nothing_else(name: str) -> None:
    for path in (ROOT / name).rglob("__init__.py"):
        text = path.read_text().strip()
        assert text.startswith('"""'), path
        assert text.endswith('"""'), path
        assert text.count('"""') == 2, path


def test_no_module_is_called_utils() -> None:
    assert not [p for name in PACKAGES for p in (ROOT / name).rglob("utils.py")]
