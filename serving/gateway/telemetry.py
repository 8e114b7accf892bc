"""The gateway's metrics, made from their declarations; gauges are read when they are scraped."""

from prometheus_client import CollectorRegistry, generate_latest

from serving import metrics
from serving.gateway.lanes import Lane, Lanes


class GatewayMetrics:
    """All metrics of one gateway process; `model` is empty where no known model was named."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = metrics.REQUESTS.counter(self._registry)
        self.queue_wait = metrics.QUEUE_WAIT.histogram(self._registry)
        self.ttft = metrics.TTFT.histogram(self._registry)
        self.retries = metrics.RETRIES.counter(self._registry)
        self.settled = metrics.USAGE_SETTLED.counter(self._registry)
        self.unmetered = metrics.UNMETERED.counter(self._registry)
        self.journal_lost = metrics.JOURNAL_LOST.counter(self._registry)
        self.journal_backlog = metrics.JOURNAL_BACKLOG.gauge(self._registry)
        self._in_flight = metrics.IN_FLIGHT.gauge(self._registry)
        self._queue_depth = metrics.QUEUE_DEPTH.gauge(self._registry)

    def render(self, lanes: Lanes) -> bytes:
        """Prometheus' text format of this moment."""
        self._in_flight.clear()
        self._queue_depth.clear()
        for lane in lanes:
            self._read(lane)
        return generate_latest(self._registry)

    def _read(self, lane: Lane) -> None:
        model = lane.route.name
        self._in_flight.labels(model).set(sum(lane.balancer.in_flight().values()))
        self._queue_depth.labels(model).set(len(lane.line))
