"""How many series the metrics have with a fleet of fifty models: no metric more than 2,000."""

from collections import Counter
from itertools import product

from prometheus_client.parser import text_string_to_metric_families

from autoscaler.snapshot import Reason
from models.errors import PenstockError
from serving import metrics
from serving.controller.fleet import Fleet
from serving.controller.observed_engine import Engine
from serving.controller.telemetry import Telemetry
from serving.gateway import app
from serving.gateway.lanes import Lanes
from serving.gateway.places import LaneLimits
from serving.gateway.surface import CHAT, COMPLETION, MESSAGES, RESPONSES
from serving.gateway.telemetry import GatewayMetrics
from serving.gateway.tickets import Tier
from serving.gateway.tokens import Tokens
from serving.gateway.visit_metrics import TENANTS_MAX
from serving.gateway.visits import Visit
from serving.identities import Role
from serving.metered import UsageStatus
from serving.metrics import Kind, Metric
from serving.protocol import EnginePhase, ModelState, StartPhase

MODELS = [f"model-{number}" for number in range(50)]
GATEWAY = "serving.gateway"
SERIES_MAX = 2000
POOLS, HOSTS, GPUS = 4, 200, 8  # 1,600 GPUs
ROUTES = [operation.path for operation in (CHAT, COMPLETION, RESPONSES, MESSAGES)]
STATUSES = [200, 400, 413, 429, 499, 502, 503, 504]


def codes() -> set[str]:
    """Every code of an error that a gateway can answer with, whatever else is imported."""
    assert app.__name__.startswith(GATEWAY)  # which imports all that raise one
    found, left = set(), [PenstockError]
    while left:
        error = left.pop()
        if error.__module__ == PenstockError.__module__ or error.__module__.startswith(GATEWAY):
            found.add(error.code or error.type)
        left += error.__subclasses__()
    return found


DOMAINS: dict[tuple[str, ...], int] = {
    (): 1,
    ("model",): len(MODELS),
    ("model", "route", "status"): len(MODELS) * len(ROUTES) * len(STATUSES),
    ("model", "tier"): len(MODELS) * len(Tier),
    ("model", "kind"): len(MODELS) * 3,  # prompt, cached, completion
    ("model", "reason"): len(MODELS) * max(len(Reason), len(codes())),
    ("model", "phase"): len(MODELS) * (len(StartPhase) - 1),  # the first one has no duration
    ("model", "state"): len(MODELS) * len(ModelState),
    ("phase",): len(StartPhase) - 1,
    ("status",): len(UsageStatus),
    ("between", "kind"): 2 * 3,
    ("role",): len(Role),
    ("outcome",): 2,
    ("pool", "state"): POOLS * 2,
    ("pool", "host", "gpu"): HOSTS * GPUS,
    ("organisation", "outcome"): (TENANTS_MAX + 1) * 3,
    ("organisation", "kind"): (TENANTS_MAX + 1) * 3,
}  # fmt: skip
"""How many values each combination of labels can have."""


def series(metric: Metric) -> int:
    """All series of a metric, those of its buckets too."""
    each = {Kind.HISTOGRAM: len(metric.buckets) + 3, Kind.SUMMARY: 2}.get(metric.kind, 1)
    return each * DOMAINS[metric.labels]


def test_no_declared_metric_has_too_many_series() -> None:
    assert len(EnginePhase) < len(StartPhase)  # both are called phase
    assert {m.name: series(m) for m in metrics.ALL if series(m) > SERIES_MAX} == {}


def counted(text: bytes) -> Counter[str]:
    families = text_string_to_metric_families(text.decode())
    return Counter({family.name: len(family.samples) for family in families})


def test_a_busy_gateway_gives_as_many_series_as_are_counted_above() -> None:
    gateway = GatewayMetrics()
    ways = [*product(MODELS, ROUTES, STATUSES)]
    for number, (model, route, status) in enumerate(ways):
        # Adapters' requests count as their model's: it may have a thousand of them.
        visit = Visit("r", route, 0.0, status=status, model=f"{model}:adapter-{number}")
        visit.streaming, visit.complete, visit.first_byte_s = True, True, 1.0
        visit.tokens, visit.broken = Tokens(prompt=1, completion=2, cached=1), ["e"]
        visit.code = "" if status == 200 else f"code-{status}"
        gateway.ttft_of(visit.base).observe(1.0)
        gateway.requests_of(visit.base, visit.route, str(visit.status)).inc()
        gateway.visits.observe(visit, 2.0)
    seen = counted(gateway.render(Lanes(LaneLimits(), alarm=lambda: None)))
    assert seen["penstock_requests"] == series(metrics.REQUESTS)
    assert seen["penstock_time_to_first_byte_seconds"] == series(metrics.TTFT)
    assert max(seen.values()) <= SERIES_MAX, seen.most_common(3)


def test_starts_of_many_models_give_few_series() -> None:
    telemetry = Telemetry()
    marks = {phase: float(number) for number, phase in enumerate(StartPhase)}
    for model in MODELS:
        engine = Engine(f"{model}-1", model, 1, "s", None, "host", "node", 0.0, 0.0, marks)
        telemetry.observe_start(engine)
    seen = counted(telemetry.render(Fleet(), dict.fromkeys(MODELS, 1), ["cpu"]))
    assert seen["penstock_cold_start_seconds"] == series(metrics.COLD_START)
    assert seen["penstock_cold_start_phase_seconds"] == series(metrics.COLD_START_PHASE)
    assert max(seen.values()) <= SERIES_MAX, seen.most_common(3)
