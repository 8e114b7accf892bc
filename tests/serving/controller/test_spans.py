"""A start as an OpenTelemetry trace, received over OTLP/HTTP as a collector would."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from serving.controller.spans import SpanSender, trace_id_of
from serving.controller.traces import Trace
from serving.protocol import StartPhase


class Receiver(ThreadingHTTPServer):
    """Takes what is posted to /v1/traces."""

    daemon_threads = True
    spans: list[Span]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        request = ExportTraceServiceRequest()
        request.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Is silent."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver(("127.0.0.1", 0), _Handler)
    server.spans = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def start(**fields: object) -> Trace:
    marks = {
        StartPhase.DEMAND_SEEN: 100.0,
        StartPhase.DECIDED: 100.25,
        StartPhase.BOUND: 100.5,
        StartPhase.FIRST_TOKEN: 101.0,
    }
    trace = Trace("cause", "eng-1", "guide", 3, "h1", "n1", marks)
    for name, value in fields.items():
        setattr(trace, name, value)
    return trace


def send(receiver: Receiver, *traces: Trace) -> list[Span]:
    sender = SpanSender(receiver.url)
    for trace in traces:
        sender(trace)
    sender.close()
    return receiver.spans


def test_start_arrives_as_a_tree_whose_phases_fill_the_whole(receiver: Receiver) -> None:
    spans = send(receiver, start())
    (root,) = [span for span in spans if not span.parent_span_id]
    phases = sorted(
        (span for span in spans if span.parent_span_id), key=lambda s: s.start_time_unix_nano
    )
    assert root.name == "cold_start"
    assert [span.name for span in phases] == ["decided", "bound", "first_token"]
    assert {span.parent_span_id for span in phases} == {root.span_id}
    ends = [root.start_time_unix_nano, *(span.end_time_unix_nano for span in phases)]
    assert [span.start_time_unix_nano for span in phases] == ends[:-1]
    assert ends[-1] == root.end_time_unix_nano == 101_000_000_000
    attributes = {a.key: a.value.string_value for a in root.attributes}
    assert attributes["penstock.model"] == "guide"
    assert {int.from_bytes(span.trace_id, "big") for span in spans} == {trace_id_of("cause")}


def test_failed_start_is_an_error_and_shares_the_trace_of_its_cause(receiver: Receiver) -> None:
    failed = start(
        engine_id="eng-0", marks={StartPhase.DEMAND_SEEN: 100.0}, failed_at=100.1, error="broken"
    )
    spans = send(receiver, failed, start())
    assert len({span.trace_id for span in spans}) == 1
    (error,) = [span for span in spans if span.status.code]
    assert (error.name, error.status.message) == ("cold_start", "broken")
    assert error.end_time_unix_nano == 100_100_000_000
