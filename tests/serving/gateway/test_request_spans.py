"""Requests as a collector of OpenTelemetry sees them."""

import subprocess
import sys

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serving.gateway.request_spans import RequestSpans
from serving.gateway.tokens import Tokens
from serving.gateway.visits import Visit

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def told(visit: Visit, share: float = 1.0, traceparent: str = "") -> dict[str, ReadableSpan]:
    """The spans of a request that began at 10 s, was sent at 11 s and ended at 14 s."""
    collector = InMemorySpanExporter()
    spans = RequestSpans("http://unused", share, collector)
    spans.begin(visit, [(b"traceparent", traceparent.encode())] if traceparent else [])
    if visit.trace is not None:
        visit.trace.end(visit, 14.0)
    spans.close()
    return {span.name: span for span in collector.get_finished_spans()}


def served() -> Visit:
    visit = Visit("req", "/v1/chat/completions", 10.0, status=200, model="m", engine_id="e1")
    visit.dispatched_s, visit.first_byte_s, visit.attempts = 11.0, 12.0, 1
    visit.tokens = Tokens(prompt=7, completion=3)
    return visit


def lasts_s(span: ReadableSpan) -> float:
    assert span.start_time is not None and span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_a_request_has_spans_for_door_queue_and_engine() -> None:
    spans = told(served())
    door = spans["POST /v1/chat/completions"]
    assert lasts_s(door) == 4.0
    assert lasts_s(spans["queue"]) == 1.0
    assert lasts_s(spans["engine"]) == 3.0
    assert [event.name for event in spans["engine"].events] == ["first_byte"]
    assert spans["engine"].attributes == {"penstock.engine_id": "e1"}
    assert spans["engine"].parent == spans["queue"].parent == door.context
    attributes = door.attributes or {}
    assert attributes["penstock.model"] == "m"
    assert attributes["gen_ai.usage.output_tokens"] == 3


def test_a_tenants_trace_is_continued() -> None:
    spans = told(served(), share=0.0, traceparent=f"00-{TRACE}-{PARENT}-01")
    door = spans["POST /v1/chat/completions"]
    assert door.context is not None and door.parent is not None
    assert f"{door.context.trace_id:032x}" == TRACE
    assert f"{door.parent.span_id:016x}" == PARENT


def test_a_tenant_who_does_not_sample_is_not_told() -> None:
    assert told(served(), share=1.0, traceparent=f"00-{TRACE}-{PARENT}-00") == {}


def test_a_request_outside_of_the_share_is_not_told() -> None:
    visit = served()
    assert told(visit, share=0.0) == {}
    assert visit.trace is None


def test_a_malformed_context_is_ignored() -> None:
    assert len(told(served(), traceparent="00-nonsense")) == 3


def test_the_context_for_the_engine_is_that_of_the_door() -> None:
    visit = served()
    collector = InMemorySpanExporter()
    spans = RequestSpans("http://unused", 0.0, collector)
    spans.begin(visit, [(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())])
    assert visit.trace is not None
    passed_on = visit.trace.traceparent
    visit.trace.end(visit, 14.0)
    spans.close()
    (door,) = (span for span in collector.get_finished_spans() if span.parent is not None
               and f"{span.parent.span_id:016x}" == PARENT)  # fmt: skip
    assert door.context is not None
    assert passed_on == f"00-{TRACE}-{door.context.span_id:016x}-01"


def test_a_request_that_never_got_an_engine_has_no_span_of_one() -> None:
    visit = Visit("req", "/v1/chat/completions", 10.0, status=503, model="m", code="unavailable")
    spans = told(visit)
    assert spans.keys() == {"queue", "POST /v1/chat/completions"}
    assert not spans["POST /v1/chat/completions"].status.is_ok


def test_without_a_collector_nothing_of_it_is_imported() -> None:
    code = (
        "import sys\n"
        "from serving.gateway.app import create_app\n"
        "from serving.settings import GatewaySettings\n"
        "create_app(GatewaySettings(internal_token='t' * 16))\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry.sdk')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={})
