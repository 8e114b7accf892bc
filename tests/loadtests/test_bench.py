"""The bench command as a user runs it, against a fake engine in another process."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from loadtests.bench import main


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [sys.executable, "-m", "loadtests.fake_engine", "--step-ms", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def bench(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def run(*flags: str) -> Done:
        code = main(flags)
        return Done(code, *capfd.readouterr())

    return run


def test_command_is_a_module(url: str) -> None:
    command = [sys.executable, "-m", "loadtests.bench", url, "--requests", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "2 completed, 0 failed" in done.stdout


def test_run_prints_a_table_and_writes_what_was_asked_for(bench, url: str, tmp_path: Path) -> None:
    names = ("r.json", "r.xml", "t.jsonl", "r.html")
    report, junit, trace, page = (tmp_path / name for name in names)
    done = bench(
        url, "--requests", "5", "--fail-if", "failed>0", "--save-json", str(report), "--details",
        "--save-junit", str(junit), "--save-trace", str(trace), "--save-html", str(page),
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert "TTFT ms" in done.stdout
    assert "5 completed, 0 failed" in done.stdout
    assert len(json.loads(report.read_text())["ttfts"]) == 5
    assert 'failures="0"' in junit.read_text()
    assert len(trace.read_text().splitlines()) == 5
    assert page.read_text().count("<svg") == 4


def test_gate_that_trips_makes_the_command_fail(bench, url: str) -> None:
    done = bench(url, "--requests", "3", "--fail-if", "e2e_p99>0", "--output", "json")
    assert done.code == 1
    assert "gate tripped: e2e_p99>0" in done.stderr
    assert json.loads(done.stdout)["completed"] == 3


def test_report_that_cannot_be_written_is_named_and_the_rest_is(
    bench, url: str, tmp_path: Path
) -> None:
    trace = tmp_path / "t.jsonl"
    full = "/dev/full"  # every write to it says that the disk is full
    done = bench(url, "--requests", "3", "--save-json", full, "--save-trace", str(trace))
    assert done.code == 4
    assert "cannot write /dev/full: No space left on device" in done.stderr
    assert "3 completed" in done.stdout
    assert trace.exists()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--concurrency", "0"), 2, "load.closed.concurrency"),
        (("--trace", "nothing.csv"), 2, "cannot read the trace"),
        (("--model", "other", "--requests", "1"), 6, "does not exist"),
        (("--versus", "http://127.0.0.1:9", "--requests", "1"), 6, "does not answer"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line(
    bench, url: str, flags: tuple[str, ...], code: int, said: str
) -> None:
    done = bench(url, *flags)
    assert done.code == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_server_compared_with_itself_is_about_equal(bench, url: str, tmp_path: Path) -> None:
    report = tmp_path / "versus.json"
    done = bench(
        url, "--versus", url, "--requests", "4", "--output-tokens", "8", "--save-json", str(report)
    )
    assert (done.code, "NOT VALID" in done.stderr) == (0, False)
    assert "10 pairs" in done.stdout
    figures = json.loads(report.read_text())["figures"]
    assert 0.3 < figures["output_rate"]["ratio"]["estimate"] < 3
