"""Every metric of Penstock, declared once as data; a process makes the ones that it needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS_S = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0,
)  # fmt: skip


class Kind(StrEnum):
    """Prometheus' type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its full name carries the unit, as Prometheus' conventions ask."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: Sequence[float] = LATENCY_BUCKETS_S

    def counter(self, registry: CollectorRegistry) -> Counter:
        """Makes the counter in `registry`."""
        return Counter(self.name, self.help, self.labels, registry=registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        """Makes the gauge in `registry`."""
        return Gauge(self.name, self.help, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """Makes the histogram in `registry`."""
        return Histogram(
            self.name, self.help, self.labels, registry=registry, buckets=tuple(self.buckets)
        )


REQUESTS = Metric(
    "penstock_requests_total", Kind.COUNTER,
    "Requests answered, by the status that the tenant saw (499: the tenant left first).",
    ("model", "route", "status"),
)  # fmt: skip
IN_FLIGHT = Metric(
    "penstock_requests_in_flight", Kind.GAUGE, "Requests running in engines.", ("model",)
)
QUEUE_DEPTH = Metric("penstock_queue_depth", Kind.GAUGE, "Requests waiting for a slot.", ("model",))
QUEUE_WAIT = Metric(
    "penstock_queue_wait_seconds", Kind.HISTOGRAM, "Time that requests waited for a slot.",
    ("model",),
)  # fmt: skip
TTFT = Metric(
    "penstock_time_to_first_byte_seconds", Kind.HISTOGRAM,
    "From the request at the door to the first byte of the engine's answer.", ("model",),
)  # fmt: skip
RETRIES = Metric(
    "penstock_upstream_retries_total", Kind.COUNTER,
    "Requests sent to another engine because one broke off before its first byte.", ("model",),
)  # fmt: skip
ENGINES = Metric(
    "penstock_engines", Kind.GAUGE, "Engines, by where they are in their life.",
    ("model", "phase"),
)  # fmt: skip
ENGINES_WANTED = Metric(
    "penstock_engines_wanted", Kind.GAUGE, "Engines that the autoscaler asks for.", ("model",)
)
HOSTS = Metric("penstock_hosts", Kind.GAUGE, "Hosts of a pool.", ("pool", "state"))
COLD_START = Metric(
    "penstock_cold_start_seconds", Kind.HISTOGRAM,
    "Duration of each phase of an engine's start, from the end of the phase before it.",
    ("model", "phase"),
)  # fmt: skip

USAGE_SETTLED = Metric(
    "penstock_usage_settled_total", Kind.COUNTER,
    "Requests settled by this gateway, by how they ended.", ("status",),
)  # fmt: skip
UNMETERED = Metric(
    "penstock_unmetered_requests_total", Kind.COUNTER,
    "Requests served though the journal could not be written (PENSTOCK_UNMETERED=serve).",
)
JOURNAL_LOST = Metric(
    "penstock_journal_lost_records_total", Kind.COUNTER,
    "Places at which records of a journal that was taken over were torn or damaged.",
)
JOURNAL_BACKLOG = Metric(
    "penstock_journal_backlog_bytes", Kind.GAUGE,
    "Bytes of the journal that the controller has not confirmed yet.",
)
METERING_DRIFT = Metric(
    "penstock_metering_drift_tokens", Kind.GAUGE,
    "Tokens by which two counts differ: attempts against the engines' own counters, usage against"
    " attempts.", ("between", "kind"),
)  # fmt: skip
USAGE_UNRESOLVED = Metric(
    "penstock_usage_unresolved", Kind.GAUGE,
    "Requests whose tokens no recorder has told yet, by how they ended.", ("status",),
)  # fmt: skip

ALL: tuple[Metric, ...] = (
    REQUESTS, IN_FLIGHT, QUEUE_DEPTH, QUEUE_WAIT, TTFT, RETRIES,
    ENGINES, ENGINES_WANTED, HOSTS, COLD_START,
    USAGE_SETTLED, UNMETERED, JOURNAL_LOST, JOURNAL_BACKLOG, METERING_DRIFT, USAGE_UNRESOLVED,
)  # fmt: skip
