"""A server on loopback that speaks as much of the Hugging Face hub's protocol as a fetch needs."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.models.faulty import Faults, FaultyHandler, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS_FROM_BYTES = 1024
"""Larger files are kept by SHA-256, smaller ones by git's own hash, as on the hub."""


@contextmanager
def hub(
    repo: str,
    folder: Path,
    *,
    token: str | None = None,
    gated: bool = False,
    faults: Faults | None = None,
    revisions: frozenset[str | None] = frozenset({None, "main", COMMIT}),
) -> Iterator[tuple[str, Faults]]:
    """Serves `folder` as the one repository `repo`; yields the URL and what was asked.

    Args:
        repo: As `org/name`.
        folder: The content, at each of `revisions`.
        token: The bearer token that is asked for: for all, or only for files where `gated`.
        gated: Who has no token sees the repository's description.
        faults: What goes wrong.
        revisions: Names of the one commit; others are not there.
    """
    faults = faults or Faults()

    class Handler(FaultyHandler):
        def do_HEAD(self) -> None:
            self._serve(with_body=False)

        def do_GET(self) -> None:
            self._serve(with_body=True)

        def _serve(self, *, with_body: bool) -> None:
            path = self.path.split("?")[0]
            given = self.headers.get("Authorization")
            if given is not None and given != f"Bearer {token}":
                self._error(401, "")
            elif match := re.fullmatch(rf"/api/models/{repo}(?:/revision/(.+))?", path):
                if token is not None and given is None and not gated:
                    self._error(401, "")
                elif match[1] in revisions:
                    self.plain(200, self._info(), {"Content-Type": "application/json"},
                               with_body=with_body)  # fmt: skip
                else:
                    self._error(404, "RevisionNotFound")
            elif match := re.fullmatch(rf"/{repo}/resolve/([^/]+)/(.+)", path):
                if token is not None and given is None:
                    self._error(401, "GatedRepo")
                elif match[1] not in revisions:
                    self._error(404, "RevisionNotFound")
                elif not (folder / match[2]).is_file():
                    self._error(404, "EntryNotFound")
                else:
                    content = (folder / match[2]).read_bytes()
                    headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT}
                    self.content(content, headers, with_body=with_body)
            else:
                self._error(404, "RepoNotFound")

        def _info(self) -> bytes:
            files = []
            for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                content = file.read_bytes()
                entry: dict[str, object] = {
                    "rfilename": file.relative_to(folder).as_posix(),
                    "size": len(content),
                    "blobId": _git(content),
                }
                if len(content) >= LFS_FROM_BYTES:
                    digest = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
                files.append(entry)
            return json.dumps({"id": repo, "sha": COMMIT, "siblings": files}).encode()

        def _error(self, status: int, code: str) -> None:
            headers = {"X-Error-Code": code} if code else {}
            self.plain(status, b"", headers, with_body=False)

    with serving(Handler, faults) as url:
        yield url, faults


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _etag(content: bytes) -> str:
    if len(content) < LFS_FROM_BYTES:
        return _git(content)
    return hashlib.sha256(content).hexdigest()
