"""Object stores on loopback: moto's S3 behind a proxy that can fail, and what is read of GCS."""

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import boto3
from moto.server import ThreadedMotoServer

from tests.models.faulty import Faults, FaultyHandler, serving

BUCKET = "weights"
KEY_ID, SECRET = "AKIATEST", "test-secret"


@dataclass
class Store:
    """A bucket and the way to it."""

    url: str
    faults: Faults
    direct_url: str

    def put(self, prefix: str, folder: Path) -> None:
        """Puts a folder's files below a prefix."""
        client = boto3.client(
            "s3",
            endpoint_url=self.direct_url,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                inner = path.relative_to(folder).as_posix()
                client.put_object(Bucket=BUCKET, Key=f"{prefix}/{inner}", Body=path.read_bytes())
        client.close()


@contextmanager
def s3(*, keys: bool = True) -> Iterator[Store]:
    """An S3 store with one empty bucket.

    Args:
        keys: Whether the proxy refuses requests that are not signed with KEY_ID, as S3 does.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    faults = Faults()

    class Proxy(FaultyHandler):
        def do_GET(self) -> None:
            self._pass_on(with_body=True)

        def do_HEAD(self) -> None:
            self._pass_on(with_body=False)

        def _pass_on(self, *, with_body: bool) -> None:
            if keys and f"Credential={KEY_ID}/" not in self.headers.get("Authorization", ""):
                body = b"<Error><Code>InvalidAccessKeyId</Code></Error>"
                self.plain(403, body, {"Content-Type": "application/xml"}, with_body=with_body)
                return
            upstream = http.client.HTTPConnection(host, port)
            upstream.request(self.command, self.path, headers=dict(self.headers))
            answer = upstream.getresponse()
            body = answer.read()
            kept = ("content-type", "etag", "last-modified", "content-range", "accept-ranges")
            headers = {k: v for k, v in answer.getheaders() if k.lower() in kept}
            upstream.close()
            self.plain(answer.status, body, headers, with_body=with_body)

    try:
        with serving(Proxy, faults) as url:
            store = Store(url, faults, f"http://{host}:{port}")
            client = boto3.client(
                "s3",
                endpoint_url=store.direct_url,
                aws_access_key_id=KEY_ID,
                aws_secret_access_key=SECRET,
                region_name="us-east-1",
            )
            client.create_bucket(Bucket=BUCKET)
            client.close()
            yield store
    finally:
        server.stop()


@contextmanager
def gcs(folder: Path, token: str | None = None) -> Iterator[tuple[str, Faults]]:
    """Serves a folder as the bucket BUCKET of GCS's XML API; yields the URL and what was asked."""
    faults = Faults()

    class Handler(FaultyHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            names = unquote(parts.path).strip("/").split("/", 1)
            if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
                self.plain(401, b"", {}, with_body=False)
            elif names[0] != BUCKET:
                self.plain(404, b"<Error><Code>NoSuchBucket</Code></Error>", {}, with_body=True)
            elif len(names) == 1:
                prefix = parse_qs(parts.query).get("prefix", [""])[0]
                self.plain(200, _listing(folder, prefix), {}, with_body=True)
            else:
                path = folder / names[1]
                headers = {"ETag": _tag(path), "Last-Modified": "Sat, 03 Jan 2026 00:00:00 GMT"}
                self.content(path.read_bytes(), headers, with_body=True)

    with serving(Handler, faults) as url:
        yield url, faults


def _listing(folder: Path, prefix: str) -> bytes:
    entries = "".join(
        f"<Contents><Key>{escape(path.relative_to(folder).as_posix())}</Key>"
        f"<Size>{path.stat().st_size}</Size><ETag>{escape(_tag(path))}</ETag>"
        "<LastModified>2026-01-03T00:00:00.000Z</LastModified></Contents>"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix().startswith(prefix)
    )
    return f"<ListBucketResult><Name>{BUCKET}</Name>{entries}</ListBucketResult>".encode()


def _tag(path: Path) -> str:
    found = path.stat()
    return f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
