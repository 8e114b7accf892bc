"""Which load format an engine is started with: by source, hardware and what is installed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.manifest import parse_manifest
from serving.engine.arguments import vllm_arguments
from serving.engine.load_format import MODULES, formats_for, installed_formats, load_format

GPU = {"accelerator": "h200", "gpus": 1}


@pytest.mark.parametrize(
    ("source", "resources", "installed", "chosen"),
    [
        ("s3://b/m", {"accelerator": "h200", "gpus": 1}, {"runai_streamer", "fastsafetensors"},
         "runai_streamer"),
        ("gs://b/m", {"accelerator": "h200", "gpus": 1}, {"fastsafetensors"}, "fastsafetensors"),
        ("hf://a/b", {"accelerator": "h200", "gpus": 1}, {"runai_streamer", "fastsafetensors"},
         "fastsafetensors"),
        ("hf://a/b", {"accelerator": "h200", "gpus": 1}, {"instanttensor"}, "instanttensor"),
        ("hf://a/b", {"accelerator": "h200", "gpus": 1}, set(), None),
        ("s3://b/m", {}, {"runai_streamer", "fastsafetensors"}, None),
    ],
)  # fmt: skip
def test_load_format_follows_source_hardware_and_what_is_installed(
    source: str, resources: dict[str, object], installed: set[str], chosen: str | None
) -> None:
    manifest = parse_manifest({"name": "m", "source": source, "resources": resources})
    assert load_format(manifest, frozenset(installed)) == chosen
    said = manifest.model_copy(
        update={"engine": manifest.engine.model_copy(update={"load_format": "dummy"})}
    )
    assert load_format(said, frozenset(installed)) == "dummy"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Plays the package of a format, for the time of the test."""
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))

    def make(name: str) -> None:
        package = tmp_path / "packages" / MODULES[name]
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise AssertionError('a host imports none of them')")
        installed_formats.cache_clear()

    yield make
    installed_formats.cache_clear()


def started_with(fields: dict[str, object], folder: Path) -> list[str]:
    """The load formats in the command line of an engine of this model."""
    manifest = parse_manifest({"name": "m", **fields})
    arguments = vllm_arguments(manifest, folder, formats_for(manifest, folder))
    return [one.partition("=")[2] for one in arguments if one.startswith("--load-format")]


@pytest.mark.parametrize(
    ("installed", "source", "chosen"),
    [
        ("runai_streamer", "s3://b/m#" + "0" * 64, "runai_streamer"),
        ("runai_streamer", "gs://b/m#" + "0" * 64, "runai_streamer"),
        ("fastsafetensors", "hf://a/b", "fastsafetensors"),
    ],
)
def test_engine_is_started_with_what_is_installed(
    install: Callable[[str], None], tmp_path: Path, installed: str, source: str, chosen: str
) -> None:
    install(installed)
    fields = {"source": source, "resources": GPU}
    assert started_with(fields, tmp_path) == [chosen]
    assert started_with({"source": source}, tmp_path) == [], "on a CPU"


def test_packages_beside_the_host_say_nothing_of_another_build(
    install: Callable[[str], None], tmp_path: Path
) -> None:
    install("fastsafetensors")
    fields = {"source": "hf://a/b", "resources": GPU, "engine": {"build": "v0-26"}}
    assert started_with(fields, tmp_path) == []


def test_mistrals_consolidated_file_is_left_to_vllm(
    install: Callable[[str], None], tmp_path: Path
) -> None:
    install("fastsafetensors")
    (tmp_path / "consolidated.safetensors").touch()
    fields = {"source": "hf://a/b", "resources": GPU}
    assert started_with(fields, tmp_path) == []
    said = {**fields, "engine": {"load_format": "fastsafetensors"}}
    assert started_with(said, tmp_path) == ["fastsafetensors"], "the manifest's word counts"


def test_nothing_is_chosen_where_nothing_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [])
    installed_formats.cache_clear()
    fields = {"source": "s3://b/m#" + "0" * 64, "resources": GPU}
    try:
        assert started_with(fields, tmp_path) == []
    finally:
        installed_formats.cache_clear()
