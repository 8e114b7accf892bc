"""Sources of weights: what is served, and how a broken folder is told."""

import json
import struct
from pathlib import Path

import pytest

from models import sources
from models.cache import NodeCache
from models.errors import SourceError
from models.remotes.listing import FetchError, RemoteFile, Selection, check_path
from models.sources import Access


def write_model(folder: Path, *, payload: int = 16) -> Path:
    """A folder that has the shape of a model, with one tensor of `payload` bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"]}))
    header = json.dumps(
        {"w": {"dtype": "U8", "shape": [payload], "data_offsets": [0, payload]}}
    ).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(payload)
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def folder_of(source: str, tmp_path: Path, access: Access | None = None) -> Path:
    return sources.have(source, access or Access(), NodeCache(tmp_path / "cache")).folder


def test_local_folder_is_served_in_place(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    assert folder_of(f"file://{folder}", tmp_path) == folder


def test_builtin_guide_is_a_whole_model(tmp_path: Path) -> None:
    assert folder_of("builtin://guide", tmp_path).name == "guide"


def test_unknown_builtin_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        folder_of("builtin://gpt", tmp_path)
    assert "builtin://guide" in str(caught.value.hint)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a folder"):
        folder_of(f"file://{tmp_path}/none", tmp_path)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(SourceError, match=r"no .*safetensors"):
        folder_of(f"file://{folder}", tmp_path)


@pytest.mark.parametrize("config", ["", "{", "[]", "{}", '{"architectures": []}'])
def test_broken_config_is_refused(tmp_path: Path, config: str) -> None:
    folder = write_model(tmp_path)
    (folder / "config.json").write_text(config)
    with pytest.raises(SourceError, match=r"config\.json"):
        folder_of(f"file://{folder}", tmp_path)


def test_cut_weights_are_refused_with_both_sizes(tmp_path: Path) -> None:
    folder = write_model(tmp_path, payload=4096)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SourceError, match="is cut"):
        folder_of(f"file://{folder}", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x01", b"\xff" * 64, struct.pack("<Q", 4) + b"nope"])
def test_garbage_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = write_model(tmp_path)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(SourceError, match="broken header"):
        folder_of(f"file://{folder}", tmp_path)


def test_half_written_shards_are_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match=r"1 of 2 files .* model-00002-of-00002") as caught:
        folder_of(f"file://{folder}", tmp_path)
    assert "half written" in str(caught.value)


def test_file_that_a_downloader_has_not_finished_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "model-2.safetensors.incomplete").write_bytes(b"")
    with pytest.raises(SourceError, match=r"half written: model-2\.safetensors\.incomplete"):
        folder_of(f"file://{folder}", tmp_path)


def test_pickled_weights_need_leave(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    allowed = Access(selection=Selection(pickle=True))
    assert folder_of(f"file://{folder}", tmp_path, allowed) == folder


def test_local_folder_is_copied_where_the_manifest_says_so(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "nfs")
    copied = folder_of(f"file://{folder}", tmp_path, Access(copy=True))
    assert copied.is_relative_to(tmp_path / "cache")
    assert folder_of(f"file://{folder}", tmp_path, Access(copy=True)) == copied
    write_model(tmp_path / "nfs", payload=32)
    again = folder_of(f"file://{folder}", tmp_path, Access(copy=True))
    assert again != copied, "another content has another path: compile keys contain it"
    assert (again / "model.safetensors").stat().st_size > (
        copied / "model.safetensors"
    ).stat().st_size


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        ({"model.safetensors", "pytorch_model.bin"}, {"model.safetensors"}),
        ({"model.safetensors", "consolidated.safetensors"}, {"model.safetensors"}),
        ({"consolidated.safetensors"}, {"consolidated.safetensors"}),
        ({"model.safetensors", "onnx/model.safetensors"}, {"model.safetensors"}),
        ({"a.json", "1_Pooling/config.json"}, {"a.json", "1_Pooling/config.json"}),
        ({"modeling.py", "README.md", ".gitattributes", "run.sh"}, set()),
        ({"tokenizer.model", "merges.txt", "chat_template.jinja"}, {"tokenizer.model", "merges.txt",
                                                                   "chat_template.jinja"}),
        ({"pytorch_model.bin"}, set()),
    ],
)  # fmt: skip
def test_only_a_models_own_files_are_taken(names: set[str], kept: set[str]) -> None:
    files = [RemoteFile(name, 1) for name in names]
    assert {file.path for file in Selection().of(files)} == kept


def test_code_and_pickles_are_taken_where_they_are_wanted() -> None:
    files = [RemoteFile(name, 1) for name in ("pytorch_model.bin", "modeling.py")]
    assert len(Selection(pickle=True, code=True).of(files)) == 2


@pytest.mark.parametrize("path", ["", "/etc/x", "a/../x", "..", "a//b", "a\\b", "a\0b", "./a"])
def test_path_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(FetchError):
        check_path(path)


def test_key_is_readable_and_tells_what_changes_the_files() -> None:
    source = "hf://Qwen/Qwen3-0.6B@" + "0" * 40
    key = sources.key_of(source, Access())
    assert key.startswith("qwen-qwen3-0.6b-")
    assert key != sources.key_of(source, Access(selection=Selection(code=True)))
    assert key != sources.key_of("hf://Qwen/Qwen3-0.6B@" + "1" * 40, Access())
    assert len(sources.key_of("s3://" + "b/" * 500, Access())) < 100
