"""The gateway's metrics, made from their declarations; gauges are read when they are scraped."""

import time
from functools import cache

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics

from serving import metrics
from serving.gateway.lane import Lane
from serving.gateway.lanes import Lanes
from serving.gateway.visit_metrics import VisitMetrics


class GatewayMetrics:
    """All metrics of one gateway process; `model` is empty where no known model was named."""

    def __init__(self, by_tenant: bool = False) -> None:
        self._registry = CollectorRegistry()
        self.visits = VisitMetrics(self._registry, by_tenant)
        self.requests = metrics.REQUESTS.counter(self._registry)
        self.queue_wait = metrics.QUEUE_WAIT.histogram(self._registry)
        self.ttft = metrics.TTFT.histogram(self._registry)
        self.retries = metrics.RETRIES.counter(self._registry)
        self.settled = metrics.USAGE_SETTLED.counter(self._registry)
        self.unmetered = metrics.UNMETERED.counter(self._registry)
        self.journal_lost = metrics.JOURNAL_LOST.counter(self._registry)
        self.journal_backlog = metrics.JOURNAL_BACKLOG.gauge(self._registry)
        # With the labels of before found in one look: `labels` takes some microseconds.
        self.requests_of = cache(self.requests.labels)
        self.queue_wait_of = cache(self.queue_wait.labels)
        self.ttft_of = cache(self.ttft.labels)
        self.settled_of = cache(self.settled.labels)
        self._in_flight = metrics.IN_FLIGHT.gauge(self._registry)
        self._queue_depth = metrics.QUEUE_DEPTH.gauge(self._registry)
        self._queue_age = metrics.QUEUE_AGE.gauge(self._registry)

    def render(self, lanes: Lanes, *, open_metrics: bool = False) -> bytes:
        """This moment in Prometheus' text format, or in OpenMetrics', which has exemplars."""
        self._in_flight.clear()
        self._queue_depth.clear()
        self._queue_age.clear()
        for lane in lanes:
            self._read(lane)
        if open_metrics:
            text: bytes = generate_open_metrics(self._registry)  # type: ignore[no-untyped-call]
            return text
        return generate_latest(self._registry)

    def _read(self, lane: Lane) -> None:
        model = lane.route.name
        self._in_flight.labels(model).set(sum(lane.balancer.in_flight().values()))
        for tier, (number, wait_s) in lane.line.by_tier(time.monotonic()).items():
            self._queue_depth.labels(model, tier).set(number)
            self._queue_age.labels(model, tier).set(wait_s)
        # There from the start: a first event would else be no increase.
        self.retries.labels(model)
        self.visits.prepare(model)
