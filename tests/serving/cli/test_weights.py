"""`penstock pull` and `penstock cache`: what this machine keeps of fetched weights."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.cache import NodeCache
from tests.models.faulty import Faults
from tests.models.hub import COMMIT, hub
from tests.models.test_sources import write_model
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import FakePlatform

SOURCE = "hf://acme/tiny"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Faults]]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub("acme/tiny", write_model(tmp_path / "repo", payload=1 << 20)) as found:
        yield found


def test_pull_prints_the_folder_and_does_it_once(
    run: Run, place: tuple[str, Faults], tmp_path: Path
) -> None:
    url, faults = place
    outcome = run("pull", SOURCE, "--endpoint", url)
    assert outcome.code == 0, outcome.err
    folder = Path(outcome.out.strip())
    assert folder.is_relative_to(tmp_path / ".penstock" / "cache" / "snapshots")
    assert (folder / "model.safetensors").exists()
    assert "fetched 1.0 MiB" in outcome.err
    assert "tiny: 1.0 of 1.0 MiB, 100%" in outcome.err
    assert run("pull", f"{SOURCE}@{COMMIT}", "--endpoint", url).out == outcome.out
    assert faults.ranges("model.safetensors") == [""]


def test_pull_of_a_deployed_model_asks_the_platform(
    run: Run, platform: FakePlatform, place: tuple[str, Faults], tmp_path: Path
) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text(f"name: mine\nsource: {SOURCE}\nweights: {{endpoint: '{place[0]}'}}\n")
    assert run("deploy", "-f", str(manifest), "--no-wait").code == 0
    assert run("pull", "mine").code == 0


def test_pull_with_a_token_names_its_secret(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = write_model(tmp_path / "repo")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub("acme/tiny", repo, token="hf_secret", gated=True) as (url, _):
        refused = run("pull", SOURCE, "--endpoint", url)
        assert (refused.code, "is gated" in refused.err) == (2, True)
        monkeypatch.setenv("PENSTOCK_SECRET_HUB", "hf_secret")
        granted = run("pull", SOURCE, "--endpoint", url, "--token", "HUB")
        assert granted.code == 0
        assert "hf_secret" not in granted.out + granted.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nobody",), 4, "catalog has no model"),
        (("guide", "--endpoint", "http://x"), 2, "go with a source only"),
        (("hf://a/b", "--token", "lower"), 2, "weights.token"),
        (("hf://a/b", "--endpoint", "http://127.0.0.1:9"), 6, "could not be fetched"),
    ],
)
def test_bad_pull_is_told(run: Run, arguments: tuple[str, ...], code: int, says: str) -> None:
    outcome = run("pull", *arguments)
    assert outcome.code == code, outcome.err
    assert says in outcome.err


def test_list_verify_and_rm(run: Run, place: tuple[str, Faults], tmp_path: Path) -> None:
    folder = Path(run("pull", SOURCE, "--endpoint", place[0]).out.strip())
    (item,) = json.loads(run("cache", "list", "-o", "json").out)["items"]
    assert item["source"] == f"{SOURCE}@{COMMIT}"
    assert (item["files"], item["in_use"], item["key"]) == (2, False, folder.name)
    assert folder.name in run("cache", "list").out

    fine = run("cache", "verify")
    assert (fine.code, "as they were fetched" in fine.err) == (0, True)
    blob = (folder / "model.safetensors").resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"broken")
    broken = run("cache", "verify", SOURCE)
    assert broken.code == 2
    assert "broken: model.safetensors" in broken.err
    assert run("pull", SOURCE, "--endpoint", place[0]).code == 0
    assert run("cache", "verify").code == 0

    lease = NodeCache(tmp_path / ".penstock" / "cache").lease(folder.name)
    assert lease is not None
    used = run("cache", "rm", SOURCE)
    assert (used.code, "in use" in used.err) == (5, True)
    lease.release()
    assert run("cache", "rm", folder.name).code == 0
    assert json.loads(run("cache", "list", "-o", "json").out) == {"items": []}
    assert run("cache", "rm", folder.name).code == 4
    assert run("cache", "rm").code == 2
    assert run("cache", "rm", "--all").code == 0
