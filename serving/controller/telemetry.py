"""The controller's metrics: gauges computed at each scrape, and the phases of cold starts."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

from prometheus_client import CollectorRegistry, generate_latest

from serving.controller.federation import Federation
from serving.controller.fleet import Fleet
from serving.controller.observed_engine import Engine
from serving.controller.state_metrics import StateMetrics
from serving.controller.traces import PHASE_ORDER, Trace
from serving.metrics import (
    COLD_START,
    COLD_START_PHASE,
    COLD_START_WHOLE,
    ENGINES,
    ENGINES_WANTED,
    HOSTS,
    LEADS,
)
from serving.protocol import StartPhase


class Telemetry:
    """The metrics of one controller."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._engines = ENGINES.gauge(self.registry)
        self._wanted = ENGINES_WANTED.gauge(self.registry)
        self._hosts = HOSTS.gauge(self.registry)
        self._cold_start = COLD_START.summary(self.registry)
        self._cold_start_phase = COLD_START_PHASE.histogram(self.registry)
        self._cold_start_whole = COLD_START_WHOLE.histogram(self.registry)
        self.states = StateMetrics(self.registry)
        self.federation = Federation(self.registry)
        self.leads = LEADS.gauge(self.registry)

    def observe_start(self, engine: Engine) -> None:
        """Records how long each phase of a start took; once an engine is routed."""
        marks = [(phase, engine.marks[phase]) for phase in PHASE_ORDER if phase in engine.marks]
        for (_, before), (phase, at) in pairwise(marks):
            self._observe_phase(engine.model, phase, at - before)

    def observe_first_token(self, trace: Trace) -> None:
        """Records the last phase of a start, which its gateway tells."""
        (_, routed_at), (phase, at) = trace.ordered()[-2:]
        self._observe_phase(trace.model, phase, at - routed_at)
        (_, began_at) = trace.ordered()[0]
        self._cold_start_whole.labels(trace.model).observe(max(0.0, at - began_at))

    def _observe_phase(self, model: str, phase: StartPhase, took_s: float) -> None:
        """By model as a sum, and in buckets for all together: buckets of each phase of each model
        would be a hundred series a model."""
        self._cold_start.labels(model, phase).observe(max(0.0, took_s))
        self._cold_start_phase.labels(phase).observe(max(0.0, took_s))

    def render_standby(self) -> bytes:
        """All that a standby knows: that it does not lead."""
        return generate_latest(self.registry.restricted_registry([LEADS.name]))

    def render(self, fleet: Fleet, wanted: Mapping[str, int], pools: Iterable[str]) -> bytes:
        """All metrics in Prometheus' text format."""
        self.leads.set(1)
        self._engines.clear()
        engines = Counter((e.model, e.phase) for e in fleet.engines())
        for (model, phase), number in engines.items():
            self._engines.labels(model, phase).set(number)
        self._wanted.clear()
        for model, number in wanted.items():
            self._wanted.labels(model).set(number)
            self._cold_start_whole.labels(model)  # at zero, or a first start were no increase
        self._hosts.clear()
        for pool in pools:
            hosts = [host for host in fleet if host.pool == pool]
            free = sum(host.is_free for host in hosts)
            self._hosts.labels(pool, "free").set(free)
            self._hosts.labels(pool, "bound").set(len(hosts) - free)
        return generate_latest(self.registry)
