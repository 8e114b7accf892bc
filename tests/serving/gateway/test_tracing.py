"""A gateway that tells a real collector, over HTTP, of the requests it serves."""

import gzip
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from serving.settings import GatewaySettings
from tests.serving.gateway.conftest import Gateway, chat
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """Receives spans as OTLP over HTTP."""

    def __init__(self) -> None:
        collected: list[ExportTraceServiceRequest] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collected.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.collected = collected
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def names(self) -> dict[str, str]:
        """Each span's name to its trace."""
        return {
            span.name: span.trace_id.hex()
            for request in self.collected
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    running = Collector()
    yield running
    running.stop()


async def test_a_request_is_told_and_its_context_reaches_the_engine(
    make_gateway: Callable[[GatewaySettings], Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
    collector: Collector,
) -> None:
    controller.set_routes(model("demo", engine.route))
    gateway = make_gateway(settings.model_copy(update={"otlp_endpoint": collector.url}))
    await gateway.start()
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    answer = await gateway.http.post("/v1/chat/completions", json=chat(), headers=headers)
    assert answer.status_code == 200
    (seen,) = engine.seen
    version, trace, span, flags = seen.headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != PARENT
    await gateway.finished()
    await gateway._server.lifespan.shutdown()  # sends what is left
    names = collector.names()
    assert names.keys() >= {"POST /v1/chat/completions", "queue", "engine"}
    assert set(names.values()) == {TRACE}


async def test_without_a_collector_no_context_is_passed_on(
    gateway: Gateway, engine: FakeEngine
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    await gateway.http.post("/v1/chat/completions", json=chat(), headers=headers)
    (seen,) = engine.seen
    assert "traceparent" not in seen.headers
