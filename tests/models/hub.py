"""A server on loopback that speaks as much of the Hugging Face hub's protocol as a fetch needs."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(repo: str, folder: Path, *, token: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serves `folder` as the one repository `repo`; yields the URL and the list of fetched files.

    Args:
        token: The bearer token that a gated repository asks for.
    """
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._serve(with_body=False)

        def do_GET(self) -> None:
            self._serve(with_body=True)

        def _serve(self, *, with_body: bool) -> None:
            path = self.path.split("?")[0]
            if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
                self._error(403, "GatedRepo")
            elif match := re.fullmatch(rf"/api/models/{repo}(?:/revision/([^/]+))?", path):
                if match[1] in (None, "main", COMMIT):
                    self._answer(self._info(), {"Content-Type": "application/json"}, with_body)
                else:
                    self._error(404, "RevisionNotFound")
            elif match := re.fullmatch(rf"/api/models/{repo}/tree/[^/]+", path):
                tree = [
                    {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40}
                    for f in sorted(folder.iterdir())
                ]
                body = json.dumps(tree).encode()
                self._answer(body, {"Content-Type": "application/json"}, with_body)
            elif match := re.fullmatch(rf"/{repo}/resolve/[^/]+/(.+)", path):
                content = (folder / match[1]).read_bytes()
                if with_body:
                    fetched.append(match[1])
                etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
                headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
                self._answer(content, headers, with_body)
            else:
                self._error(404, "RepoNotFound")

        def _info(self) -> bytes:
            files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
            return json.dumps({"id": repo, "sha": COMMIT, "siblings": files}).encode()

        def _answer(self, body: bytes, headers: dict[str, str], with_body: bool) -> None:
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def _error(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fetched
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
