"""Tells requests to an OpenTelemetry collector: the door, the queue, the engine.

Imported only where an endpoint is set, so that off costs nothing. A tenant's W3C `traceparent` is
continued, and its word on sampling kept; of other requests a share is sampled. An engine gets the
context as `traceparent`, and a cold start has its own trace, found by `penstock.start_id`.
"""

import time
from collections.abc import Iterable

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.gateway.visits import Visit

TRACEPARENT = b"traceparent"
NS = 1_000_000_000
OUR_FAULT = 500


class RequestSpans:
    """Begins a span for each sampled request.

    Args:
        endpoint: Base URL of an OTLP/HTTP receiver.
        share: Of the requests without a context of their tenant's, those that are sampled.
        exporter: Takes the spans instead of the endpoint.
    """

    def __init__(self, endpoint: str, share: float, exporter: SpanExporter | None = None) -> None:
        self._provider = TracerProvider(
            resource=Resource({"service.name": "penstock-gateway"}),
            sampler=ParentBased(TraceIdRatioBased(share)),
            shutdown_on_exit=False,
        )
        sender = exporter or OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(sender, schedule_delay_millis=1000))
        self._tracer = self._provider.get_tracer("penstock")
        self._context = TraceContextTextMapPropagator()

    def begin(self, visit: Visit, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Continues the tenant's trace, or begins one; `visit.trace` stays None where it is not
        sampled."""
        context = next((value for name, value in headers if name == TRACEPARENT), b"")
        at_ns = time.time_ns()
        span = self._tracer.start_span(
            f"POST {visit.route}",
            context=self._context.extract({"traceparent": context.decode("latin-1")}),
            kind=SpanKind.SERVER,
            start_time=at_ns,
        )
        if span.is_recording():
            visit.trace = RequestTrace(self._tracer, span, at_ns - int(visit.began_s * NS))

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


class RequestTrace:
    """The spans of one request."""

    def __init__(self, tracer: Tracer, span: Span, offset_ns: int) -> None:
        self._tracer = tracer
        self._span = span
        self._offset_ns = offset_ns
        """Unix time less monotonic time."""

    @property
    def traceparent(self) -> str:
        """The context for whom this request calls."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"

    def end(self, visit: Visit, now_s: float) -> None:
        """Makes the spans within, and ends all."""
        sent_s = visit.dispatched_s
        self._child("queue", visit.began_s, now_s if sent_s is None else sent_s)
        if sent_s is not None:
            self._child("engine", sent_s, now_s, visit)
        self._span.set_attributes({
            "http.request.method": "POST",
            "http.route": visit.route,
            "http.response.status_code": visit.status,
            "penstock.model": visit.model,
            "penstock.organisation": visit.org_id,
            "penstock.usage_id": visit.usage_id,
            "penstock.start_id": visit.start_id,
            "penstock.attempts": visit.attempts,
            "penstock.revision": visit.revision,
        })  # fmt: skip
        if visit.tokens is not None:
            self._span.set_attribute("gen_ai.usage.input_tokens", visit.tokens.prompt)
            self._span.set_attribute("gen_ai.usage.output_tokens", visit.tokens.completion)
        if visit.cut or visit.status >= OUR_FAULT:
            self._span.set_status(Status(StatusCode.ERROR, visit.code or "cut"))
        self._span.end(self._ns(now_s))

    def _child(self, name: str, began_s: float, ended_s: float, visit: Visit | None = None) -> None:
        span = self._tracer.start_span(
            name, context=set_span_in_context(self._span), start_time=self._ns(began_s)
        )
        if visit is not None:
            span.set_attribute("penstock.engine_id", visit.engine_id)
            if visit.first_byte_s is not None:
                span.add_event("first_byte", timestamp=self._ns(visit.first_byte_s))
        span.end(self._ns(ended_s))

    def _ns(self, at_s: float) -> int:
        return int(at_s * NS) + self._offset_ns
