"""What the pages say to type, typed: each command beside a platform that runs, in its order.

Controller, gateway and hosts are processes as everywhere; engines are played, which answer with as
many letters as they may. Which commands cannot be run here, and why, stands in `commands.py`.
`penstock` runs in this process, for its start takes as long as most commands; all else under bash.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.cli import main
from serving.identities import DEFAULT_ORG
from tests.docs.commands import ROOT, blocks, commands_in, inline_commands, pages, why_elsewhere
from tests.docs.parts import Platform
from tests.docs.versions import NOW
from tests.metering.platform import ADMIN_KEY, TENANT_KEY

pytestmark = pytest.mark.engine  # no vLLM, but real processes

README = ROOT / "README.md"
TOOLS = Path(sys.executable).parent
NAMES = ("qwen3-small", "mine")
"""Models that the pages speak of; here they are the built-in one, which needs no download."""

RUN = [page for page in pages() if any(why_elsewhere(c) is None for c in commands_in(page))]
OPERATIONS = [page for page in pages() if "operations" in page.parts]

SHOWN = {
    "curl -N http": r'(?s)^data: \{.*"delta".*data: \[DONE\]',
    "curl -g": r'"object":\s*"page"',
    ".venv/bin/penstock get models": r"(?m)^qwen3-small\s",
    ".venv/bin/penstock chat": r"\w",
    ".venv/bin/penstock key create": r"^pk-\S+\n$",
    ".venv/bin/penstock usage": r"(?m)^KEY .*REQUESTS",
    "penstock describe": r"(?s)mine.*builtin://guide",
    "penstock get revisions": r"(?m)^mine\s+1\s",
    "penstock rollout history": r"(?m)^\d+\s.*engine\.max_model_len",
    "penstock pull": r"^/.*guide\n$",
    "penstock usage --by key": r"(?m)^KEY .*REQUESTS",
}
"""How a command begins, and what it prints to stdout."""

MENTIONED = {"penstock bench", "penstock deploy -f", "penstock plan", "penstock logs MODEL"}
"""In the text of a page: names of commands, not the whole of what one would type; and the logs of
engines, which played ones have not (`tests/serving/cli/test_logs.py`)."""


@dataclass(frozen=True)
class Shell:
    """Runs commands in a folder as the pages say them."""

    folder: Path
    platform: Platform
    capture: pytest.CaptureFixture[str]

    def run(self, text: str) -> str:
        """What a command printed to stdout.

        Raises:
            AssertionError: If it failed.
        """
        here = self._as_here(text)
        words, _, file = here.partition(" > ")
        if re.match(r"(\.venv/bin/)?penstock ", words):
            out = self._penstock(shlex.split(words)[1:])
        else:
            out = self._bash(words)
        if file:
            (self.folder / file).write_text(out)
        return out

    def _as_here(self, text: str) -> str:
        """A command with this platform's address, and with what can be had without a network."""
        for said, here in {
            "http://127.0.0.1:8000": self.platform.url,
            "/tmp/pirate": f"{self.folder}/pirate",
            ".venv/bin/python": f"{TOOLS}/python",
        }.items():
            text = text.replace(said, here)
        return text

    def _penstock(self, words: list[str]) -> str:
        self.capture.readouterr()
        code = main.run(words)
        told = self.capture.readouterr()
        assert code == 0, f"penstock {shlex.join(words)}: {code}\n{told.out}{told.err}"
        return told.out

    def _bash(self, text: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=ROOT, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


def small_model() -> dict[str, Any]:
    """The manifest of README.md, with a source that needs no network."""
    text = next(block for block in blocks(README, "yaml") if "kind: Model" in block)
    manifest: dict[str, Any] = yaml.safe_load(text)
    manifest |= {"source": "builtin://guide"}
    manifest["engine"] |= {"max_model_len": 512, "kv_cache_gib": 0.03}
    manifest["resources"] |= {"memory_gib": 1}
    return manifest


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """It serves the model `guide`, and has two hosts more."""
    made = Platform(tmp_path_factory.mktemp("pages"), model="guide", hosts=3)
    try:
        made.start(controller=NOW, gateway=NOW, host=NOW)
        # Played engines have to be told how much to say.
        made.admin("PUT", f"limits/{DEFAULT_ORG}/*", {"max_tokens": 8})
        yield made
    finally:
        made.close()


@pytest.fixture
def shell(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Shell]:  # fmt: skip
    """A folder with what the pages take as given, and the keys in the environment."""
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PENSTOCK_URL", platform.url)
    monkeypatch.setenv("PENSTOCK_API_KEY", TENANT_KEY)
    monkeypatch.setenv("PENSTOCK_ADMIN_KEY", ADMIN_KEY)
    monkeypatch.setenv("EDITOR", "true")
    monkeypatch.chdir(tmp_path)
    manifest = small_model()
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(manifest))
    (tmp_path / "models.d").mkdir()
    (tmp_path / "models.d" / "mine.yaml").write_text(yaml.safe_dump({**manifest, "name": "mine"}))
    yield Shell(tmp_path, platform, capfd)
    there = {model["name"] for model in platform.admin("GET", "models")["items"]}
    for name in there & set(NAMES):
        assert main.run(["delete", name]) == 0


def given(shell: Shell, page: Path) -> None:
    """What a page takes for granted: models that were deployed before."""
    if page == README:
        return
    manifest = small_model()
    if page.stem == "rollouts":  # another revision than the one that the page deploys
        manifest["engine"] = {"max_model_len": 256, "kv_cache_gib": 0.03}
    (shell.folder / "before.yaml").write_text(yaml.safe_dump(manifest))
    shell.run("penstock deploy -f before.yaml")
    if page.stem == "deploying":
        shell.run("penstock deploy -f models.d")


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_do_what_it_says(shell: Shell, page: Path) -> None:
    given(shell, page)
    for command in commands_in(page):
        if why_elsewhere(command) is not None:
            continue
        out = shell.run(command.text)
        for beginning, shape in SHOWN.items():
            if command.text.startswith(beginning):
                assert re.search(shape, out), f"{command.text}:\n{out}"
    if page == README:
        shell.run("penstock org delete acme")
    if page.stem == "deploying":
        assert json.loads((shell.folder / "model.schema.json").read_text())["title"] == "Manifest"


def test_python_of_the_readme_is_answered(shell: Shell) -> None:
    (text,) = blocks(README, "python")
    answer = shell.run(f".venv/bin/python -c {shlex.quote(text)}")
    assert re.fullmatch(r"x+\n", answer)  # what a played engine says


def test_commands_that_runbooks_name_can_be_typed(shell: Shell) -> None:
    named = {text for page in OPERATIONS for text in inline_commands(page)} - MENTIONED
    assert len(named) >= 8
    for text in sorted(named):
        catalogued = text.replace("plan MODEL", "plan qwen3-8b")
        assert shell.run(catalogued.replace("MODEL", "guide"))
