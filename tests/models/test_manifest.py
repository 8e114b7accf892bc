"""Parsing manifests: what is accepted, and how each fault is named."""

from pathlib import Path

import pytest
import yaml

from models.errors import ManifestError
from models.manifest import Manifest, load_manifest, parse_manifest

MINIMAL = {"name": "guide", "source": "builtin://guide"}


def test_minimal_manifest_gets_the_defaults() -> None:
    manifest = parse_manifest(MINIMAL)
    assert manifest.resources.pool == "cpu"
    assert (manifest.scaling.min, manifest.scaling.max) == (0, 1)
    assert manifest.engine.kv_cache_gib is None


def test_manifest_survives_a_round_trip() -> None:
    manifest = parse_manifest({**MINIMAL, "engine": {"args": {"seed": 7}}})
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"colour": "red"}, "colour"),
        ({"engine": {"max_model_length": 5}}, "engine.max_model_length"),
        ({"name": "Guide"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a" * 64}, "name"),
        ({"name": "../etc"}, "name"),
        ({"source": "ftp://x"}, "source"),
        ({"source": "builtin://"}, "source"),
        ({"kind": "Service"}, "kind"),
        ({"apiVersion": "penstock/v2"}, "apiVersion"),
        ({"engine": {"max_model_len": 0}}, "engine.max_model_len"),
        ({"engine": {"kv_cache_gib": -1}}, "engine.kv_cache_gib"),
        ({"engine": {"dtype": "int3"}}, "engine.dtype"),
        ({"engine": {"args": {"port": 80}}}, "engine"),
        ({"engine": {"args": {"--api-key": "x"}}}, "engine"),
        ({"resources": {"gpus": 1}}, "resources"),
        ({"resources": {"accelerator": "h200"}}, "resources"),
        ({"resources": {"accelerator": "h200", "gpus": 2, "tensor_parallel": 4}}, "resources"),
        ({"resources": {"memory_gib": 1e9}}, "resources.memory_gib"),
        ({"scaling": {"min": 3, "max": 2}}, "scaling"),
        ({"scaling": {"max": 0}}, "scaling.max"),
        ({"scaling": {"idle_timeout_s": "soon"}}, "scaling.idle_timeout_s"),
    ],
)
def test_fault_is_named_by_its_field(change: dict[str, object], param: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest({**MINIMAL, **change})
    assert caught.value.param == param
    assert param in str(caught.value)


@pytest.mark.parametrize("document", [None, [], "guide", 7])
def test_document_that_is_no_mapping_is_refused(document: object) -> None:
    with pytest.raises(ManifestError, match="mapping"):
        parse_manifest(document)


def test_pool_is_named_after_the_shape() -> None:
    resources = {"accelerator": "h200", "gpus": 8, "tensor_parallel": 8}
    assert parse_manifest({**MINIMAL, "resources": resources}).resources.pool == "h200x8"


def test_gang_shares_its_accelerators_and_ranks_evenly_among_its_hosts() -> None:
    resources = {"accelerator": "h200", "gpus": 16, "tensor_parallel": 8, "pipeline_parallel": 2}
    wide = parse_manifest({**MINIMAL, "resources": {**resources, "hosts": 2}}).resources
    assert (wide.pool, wide.ranks) == ("h200x8", 16)
    with pytest.raises(ManifestError, match="16 ranks cannot be shared evenly by 3 hosts"):
        parse_manifest({**MINIMAL, "resources": {**resources, "hosts": 3}})
    with pytest.raises(ManifestError, match="idle: sleep-host is for engines of one host"):
        sleepy = {"resources": {**resources, "hosts": 2}, "scaling": {"idle": "sleep-host"}}
        parse_manifest({**MINIMAL, **sleepy})


def test_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    assert load_manifest(path).name == "guide"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "not valid YAML"),
        ("", "0 documents"),
        ("name: a\n---\nname: b\n", "2 documents"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_file_that_holds_no_single_manifest_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(text)
    with pytest.raises(ManifestError, match=message):
        load_manifest(path)


def test_missing_file_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path / "none.yaml")
    assert caught.value.hint


def test_every_field_is_described() -> None:
    def walk(schema: dict[str, dict[str, dict[str, object]]]) -> None:
        for name, field in schema.get("properties", {}).items():
            assert field.get("description") or field.get("$ref"), name

    document = Manifest.model_json_schema()
    walk(document)
    for definition in document["$defs"].values():
        walk(definition)
