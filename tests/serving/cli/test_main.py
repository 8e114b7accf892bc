"""Exit codes, hints, and that nothing heavy is loaded for a short answer."""

import subprocess
import sys

import pytest

from models import errors
from models.errors import PenstockError
from serving.cli import ports
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import FakePlatform


def test_help_is_printed_where_nothing_is_asked(run: Run) -> None:
    outcome = run()
    assert outcome.code == 0
    assert "Commands:" in outcome.out
    assert "Exit codes" in outcome.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("get",),
        ("get", "moons"),
        ("delete",),
        ("deploy",),
        ("deploy", "builtin://guide", "-f", "x.yaml"),
        ("deploy", "-f", "x.yaml", "--name", "y"),
        ("logs",),
        ("logs", "--part", "roof"),
        ("up", "--port", "70000"),
        ("up", "--hosts", "none"),
    ],
)
def test_wrong_usage_is_bad_input_with_a_hint(run: Run, arguments: tuple[str, ...]) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.err.splitlines()[0].startswith("error: ")
    assert "hint: " in outcome.err
    assert not outcome.out


@pytest.mark.parametrize(
    "arguments",
    [("status",), ("get", "models"), ("delete", "m"), ("deploy", "builtin://guide"), ("logs", "m")],
)
def test_missing_admin_key_is_told(run: Run, arguments: tuple[str, ...]) -> None:
    outcome = run(*arguments)
    assert outcome.code == 3
    assert "hint: export PENSTOCK_ADMIN_KEY" in outcome.err


def test_missing_api_key_is_told(run: Run) -> None:
    outcome = run("chat", "guide", "Hello")
    assert outcome.code == 3
    assert "hint: export PENSTOCK_API_KEY" in outcome.err


def test_unreachable_platform_is_told(run: Run, settings: pytest.MonkeyPatch) -> None:
    port = ports.pick("nobody")["nobody"]
    settings.setenv("PENSTOCK_URL", f"http://127.0.0.1:{port}")
    settings.setenv("PENSTOCK_ADMIN_KEY", "some-admin-key")
    settings.setenv("PENSTOCK_API_KEY", "some-tenant-key")
    for arguments in (("status",), ("get", "hosts"), ("chat", "guide", "Hello")):
        outcome = run(*arguments)
        assert outcome.code == 6
        assert f"127.0.0.1:{port}" in outcome.err
        assert "hint: start one with `penstock up`" in outcome.err


def test_misspelled_setting_is_bad_input(run: Run, settings: pytest.MonkeyPatch) -> None:
    settings.setenv("PENSTOCK_ADMIN_KEI", "x")
    outcome = run("status")
    assert outcome.code == 2
    assert "PENSTOCK_ADMIN_KEI" in outcome.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadRequestError, 2),
        (errors.ManifestError, 2),
        (errors.SourceError, 2),
        (errors.UnauthenticatedError, 3),
        (errors.ForbiddenError, 3),
        (errors.NotFoundError, 4),
        (errors.ModelNotFoundError, 4),
        (errors.ConflictError, 5),
        (errors.UnavailableError, 6),
        (errors.UpstreamError, 1),
        (errors.PenstockError, 1),
    ],
)
def test_error_of_the_platform_becomes_an_exit_code(
    run: Run, platform: FakePlatform, error: type[PenstockError], code: int
) -> None:
    platform.failure = error("no luck today")
    outcome = run("status")
    assert outcome.code == code
    assert "error: no luck today" in outcome.err
    assert not outcome.out


def test_wrong_key_is_told_with_a_hint(
    run: Run, platform: FakePlatform, settings: pytest.MonkeyPatch
) -> None:
    settings.setenv("PENSTOCK_ADMIN_KEY", "another-key")
    outcome = run("get", "models")
    assert outcome.code == 3
    assert "hint: check PENSTOCK_ADMIN_KEY" in outcome.err


def test_short_commands_load_nothing_heavy() -> None:
    heavy = {"ray", "vllm", "torch", "transformers", "sqlalchemy", "fastapi", "huggingface_hub"}
    program = f"import sys, serving.cli.main; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("how", ["json", "table"])
def test_output_that_nobody_reads_on_is_no_bug(how: str) -> None:
    command = [sys.executable, "-m", "serving.cli.main", "catalog", "--output", how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
