"""A platform that a live bench brings up with one model on it, and calls by plain HTTP.

A load asks it from many threads. `own_platform` is for benches that work by our commands.
"""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PENSTOCK = Path(sys.executable).with_name("penstock")
KEYS = {"PENSTOCK_ADMIN_KEY": "bench-admin-key-0001", "PENSTOCK_API_KEY": "bench-tenant-key-0001"}
MODEL = "bench"
MANIFEST = {
    "name": MODEL,
    "source": "builtin://guide",
    "engine": {"max_num_seqs": 8, "kv_cache_gib": 0.03},
    "scaling": {"min": 0, "max": 2, "idle_timeout_s": 4.0},
}
PATIENCE_S = 60.0


def headers_with(key: str) -> dict[str, str]:
    """Of a request in JSON, with one of KEYS."""
    return {"Authorization": f"Bearer {KEYS[key]}", "Content-Type": "application/json"}


class Platform:
    """A running platform, as its operator and its tenant see it."""

    def __init__(self, url: str, environment: dict[str, str]) -> None:
        self.host = urlsplit(url).netloc
        self._environment = environment | KEYS | {"PENSTOCK_URL": url}

    def admin(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Calls the admin API."""
        return self._call(method, f"/admin/v1/{path}", body, "PENSTOCK_ADMIN_KEY", 30)

    def tenant(self, path: str, body: object) -> dict[str, Any]:
        """Calls the platform as a tenant, without a stream."""
        return self._call("POST", f"/v1/{path}", body, "PENSTOCK_API_KEY", PATIENCE_S)

    def _call(
        self, method: str, path: str, body: object, key: str, timeout_s: float
    ) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self.host, timeout=timeout_s)
        given = None if body is None else json.dumps(body)
        connection.request(method, path, given, headers_with(key))
        answer = connection.getresponse()
        told: dict[str, Any] = json.loads(answer.read())
        connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{path}: {told}")
        return told

    def first_token_s(self, body: dict[str, Any]) -> float | None:
        """Seconds to the first token of a streamed request that is read to its end; None where it
        was not answered, or its answer broke off."""
        return self.tokens_s(body)[0]

    def tokens_s(self, body: dict[str, Any]) -> tuple[float | None, float | None]:
        """As `first_token_s`, and seconds to the last token."""
        began_s = time.perf_counter()
        first_s, last_s, ended = None, None, False
        try:
            connection = http.client.HTTPConnection(self.host, timeout=PATIENCE_S)
            stream = json.dumps(body | {"stream": True})
            headers = headers_with("PENSTOCK_API_KEY")
            connection.request("POST", "/v1/chat/completions", stream, headers)
            for line in connection.getresponse():
                if line.startswith(b"data: {") and b'"content"' in line:
                    last_s = time.perf_counter() - began_s
                    first_s = first_s or last_s
                ended = ended or line.startswith(b"data: [DONE]")
            connection.close()
        except (OSError, http.client.HTTPException) as exc:
            say(f"lost: {exc!r}")
        return (first_s, last_s) if ended else (None, None)

    def is_served(self) -> bool:
        """Whether the gateway knows the model."""
        connection = http.client.HTTPConnection(self.host, timeout=PATIENCE_S)
        headers = headers_with("PENSTOCK_API_KEY")
        connection.request("GET", f"/v1/models/{MODEL}", headers=headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status == 200

    def is_asleep(self) -> bool:
        """Whether no engine is left and all hosts are free."""
        hosts = self.admin("GET", "hosts")["items"]
        return bool(hosts) and not any(host["engine_id"] for host in hosts)

    def explain(self) -> str:
        """What the command says."""
        done = subprocess.run(
            [PENSTOCK, "explain", MODEL, "-n", "6"],
            env=self._environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout


@contextmanager
def platform(folder: Path) -> Iterator[Platform]:
    """Brings a platform up, and down again."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "RAY_"))}
    data = folder / "data"
    where = ("--data-dir", str(data))
    subprocess.run(
        [PENSTOCK, "up", "--detach", "--no-deploy", "--port", "0", *where],
        env=environment | KEYS, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = json.loads((data / "platform.json").read_text("utf-8"))["url"]
        yield Platform(url, environment)
    finally:
        subprocess.run([PENSTOCK, "down", *where], env=environment | KEYS, check=False)


def say(text: str) -> None:
    """One line of the report."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def wait_until(check: Any, what: str, each_s: float = 0.2) -> None:
    """Polls until the check holds, with so long between two tries.

    Raises:
        RuntimeError: If it does not in time.
    """
    deadline_s = time.monotonic() + 6 * PATIENCE_S
    while not check():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"not in time: {what}")
        time.sleep(each_s)
