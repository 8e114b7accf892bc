"""The two scripts that run in pods: the pre-install check and `helm test`."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.helm.chart import CHART

SECRETS = {
    "CHECK_INTERNAL_TOKEN": "t" * 32,
    "CHECK_RAY_TOKEN": "r" * 32,
    "CHECK_ADMIN_KEY": "pa-0123456789",
    "CHECK_API_KEY": "pk-0123456789",
}


def run(script: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", (CHART / "files" / script).read_text()],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_preflight_passes_with_all_secrets() -> None:
    done = run("preflight.py", SECRETS)
    assert (done.returncode, done.stdout.strip()) == (0, "preflight: ok")


def test_preflight_names_everything_that_is_wrong() -> None:
    wrong = {**SECRETS, "CHECK_ADMIN_KEY": "", "NAME_ADMIN_KEY": "keys/admin-key"}
    wrong |= {"CHECK_API_KEY": "pk-0123456789\n", "NAME_API_KEY": "keys/api-key"}
    wrong |= {"CHECK_DATABASE_URL": "mysql://x", "NAME_DATABASE_URL": "db/url"}
    done = run("preflight.py", wrong)
    assert done.returncode == 1
    assert "the Secret keys/admin-key is missing or empty" in done.stderr
    assert "keys/api-key begins or ends with blanks" in done.stderr
    assert "the Secret db/url holds no URL" in done.stderr


def test_preflight_looks_for_every_secret_that_it_is_told_of() -> None:
    more = {"NAME_HUB_TOKEN": "hub/token", "NAME_SOURCE_KEY": "sources/KEY"}
    done = run("preflight.py", {**SECRETS, **more, "CHECK_SOURCE_KEY": "a key\n"})
    assert done.returncode == 1
    assert done.stderr == "error: the Secret hub/token is missing or empty\n"


def test_preflight_says_that_the_database_does_not_answer() -> None:
    url = "postgresql+asyncpg://u:secret-word@127.0.0.1:9/x"
    done = run("preflight.py", {**SECRETS, "CHECK_DATABASE_URL": url, "NAME_DATABASE_URL": "db/u"})
    assert done.returncode == 1
    assert "the database of Secret db/u does not answer" in done.stderr
    assert "secret-word" not in done.stdout + done.stderr


@contextmanager
def endpoint(unavailable: int = 0) -> Iterator[str]:
    """A gateway that first answers 503 so often."""
    answers = iter([503] * unavailable)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"data": [{"id": "guide"}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.answer({"choices": [{"message": {"content": "A platform."}}]})

        def answer(self, body: object) -> None:
            known = self.headers["authorization"] == "Bearer pk-1"
            self.send_response(next(answers, 200) if known else 401)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_smoke_asks_a_model() -> None:
    with endpoint() as url:
        done = run("smoke.py", {"SMOKE_URL": url, "SMOKE_KEY": "pk-1", "SMOKE_MODEL": "guide"})
    assert (done.returncode, done.stdout) == (0, "models: guide\nanswer: A platform.\nsmoke: ok\n")


def test_smoke_waits_until_the_endpoint_is_available() -> None:
    with endpoint(unavailable=1) as url:
        variables = {"SMOKE_URL": url, "SMOKE_KEY": "pk-1", "SMOKE_MODEL": ""}
        assert run("smoke.py", variables).returncode == 0
    with endpoint(unavailable=1) as url:
        assert (
            run("smoke.py", variables | {"SMOKE_URL": url, "SMOKE_PATIENCE_S": "0"}).returncode == 1
        )


def test_smoke_fails_with_a_wrong_key() -> None:
    with endpoint() as url:
        done = run("smoke.py", {"SMOKE_URL": url, "SMOKE_KEY": "pk-2", "SMOKE_MODEL": ""})
    assert done.returncode == 1
