"""The documentation: builds without a warning, its links lead somewhere, its commands exist."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from serving.cli.main import app
from serving.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
UNITS = sorted((DOCS / "install" / "systemd").glob("*.service"))
ALL_SETTINGS = {
    f"{PREFIX}{field}".upper() for part in Settings.__subclasses__() for field in part.model_fields
}


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every call of `penstock` in the pages."""
    for page in PAGES:
        if "reference" in page.parts:
            continue
        text = page.read_text()
        shell = [body for kind, body in BLOCK.findall(text) if kind in ("bash", "sh")]
        lines = [line for body in shell for line in body.replace("\\\n", " ").splitlines()]
        lines += re.findall(r"`(penstock [^`]+)`", BLOCK.sub("", text))
        for line in lines:
            found = re.search(r"(?:^|[ /])penstock ((?!=).+)", line.split(" #")[0])
            if found and not line.lstrip().startswith(("sudo", "helm", "kubectl")):
                yield page.name, shlex.split(found[1].replace("...", ""))


@pytest.mark.parametrize(("page", "words"), list(commands()), ids=lambda v: str(v)[:60])
def test_command_of_a_page_exists(page: str, words: list[str]) -> None:
    command = get_command(app)
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    assert command.name != "penstock" or not words, f"{page}: penstock {words}"
    takes_any = command.context_settings.get("ignore_unknown_options")
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {o for parameter in command.params for o in parameter.secondary_opts} | {"--help"}
    parts = [part for word in words for part in word.split("/")]
    used = {part.partition("=")[0] for part in parts if re.match(r"--?[a-z]", part)}
    assert takes_any or used <= known, f"{page}: {used - known}"


def test_pages_name_settings_that_exist() -> None:
    for page in (page for page in PAGES if "reference" not in page.parts):
        named = set(re.findall(r"\bPENSTOCK_[A-Z_]+[A-Z]\b", page.read_text()))
        assert named <= ALL_SETTINGS | {"PENSTOCK_ENGINE_TOKEN"}, page


def test_make_targets_of_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        text = page.read_text()
        assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets, page


def test_unit_files_start_modules_with_settings_that_exist() -> None:
    assert len(UNITS) == 3
    for unit in UNITS:
        (module,) = re.findall(
            r"^ExecStart=/opt/penstock/bin/python -m (\S+)", unit.read_text(), re.M
        )
        assert importlib.util.find_spec(module), module
    settings = (DOCS / "install" / "systemd" / "penstock.env").read_text()
    named = set(re.findall(r"^(PENSTOCK_[A-Z_]+)=", settings, re.M))
    assert named <= ALL_SETTINGS and "PENSTOCK_INTERNAL_TOKEN" in named


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_unit_files_are_valid(tmp_path: Path) -> None:
    for path in [*UNITS, DOCS / "install" / "systemd" / "penstock.target"]:
        # The programs are not installed here; a program that is stands in for them.
        text = path.read_text().replace("/opt/penstock/bin/python", "/bin/true")
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "penstock" in line]
    assert ours == [], done.stderr


def test_gateway_is_stopped_before_what_its_streams_need() -> None:
    """systemd stops units in the reverse of the order in which it starts them."""
    unit = (DOCS / "install" / "systemd" / "penstock-gateway.service").read_text()
    (after,) = re.findall(r"^After=(.*)$", unit, re.M)
    assert {"penstock-controller.service", "penstock-node.service"} <= set(after.split())
