"""HTTP on loopback that can break off, stall and lie, as networks do; remembers what was asked."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class Faults:
    """What goes wrong, by the end of a path; and what was asked and sent."""

    cut: dict[str, list[int]] = field(default_factory=dict)
    """Bytes of the body after which the connection breaks, one for each of the next answers."""
    corrupt: dict[str, int] = field(default_factory=dict)
    """How many of the next answers have a wrong byte."""
    stall: dict[str, int] = field(default_factory=dict)
    """Bytes after which an answer waits for `go_on`."""
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range of each request."""
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes of bodies, by path."""

    def fetched(self) -> list[str]:
        """Names of the files whose content was asked for."""
        return [path.rpartition("/")[2] for method, path, _ in self.asked if method == "GET"]

    def ranges(self, name: str) -> list[str]:
        """The ranges in which a file was asked for."""
        return [r for method, path, r in self.asked if method == "GET" and path.endswith(name)]

    def bytes_of(self, name: str) -> int:
        """Bytes of a file that were sent, over all answers."""
        return sum(count for path, count in self.sent.items() if path.endswith(name))


class FaultyHandler(BaseHTTPRequestHandler):
    """Answers with ranges, and with the faults that its server has."""

    server: "FaultyServer"

    def content(self, body: bytes, headers: dict[str, str], *, with_body: bool) -> None:
        """Answers with a file, or the range of it that was asked for."""
        start = 0
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first)
            end = min(int(last) + 1, len(body)) if last else len(body)
            headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(body)}"}
            self.plain(206, body[start:end], headers, with_body=with_body)
        else:
            self.plain(200, body, headers, with_body=with_body)

    def plain(self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool) -> None:
        """Answers with these very bytes, as far as the faults let it."""
        path, faults = unquote(self.path.split("?")[0]), self.server.faults
        faults.asked.append((self.command, path, self.headers.get("Range", "")))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not with_body:
            return
        name = path.rpartition("/")[2]
        if faults.corrupt.get(name, 0) > 0 and body:
            faults.corrupt[name] -= 1
            body = body[:-1] + bytes([body[-1] ^ 1])
        at = faults.stall.pop(name, None)
        if at is not None:
            self._send(path, body[:at])
            faults.stalled.set()
            faults.go_on.wait(30)
            body = body[at:]
        if cuts := faults.cut.get(name):
            self._send(path, body[: cuts.pop(0)])
            self.close_connection = True
            self.connection.close()
            return
        self._send(path, body)

    def _send(self, path: str, body: bytes) -> None:
        try:
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
        else:
            self.server.faults.sent[path] += len(body)

    def finish(self) -> None:
        """As ever, but without a word about a connection that was cut."""
        try:
            super().finish()
        except (OSError, ValueError):
            return

    def log_message(self, format: str, *args: object) -> None:
        pass


class FaultyServer(ThreadingHTTPServer):
    """Serves with one set of faults."""

    daemon_threads = True

    def __init__(self, handler: type[FaultyHandler], faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.faults = faults

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections that were cut are on purpose."""


@contextmanager
def serving(handler: type[FaultyHandler], faults: Faults) -> Iterator[str]:
    """Runs the server; yields its URL."""
    server = FaultyServer(handler, faults)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        faults.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
