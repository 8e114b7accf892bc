"""The command line as an operator uses it: its exit code, its stdout, its stderr."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.cli import main
from tests.serving.cli.fake_platform import ADMIN_KEY, API_KEY, FakePlatform, FakeServer


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any setting of ours."""
    for name in os.environ:
        if name.startswith("PENSTOCK_"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def run(settings: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command in this process, in a folder of its own."""
    settings.chdir(tmp_path)

    def call(*arguments: str) -> Outcome:
        capfd.readouterr()
        code = main.run(list(arguments))
        told = capfd.readouterr()
        assert "Traceback" not in told.out + told.err
        return Outcome(code, told.out, told.err)

    return call


@pytest.fixture
def platform(settings: pytest.MonkeyPatch) -> Iterator[FakePlatform]:
    """A fake platform that the settings point at, with both keys."""
    fake = FakePlatform()
    server = FakeServer(fake)
    settings.setenv("PENSTOCK_URL", fake.url)
    settings.setenv("PENSTOCK_ADMIN_KEY", ADMIN_KEY)
    settings.setenv("PENSTOCK_API_KEY", API_KEY)
    yield fake
    server.end()
