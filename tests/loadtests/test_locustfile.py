"""Locust itself, headless, for a second or two each, against a fake engine in another process."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

import loadtests
from tests.ports import free_port

ResultT = TypeVar("ResultT")

LOCUSTFILE = str(Path(loadtests.__file__).with_name("locustfile.py"))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [sys.executable, "-m", "loadtests.fake_engine", "--step-ms", "2", "--token", "t"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        yield f"http://127.0.0.1:{port}"
        process.terminate()


def locust(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--headless", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def test_closed_profile_runs_users_and_fills_the_statistics(url: str) -> None:
    for limit in ("2s", "8s", "30s"):  # Locust's clock runs while a busy machine still starts it
        done = locust(
            "--host", url, "--api-key", "t", "--load-profile", "agent", "-u", "3", "-r", "99",
            "-t", limit, "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows = {(row["name"], row["method"]): row for row in json.loads(done.stdout)}
        if rows and rows["agent", "POST"]["num_requests"] > 5:
            break
    assert set(rows) == {("agent", kind) for kind in ("POST", "TTFT", "TPOT", "ITL")}
    requests = rows["agent", "POST"]["num_requests"]
    assert requests == rows["agent", "TTFT"]["num_requests"] > 5
    assert rows["agent", "ITL"]["num_requests"] > 10 * requests
    assert f"{requests} completed, 0 failed" in done.stderr


def test_open_profile_is_shared_by_two_workers(url: str, tmp_path: Path) -> None:
    profile = tmp_path / "open.yaml"
    profile.write_text(
        "{load: {type: open, rate_rps: 30, duration_s: 1}, slo: {ttft_s: 5},"
        " workload: {type: chat, output: {mean: 4}}, fail_if: ['attainment<0.5', 'ttft_p99>0']}"
    )
    done = locust(
        "--host", url, "--api-key", "t", "--load-profile", str(profile), "--processes", "2",
        "-u", "2", "-r", "99", "-t", "3s",
    )  # fmt: skip
    found = re.search(r"penstock: (\d+) completed, 0 failed", done.stderr)
    assert found is not None, done.stderr
    assert 10 <= int(found[1]) <= 55  # 30 expected, by the seed the same each time
    assert "gate tripped: ttft_p99>0" in done.stderr
    assert "gate tripped: attainment" not in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--load-profile", "nothing"), 2, "shipped: agent"),
        (("--api-key", "wrong", "-t", "9s"), 6, "401"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line(
    url: str, flags: tuple[str, ...], code: int, said: str
) -> None:
    done = locust("--host", url, *flags)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == code


def test_web_ui_shows_our_table_and_charts(url: str) -> None:
    command = [
        sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--host", url, "--api-key", "t",
        "--load-profile", "agent", "-u", "2", "-r", "99", "--autostart",
        "--web-host", "127.0.0.1", "--web-port", str(free_port()),
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            web = f"http://127.0.0.1:{command[-1]}"
            times = until(lambda: httpx.get(web + "/stats/requests").json()["extended_stats"])
            assert times[0]["key"] == "times"
            row = until(lambda: _row(web))
            assert row["name"] == "agent"
            assert row["completed"] > 0
            assert row["ttft50"] > 0
            page = httpx.get(web + "/times", timeout=30).text
            assert page.count("<svg") == 4
            assert '"key": "times"' in httpx.get(web, timeout=30).text
        finally:
            process.terminate()


def _row(web: str) -> dict[str, Any]:
    rows = httpx.get(web + "/stats/requests").json()["extended_stats"][0]["data"]
    return dict(rows[0]) if rows and rows[0]["completed"] else {}


def until(ask: Callable[[], ResultT]) -> ResultT:
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        try:
            if answer := ask():
                return answer
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise AssertionError("it takes too long")
