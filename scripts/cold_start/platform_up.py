"""A platform of the benchmark's own, as its operator and its tenant see it."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PENSTOCK = Path(sys.executable).with_name("penstock")
KEYS = {"PENSTOCK_ADMIN_KEY": "bench-admin-key-0001", "PENSTOCK_API_KEY": "bench-tenant-key-0001"}
QUESTION = [{"role": "user", "content": "What is Penstock?"}]
PATIENCE_S = 120.0


class Platform:
    """A running platform."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc

    def admin(self, path: str, body: object = None) -> list[dict[str, Any]]:
        """Items of a resource, or nothing for a POST.

        Raises:
            RuntimeError: If it is refused.
        """
        connection = http.client.HTTPConnection(self.host, timeout=30)
        headers = {"Authorization": f"Bearer {KEYS['PENSTOCK_ADMIN_KEY']}"}
        method = "GET" if body is None else "POST"
        connection.request(method, f"/admin/v1/{path}", json.dumps(body), headers)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{path}: {told}")
        items: list[dict[str, Any]] = told.get("items", [])
        return items

    def is_all_asleep(self) -> bool:
        """Whether no engine is left and all hosts are free."""
        hosts = self.admin("hosts")
        return bool(hosts) and not self.admin("engines") and not any(h["engine_id"] for h in hosts)


@contextmanager
def platform(data: Path) -> Iterator[Platform]:
    """Brings a platform up, and down again."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "RAY_"))}
    where = ("--data-dir", str(data))
    try:
        up = ("up", "--detach", "--no-deploy", "--port", "0", *where)
        if (code := _run_to_its_end(up, environment | KEYS)) != 0:
            raise RuntimeError(f"penstock up ended with {code}")
        yield Platform(json.loads((data / "platform.json").read_text("utf-8"))["url"])
    finally:
        _run_to_its_end(("down", *where), environment | KEYS)


def _run_to_its_end(arguments: tuple[str, ...], environment: dict[str, str]) -> int:
    """Runs `penstock`, to its end also where a signal comes: broken off in its middle, what it
    began could not be ended any more."""
    penstock = subprocess.Popen(
        [PENSTOCK, *arguments],
        env=environment, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        return penstock.wait()
    except BaseException:
        penstock.wait()
        raise


def first_token_s(host: str, model: str, key: str) -> float:
    """Seconds from a request to the first streamed token; the stream is read to its end.

    Raises:
        RuntimeError: If the answer is an error, or bears no token.
        OSError: If nobody answers.
    """
    body = {"model": model, "messages": QUESTION, "stream": True, "max_tokens": 8}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    began_s = time.perf_counter()
    connection = http.client.HTTPConnection(host, timeout=PATIENCE_S)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}: {answer.read()[:200]!r}")
        first_s = None
        for line in answer:
            told = json.loads(line[6:]) if line.startswith(b"data: {") else {}
            choices = told.get("choices") or [{}]
            if first_s is None and choices[0].get("delta", {}).get("content"):
                first_s = time.perf_counter() - began_s
        if first_s is None:
            raise RuntimeError("the stream had no token")
        return first_s
    finally:
        connection.close()


def wait_until(check: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    """Polls until the check holds.

    Raises:
        RuntimeError: If it does not in time.
    """
    deadline_s = time.monotonic() + within_s
    while not check():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"not within {within_s:g} s: {what}")
        time.sleep(0.1)
