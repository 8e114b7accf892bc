"""The fake engine as a process."""

import contextlib
import http.client
import json
import signal
import subprocess
import sys

import pytest

from loadtests.fake_engine import arguments


def launch(*flags: str) -> tuple[subprocess.Popen[bytes], int]:
    command = [sys.executable, "-m", "loadtests.fake_engine", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    hello = json.loads(process.stdout.readline())
    assert hello["pid"] == process.pid
    return process, hello["port"]


def post(port: int, body: dict[str, object]) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/completions", json.dumps(body))
        with connection.getresponse() as response:
            return response.read()


def test_process_prints_its_port_serves_and_ends_on_sigterm() -> None:
    process, port = launch("--model", "m", "--step-ms", "1")
    with process:
        answer = json.loads(post(port, {"model": "m", "prompt": "a b", "max_tokens": 3}))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert answer["usage"]["completion_tokens"] == 3


def test_process_dies_in_the_middle_when_told_to() -> None:
    process, port = launch("--fault", "die:token=2")
    with process:
        with pytest.raises(http.client.IncompleteRead):
            post(port, {"model": "fake", "prompt": "a", "stream": True})
        assert process.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    "flags",
    [("--fault", "melt"), ("--slots", "0"), ("--kv-tokens", "100", "--max-model-len", "100")],
)
def test_arguments_that_make_no_sense_are_refused(
    flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        arguments(flags)
    assert "error:" in capsys.readouterr().err
