"""Tells each start to an OpenTelemetry collector: one trace, a span for each phase.

Imported only where an endpoint is set, so that off costs nothing. Spans are made after the fact
from the marks of a start and sent by a thread of the SDK's; one that cannot be sent is dropped.
"""

import hashlib
from itertools import pairwise

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Status, StatusCode, Tracer, set_span_in_context

from serving.controller.traces import Trace

ROOT = "cold_start"
SEND_EACH_MS = 1000
NS = 1_000_000_000


class _IdsOfStarts(RandomIdGenerator):
    """Gives all starts that one request caused the same trace, whose id follows from theirs."""

    def __init__(self) -> None:
        self.start_id = ""

    def generate_trace_id(self) -> int:
        return trace_id_of(self.start_id)


class SpanSender:
    """Sends starts to one collector; close it to send what is left.

    Args:
        endpoint: Base URL of an OTLP/HTTP receiver, as OTEL_EXPORTER_OTLP_ENDPOINT has it.
        exporter: Takes the spans instead of the endpoint.
    """

    def __init__(self, endpoint: str, exporter: SpanExporter | None = None) -> None:
        self._ids = _IdsOfStarts()
        self._provider = TracerProvider(
            resource=Resource({"service.name": "penstock-controller"}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        sender = exporter or OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(
            BatchSpanProcessor(sender, schedule_delay_millis=SEND_EACH_MS)
        )
        self._tracer: Tracer = self._provider.get_tracer("penstock")

    def __call__(self, trace: Trace) -> None:
        """Queues one start; never waits."""
        marks = trace.ordered()
        ends = [at for _, at in marks] + ([] if trace.failed_at is None else [trace.failed_at])
        if not ends:
            return
        self._ids.start_id = trace.start_id
        root = self._tracer.start_span(
            ROOT,
            start_time=_ns(ends[0]),
            attributes={
                "penstock.start_id": trace.start_id,
                "penstock.engine_id": trace.engine_id,
                "penstock.model": trace.model,
                "penstock.revision": trace.revision,
                "penstock.host_id": trace.host_id,
                "penstock.node": trace.node,
            },
        )
        within = set_span_in_context(root)
        for (_, before), (phase, at) in pairwise(marks):
            span = self._tracer.start_span(phase.value, context=within, start_time=_ns(before))
            span.end(_ns(max(before, at)))
        if trace.error is not None:
            root.set_status(Status(StatusCode.ERROR, trace.error))
        root.end(_ns(max(ends)))

    def close(self) -> None:
        """Sends what is left, and ends the SDK's thread; waits for both."""
        self._provider.shutdown()


def trace_id_of(start_id: str) -> int:
    """The OpenTelemetry trace of a start: the first 128 bits of the id's SHA-256."""
    return int.from_bytes(hashlib.sha256(start_id.encode()).digest()[:16], "big")


def _ns(at: float) -> int:
    return int(at * NS)
