"""What metrics and the log want to know of one request at the door."""

from dataclasses import dataclass, field

from serving.gateway.telemetry import GatewayMetrics
from serving.logs import get_logger

CLIENT_LEFT = 499
"""Status in metrics and log of a request whose tenant left first; nobody was sent it."""

log = get_logger(__name__)


@dataclass(slots=True)
class Visit:
    """One request, from its arrival to its end."""

    request_id: str
    route: str
    began_s: float  # monotonic seconds
    status: int = 0
    model: str = ""  # only once it is known to exist
    key_id: str = ""
    start_id: str = ""  # names the cold start that the request caused, if it did
    engine_id: str = ""  # the last one that had it
    broken: list[str] = field(default_factory=list)  # engine_ids that failed on it
    streaming: bool = False  # the answer has started
    complete: bool = False  # the answer has ended, for better or worse
    cut: bool = False  # an engine broke off mid-stream

    def names(self) -> dict[str, str]:
        """The fields by which log lines about the request are found."""
        return {
            "request_id": self.request_id,
            "model": self.model,
            "engine_id": self.engine_id,
        }

    def close(self, metrics: GatewayMetrics, now_s: float) -> None:
        """Counts and logs the request at its end."""
        metrics.requests.labels(self.model, self.route, str(self.status)).inc()
        log.info(
            "answered",
            route=self.route,
            status=self.status,
            key_id=self.key_id,
            start_id=self.start_id,
            cut=self.cut,
            duration_s=round(now_s - self.began_s, 4),
            **self.names(),
        )
