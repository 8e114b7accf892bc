"""Manifests in files and folders, and written back."""

from pathlib import Path

import pytest

from models.errors import ManifestError
from models.manifest import parse_manifest
from models.manifest_files import load_manifests, parse_yaml, to_yaml

ONE = "name: one\nsource: builtin://guide\n"
TWO = "name: two\nsource: builtin://guide\n"


def test_folder_holds_many_in_the_order_of_their_files(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(ONE)
    (tmp_path / "a.yml").write_text(TWO)
    (tmp_path / "README.md").write_text("no manifest")
    assert [manifest.name for manifest in load_manifests(tmp_path)] == ["two", "one"]


def test_file_holds_many_documents(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(f"---\n{ONE}---\n{TWO}")
    assert [manifest.name for manifest in load_manifests(tmp_path / "all.yaml")] == ["one", "two"]


def test_name_in_two_files_is_refused_naming_both(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ONE)
    (tmp_path / "b.yaml").write_text(ONE)
    with pytest.raises(ManifestError, match=r"a\.yaml and b\.yaml both hold one"):
        load_manifests(tmp_path)


def test_fault_in_a_folder_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ONE)
    (tmp_path / "b.yaml").write_text(TWO + "colour: red\n")
    with pytest.raises(ManifestError, match=r"b\.yaml: .*colour"):
        load_manifests(tmp_path)


def test_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no \*\.yaml"):
        load_manifests(tmp_path)


@pytest.mark.parametrize("text", ["", "---\n", "a: [", "\x00", "just words", "- a\n- b", "a: *b"])
def test_what_is_no_manifest_is_told(text: str) -> None:
    with pytest.raises(ManifestError):
        parse_yaml(text, "model.yaml")


def test_entry_of_the_catalog_is_told_apart() -> None:
    with pytest.raises(ManifestError, match="entry of the catalog") as caught:
        parse_yaml("kind: CatalogEntry\nname: qwen3-8b\n", "qwen3-8b.yaml")
    assert "penstock deploy qwen3-8b" in str(caught.value.hint)


def test_manifest_comes_back_from_its_yaml() -> None:
    manifest = parse_manifest(
        {
            "name": "m",
            "source": "s3://b/m",
            "weights": {"token": "${secret:T}"},
            "engine": {"args": {"swap_space": 4}},
            "scaling": {"max": 3},
        }
    )
    text = to_yaml(manifest)
    assert parse_yaml(text, "x") == [manifest]
    assert "idle_timeout_s" not in text, "what is said by default is left out"
