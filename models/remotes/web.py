"""One archive on a web server: a tar or zip of a model's folder."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from models.remotes.listing import (
    ChangedError,
    Checksum,
    FetchError,
    Hash,
    Listing,
    PlaceAwayError,
    RemoteFile,
)

TIMEOUT_S = 30.0


class WebArchive:
    """One URL.

    Args:
        url: Without a fragment.
        sha256: What the archive must come to, where the operator says so.
        token: Bearer token for the server.
    """

    def __init__(self, url: str, *, sha256: str | None = None, token: str | None = None) -> None:
        self._url = url
        self._sha256 = sha256
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def listing(self) -> Listing:
        """The archive, as the server's headers describe it."""
        with self._translated(), self._client() as client:
            answer = client.head(self._url)
            self._check(answer)
            try:
                size = int(answer.headers["Content-Length"])
            except (KeyError, ValueError):
                raise FetchError(
                    f"{self._url}: the server does not tell its size", param="source"
                ) from None
            version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        name = urlsplit(self._url).path.rpartition("/")[2] or "archive"
        checksum = Checksum(Hash.SHA256, self._sha256) if self._sha256 else None
        return Listing((RemoteFile(name, size, checksum, version),), packed=True)

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """The archive's bytes; from the start where the server knows no ranges."""
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if file.version and not file.version.startswith("W/"):
                headers["If-Range"] = file.version
        with (
            self._translated(),
            self._client() as client,
            client.stream("GET", self._url, headers=headers) as answer,
        ):
            self._check(answer)
            now = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            if now != file.version:
                raise ChangedError(f"{self._url} changed while it was fetched", param="source")
            skip = offset if answer.status_code == 200 else 0
            for chunk in answer.iter_raw():
                yield chunk[skip:] if skip else chunk
                skip = max(0, skip - len(chunk))

    def _client(self) -> httpx.Client:
        return httpx.Client(headers=self._headers, timeout=TIMEOUT_S, follow_redirects=True)

    def _check(self, answer: httpx.Response) -> None:
        status = answer.status_code
        if status in (401, 403):
            raise FetchError(
                f"{self._url} may not be read"
                + ("" if self._headers else " without a token")
                + f": status {status}",
                param="source",
                hint="give the server's bearer token as a secret in weights.token",
            )
        if status in (404, 410):
            raise FetchError(f"{self._url} is not there: status {status}", param="source")
        if status >= 400:
            raise PlaceAwayError(f"{self._url} answers {status}", param="source")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.InvalidURL as exc:
            raise FetchError(f"{self._url} is no URL", param="source") from exc
        except httpx.HTTPError as exc:
            raise PlaceAwayError(
                f"{self._url} could not be fetched: {type(exc).__name__}",
                param="source",
                hint="check the network and the address",
            ) from exc


def pin_of(listing: Listing) -> str:
    """What a URL's fragment says of an archive without a checksum: that its headers stay so."""
    (file,) = listing.files
    return hashlib.sha256(f"{file.size}\0{file.version}".encode()).hexdigest()[:16]
