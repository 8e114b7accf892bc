"""Every metric of Penstock, declared once as data; a process makes the ones that it needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    disable_created_metrics,
)

# The time at which each series began: one more for each counter and histogram, and used by nobody.
disable_created_metrics()  # type: ignore[no-untyped-call]

LATENCY_BUCKETS_S = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0,
)  # fmt: skip


class Kind(StrEnum):
    """Prometheus' type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"  # a sum and a count


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

    def summary(self, registry: CollectorRegistry) -> Summary:
        """Makes the summary in `registry`."""
        return Summary(self.name, self.help, self.labels, registry=registry)


REQUESTS = Metric(
    "penstock_requests_total", Kind.COUNTER,
    "Requests answered, by the status that the tenant saw (499: the tenant left first).",
    ("model", "route", "status"),
)  # fmt: skip
IN_FLIGHT = Metric(
    "penstock_requests_in_flight", Kind.GAUGE, "Requests running in engines.", ("model",)
)
QUEUE_DEPTH = Metric(
    "penstock_queue_depth", Kind.GAUGE,
    "Requests waiting for a slot, by class of service (priority, default, flex).",
    ("model", "tier"),
)  # fmt: skip
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
    "penstock_cold_start_seconds", Kind.SUMMARY,
    "Duration of each phase of an engine's start, from the end of the phase before it.",
    ("model", "phase"),
)  # fmt: skip
COLD_START_PHASE = Metric(
    "penstock_cold_start_phase_seconds", Kind.HISTOGRAM,
    "The same of all models together, in buckets.", ("phase",),
    (0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0),
)  # fmt: skip

USAGE_SETTLED = Metric(
    "penstock_usage_settled_total", Kind.COUNTER,
    "Requests settled by this gateway, by how they ended.", ("status",),
)  # fmt: skip
UNMETERED = Metric(
    "penstock_unmetered_requests_total",
    Kind.COUNTER,
    "Requests served though the journal could not be written (PENSTOCK_UNMETERED=serve).",
)
JOURNAL_LOST = Metric(
    "penstock_journal_lost_records_total",
    Kind.COUNTER,
    "Places at which records of a journal that was taken over were torn or damaged.",
)
JOURNAL_BACKLOG = Metric(
    "penstock_journal_backlog_bytes",
    Kind.GAUGE,
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

REQUEST_SECONDS = Metric(
    "penstock_request_seconds", Kind.HISTOGRAM,
    "From the request at the door to the end of an answer that was whole.", ("model",),
    (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)  # fmt: skip
TIME_PER_OUTPUT_TOKEN = Metric(
    "penstock_time_per_output_token_seconds", Kind.HISTOGRAM,
    "Mean time between two tokens of an answer, after its first.", ("model",),
    (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0),
)  # fmt: skip
TOKENS = Metric(
    "penstock_tokens_total", Kind.COUNTER,
    "Tokens of answered requests; cached ones are a part of the prompt's.", ("model", "kind"),
)  # fmt: skip
REJECTS = Metric(
    "penstock_rejects_total", Kind.COUNTER,
    "Requests answered with an error, by its code.", ("model", "reason"),
)  # fmt: skip
UPSTREAM_ERRORS = Metric(
    "penstock_upstream_errors_total", Kind.COUNTER,
    "Attempts that an engine broke off or failed on.", ("model",),
)  # fmt: skip
QUEUE_AGE = Metric(
    "penstock_queue_oldest_wait_seconds", Kind.GAUGE,
    "How long the request of a class that came first has waited for a slot.", ("model", "tier"),
)  # fmt: skip
TENANT_REQUESTS = Metric(
    "penstock_tenant_requests_total", Kind.COUNTER,
    "Requests by organisation (PENSTOCK_METRICS_BY_TENANT), the outcome ok, error or left.",
    ("organisation", "outcome"),
)  # fmt: skip
TENANT_TOKENS = Metric(
    "penstock_tenant_tokens_total", Kind.COUNTER,
    "Tokens by organisation (PENSTOCK_METRICS_BY_TENANT).", ("organisation", "kind"),
)  # fmt: skip
MODEL_STATE = Metric(
    "penstock_model_state", Kind.GAUGE, "1 for the state that the model is in.", ("model", "state")
)
DECISION = Metric(
    "penstock_autoscaler_decision", Kind.GAUGE,
    "1 for the reason of the autoscaler's last decision.", ("model", "reason"),
)  # fmt: skip
UNSCHEDULABLE = Metric(
    "penstock_engines_unschedulable", Kind.GAUGE,
    "Engines that are wanted, and that no host has.", ("model",),
)  # fmt: skip
ACCELERATORS = Metric(
    "penstock_accelerators", Kind.GAUGE,
    "Accelerators of a pool's hosts; a host without any counts as one.", ("pool", "state"),
)  # fmt: skip
GPU_UTILISATION = Metric(
    "penstock_gpu_utilization_ratio", Kind.GAUGE,
    "Share of the last moments in which a kernel ran on a host's accelerator, as its driver tells.",
    ("pool", "host", "gpu"),
)  # fmt: skip
GPU_MEMORY_USED = Metric(
    "penstock_gpu_memory_used_bytes", Kind.GAUGE,
    "Memory of a host's accelerator in use, by whatever process.", ("pool", "host", "gpu"),
)  # fmt: skip
GPU_MEMORY = Metric(
    "penstock_gpu_memory_total_bytes", Kind.GAUGE, "Memory of a host's accelerator.",
    ("pool", "host", "gpu"),
)  # fmt: skip
GPU_POWER = Metric(
    "penstock_gpu_power_watts", Kind.GAUGE, "Power that a host's accelerator draws.",
    ("pool", "host", "gpu"),
)  # fmt: skip
COLD_START_WHOLE = Metric(
    "penstock_cold_start_whole_seconds", Kind.HISTOGRAM,
    "From the demand that woke a model to the first token of the request that caused it.",
    ("model",),
    (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0),
)  # fmt: skip
KEY_EXPIRY = Metric(
    "penstock_key_expiry_timestamp_seconds", Kind.GAUGE,
    "When the next key that has an end will end, in Unix seconds.", ("role",),
)  # fmt: skip
ENGINE_SCRAPES = Metric(
    "penstock_engine_scrapes_total", Kind.COUNTER,
    "Scrapes of engines for the federated metrics, by outcome.", ("outcome",),
)  # fmt: skip
LEADS = Metric(
    "penstock_controller_leads", Kind.GAUGE,
    "1 at the controller that leads, 0 at one that stands by.",
)  # fmt: skip

ALL: tuple[Metric, ...] = (
    REQUESTS, IN_FLIGHT, QUEUE_DEPTH, QUEUE_WAIT, TTFT, RETRIES,
    ENGINES, ENGINES_WANTED, HOSTS, COLD_START, COLD_START_PHASE,
    USAGE_SETTLED, UNMETERED, JOURNAL_LOST, JOURNAL_BACKLOG, METERING_DRIFT, USAGE_UNRESOLVED,
    REQUEST_SECONDS, TIME_PER_OUTPUT_TOKEN, TOKENS, REJECTS, UPSTREAM_ERRORS, QUEUE_AGE,
    TENANT_REQUESTS, TENANT_TOKENS, MODEL_STATE, DECISION, UNSCHEDULABLE, ACCELERATORS,
    GPU_UTILISATION, GPU_MEMORY_USED, GPU_MEMORY, GPU_POWER,
    COLD_START_WHOLE, KEY_EXPIRY, ENGINE_SCRAPES, LEADS,
)  # fmt: skip
