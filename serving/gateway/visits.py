"""What tolls, metrics and the log want to know of one request at the door."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.adapters_spec import split_name
from serving.gateway.ids import new_id
from serving.gateway.tokens import Tokens
from serving.logs import get_logger, write_line

if TYPE_CHECKING:
    from serving.gateway.request_spans import RequestTrace
    from serving.gateway.telemetry import GatewayMetrics

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
    code: str = ""  # of the error that it was refused with
    model: str = ""  # only once it is known to exist
    usage_id: str = field(default_factory=new_id)  # ours; what is billed
    key_id: str = ""
    org_id: str = ""
    project_id: str = ""
    weight: float = 1.0  # the tenant's share of engines beside another's, where both wait
    start_id: str = ""  # names the cold start that the request caused, if it did
    engine_id: str = ""  # the last one that had it
    revision: int = 0  # of that engine
    attempts: int = 0  # how often it was sent to an engine
    is_recorded: bool = True  # the last engine that had it counts what it does
    prompt_guess: int = 0  # tokens, as estimated
    dispatched_s: float | None = None  # monotonic seconds; of the last attempt
    first_byte_s: float | None = None  # monotonic seconds
    tokens: Tokens | None = None  # None where no engine said
    estimated: bool = False  # `tokens` are guessed: the server is not ours, and does not tell
    delivered: int = 0  # chunks of the answer that went out
    broken: list[str] = field(default_factory=list)  # engine_ids that failed on it
    streaming: bool = False  # the answer has started
    complete: bool = False  # the answer has ended, for better or worse
    cut: bool = False  # an engine broke off mid-stream
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)  # for the answer, whichever
    trace: "RequestTrace | None" = None  # where it is told to a collector
    left: bool = False  # the tenant went away, or the gateway was stopped, while it was served

    @property
    def attempt_id(self) -> str:
        """Names the present attempt at the engine, and in its recorder."""
        return f"{self.usage_id}-{self.attempts}"

    @property
    def base(self) -> str:
        """The model without its adapter, as metrics have it."""
        return split_name(self.model)[0]

    def names(self) -> dict[str, str]:
        """The fields by which log lines about the request are found."""
        return {
            "request_id": self.request_id,
            "model": self.model,
            "engine_id": self.engine_id,
        }

    def close(self, metrics: "GatewayMetrics", now_s: float) -> None:
        """Counts and logs the request at its end."""
        metrics.requests_of(self.base, self.route, str(self.status)).inc()
        metrics.visits.observe(self, now_s)
        if self.trace is not None:
            self.trace.end(self, now_s)
        write_line(
            log,
            "answered",
            route=self.route,
            status=self.status,
            key_id=self.key_id,
            start_id=self.start_id,
            cut=self.cut,
            duration_s=round(now_s - self.began_s, 4),
            **self.names(),
        )
