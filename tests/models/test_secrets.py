"""Named secrets: by file and by variable, and nothing else of the environment."""

from pathlib import Path

import pytest

from models.errors import ManifestError
from models.manifest import parse_manifest
from models.secrets import SecretError, Secrets


def test_secret_is_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "HUB").write_text("from a file\n")
    monkeypatch.setenv("SECRET_STORE", "from a variable")
    secrets = Secrets(tmp_path, "SECRET_")
    assert secrets.read("${secret:HUB}") == "from a file"
    assert secrets.read("${secret:STORE}") == "from a variable"
    assert secrets.read(None) is None
    with pytest.raises(SecretError, match="no secret NONE") as caught:
        secrets.read("${secret:NONE}")
    assert "SECRET_NONE" in str(caught.value.hint)


def test_rotated_secret_is_read_anew(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path)
    for value in ("one", "two"):
        (tmp_path / "HUB").write_text(value)
        assert secrets.read("${secret:HUB}") == value


@pytest.mark.parametrize(
    "value", ["hf_plain", "${HOME}", "${secret:lower}", "${secret:../x}", "x${secret:HUB}", "$HUB"]
)
def test_manifest_takes_names_of_secrets_alone(value: str) -> None:
    with pytest.raises(ManifestError, match=r"weights\.token"):
        parse_manifest({"name": "m", "source": "hf://a/b", "weights": {"token": value}})


@pytest.mark.parametrize(
    ("source", "weights", "says"),
    [
        ("https://user:pw@host/m.tar", {}, "no password"),
        ("http://host/m.tar", {}, "can be changed on its way"),
        ("s3://bucket", {}, "a bucket and a prefix"),
        ("hf://a/b", {"sha256": "0" * 64}, "goes with an https"),
        ("hf://a/b", {"copy_to_node": True}, "goes with a file"),
        ("s3://b/m", {"access_key_id": "${secret:A}"}, "go together"),
        ("s3://b/m", {"endpoint": "https://key:secret@minio"}, r"weights\.endpoint"),
        ("ftp://host/m", {}, "source"),
    ],
)
def test_source_that_cannot_be_read_safely_is_refused(
    source: str, weights: dict[str, object], says: str
) -> None:
    with pytest.raises(ManifestError, match=says):
        parse_manifest({"name": "m", "source": source, "weights": weights})
