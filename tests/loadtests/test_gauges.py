import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from loadtests.gauges import Watch, gauges

PAGE = """\
# TYPE penstock_engines gauge
penstock_engines{model="guide",phase="ready"} 2.0
penstock_engines{model="other",phase="ready"} 7.0
# TYPE penstock_queue_depth gauge
penstock_queue_depth{model="guide"} 3.0
# TYPE penstock_hosts gauge
penstock_hosts{pool="cpu",state="free"} 1.0
"""


@pytest.fixture
def url() -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_gauges_of_the_model_are_kept_under_the_rest_of_their_labels() -> None:
    names = frozenset({"penstock_engines", "penstock_queue_depth"})
    assert dict(gauges(PAGE, names, "guide")) == {
        'penstock_engines{phase="ready"}': 2.0,
        "penstock_queue_depth": 3.0,
    }


def test_watch_keeps_what_it_saw_first_and_last(url: str) -> None:
    with Watch([url + "/metrics"], ["penstock_engines"], "guide") as watch:
        pass
    (seen,) = watch.watched()
    assert seen.name == 'penstock_engines{phase="ready"}'
    assert {value for _, value in seen.points} == {2.0}
    assert len(seen.points) >= 1
    assert watch.complaint is None


@pytest.mark.parametrize("path", ["/nothing", ""])
def test_page_that_cannot_be_read_is_a_complaint_and_no_error(url: str, path: str) -> None:
    page = url + path if path else "http://127.0.0.1:1/metrics"
    with Watch([page], ["penstock_engines"], "guide") as watch:
        pass
    assert watch.watched() == ()
    assert watch.complaint is not None
    assert page in watch.complaint
