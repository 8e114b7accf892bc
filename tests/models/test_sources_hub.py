"""Fetching from a hub, over a real connection to a server on loopback."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.hub import COMMIT, hub
from tests.models.test_sources import write_model

SCRIPT = """
import sys
from pathlib import Path
from models.errors import SourceError
from models.sources import fetch_config, resolve
try:
    ask = fetch_config if sys.argv[3:] else resolve
    print(ask(sys.argv[1], Path(sys.argv[2])))
except SourceError as exc:
    print(f"refused: {exc} hint: {exc.hint}")
"""


def fetch(source: str, cache: Path, endpoint: str, *how: str, **environment: str) -> str:
    """What `resolve` comes to in a process of its own: the hub's client reads its settings once."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, source, str(cache), *how],
        env={
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(cache / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "repo")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "code.py").write_text("raise SystemExit")
    return folder


def test_repository_is_fetched_once_and_without_pickles_or_code(tmp_path: Path, repo: Path) -> None:
    with hub("acme/tiny", repo) as (endpoint, fetched):
        folder = Path(fetch("hf://acme/tiny@main", tmp_path / "cache", endpoint))
        assert COMMIT in str(folder)
        assert sorted(fetched) == ["config.json", "model.safetensors"]
        assert (folder / "model.safetensors").read_bytes() == (
            repo / "model.safetensors"
        ).read_bytes()
        assert Path(fetch("hf://acme/tiny@main", tmp_path / "cache", endpoint)) == folder
        assert len(fetched) == 2


def test_configuration_is_fetched_without_the_weights(tmp_path: Path, repo: Path) -> None:
    with hub("acme/tiny", repo) as (endpoint, fetched):
        folder = Path(fetch("hf://acme/tiny", tmp_path / "cache", endpoint, "config"))
        assert fetched == ["config.json"]
        assert (folder / "config.json").read_bytes() == (repo / "config.json").read_bytes()
        # Whoever deploys later gets the weights all the same.
        fetch("hf://acme/tiny", tmp_path / "cache", endpoint)
        assert "model.safetensors" in fetched


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf://acme/none", "does not exist"),
        ("hf://acme/tiny@gone", "no revision 'gone'"),
        ("hf://not a repo/../x", "could not be fetched"),
    ],
)
def test_what_the_hub_does_not_have_is_told(
    tmp_path: Path, repo: Path, source: str, message: str
) -> None:
    with hub("acme/tiny", repo) as (endpoint, _):
        assert message in fetch(source, tmp_path / "cache", endpoint)


def test_gated_repository_needs_a_token(tmp_path: Path, repo: Path) -> None:
    with hub("acme/tiny", repo, token="hf_secret") as (endpoint, _):
        refused = fetch("hf://acme/tiny", tmp_path / "cache", endpoint)
        assert "is gated" in refused
        assert "HF_TOKEN" in refused
        granted = fetch("hf://acme/tiny", tmp_path / "cache", endpoint, HF_TOKEN="hf_secret")
        assert COMMIT in granted


def test_unreachable_hub_is_told(tmp_path: Path) -> None:
    assert "could not be fetched" in fetch("hf://a/b", tmp_path, "http://127.0.0.1:9")
