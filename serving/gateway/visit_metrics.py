"""What is counted of each request at its end: latencies, tokens, refusals, and by tenant if asked.

Names of models come from the routing table, so that nobody can make series by asking for models
that do not exist; an adapter's requests are its model's, as a model may have a thousand of them;
tenants are counted by name up to TENANTS_MAX, and as OTHERS beyond.
"""

from functools import cache
from http import HTTPStatus

from prometheus_client import CollectorRegistry

from serving import metrics
from serving.gateway.tokens import Tokens
from serving.gateway.visits import CLIENT_LEFT, Visit

TENANTS_MAX = 500
OTHERS = "others"


class VisitMetrics:
    """The metrics of whole requests."""

    def __init__(self, registry: CollectorRegistry, by_tenant: bool = False) -> None:
        self._seconds = cache(metrics.REQUEST_SECONDS.histogram(registry).labels)
        self._per_token = cache(metrics.TIME_PER_OUTPUT_TOKEN.histogram(registry).labels)
        self._tokens = cache(metrics.TOKENS.counter(registry).labels)
        self._rejects = metrics.REJECTS.counter(registry)
        self._upstream_errors = metrics.UPSTREAM_ERRORS.counter(registry)
        self._by_tenant = by_tenant
        self._tenants: set[str] = set()
        if by_tenant:
            self._tenant_requests = cache(metrics.TENANT_REQUESTS.counter(registry).labels)
            self._tenant_tokens = cache(metrics.TENANT_TOKENS.counter(registry).labels)

    def prepare(self, model: str) -> None:
        """Shows zeros of a model for what has not happened yet."""
        self._upstream_errors.labels(model)

    def observe(self, visit: Visit, now_s: float) -> None:
        """Counts a request that has ended, at a monotonic time."""
        base = visit.base
        if visit.broken:
            self._upstream_errors.labels(base).inc(len(visit.broken))
        if visit.code:
            self._rejects.labels(base, visit.code).inc()
        counts = _by_kind(visit.tokens) if visit.tokens else {}
        for kind, number in counts.items():
            self._tokens(base, kind).inc(number)
        if visit.complete and not visit.cut and visit.status < HTTPStatus.BAD_REQUEST:
            self._time(visit, base, now_s)
        if self._by_tenant:
            self._count_tenant(visit, counts)

    def _time(self, visit: Visit, base: str, now_s: float) -> None:
        exemplar = {"usage_id": visit.usage_id}
        self._seconds(base).observe(now_s - visit.began_s, exemplar)
        more = visit.tokens.completion - 1 if visit.tokens else 0
        if visit.streaming and visit.first_byte_s is not None and more > 0:
            mean_s = (now_s - visit.first_byte_s) / more
            self._per_token(base).observe(mean_s, exemplar)

    def _count_tenant(self, visit: Visit, counts: dict[str, int]) -> None:
        name = visit.org_id
        if not name:
            return
        if name not in self._tenants:
            if len(self._tenants) >= TENANTS_MAX:
                name = OTHERS
            else:
                self._tenants.add(name)
        self._tenant_requests(name, _outcome(visit)).inc()
        for kind, number in counts.items():
            self._tenant_tokens(name, kind).inc(number)


def _by_kind(tokens: Tokens) -> dict[str, int]:
    return {"prompt": tokens.prompt, "cached": tokens.cached, "completion": tokens.completion}


def _outcome(visit: Visit) -> str:
    if visit.status == CLIENT_LEFT:
        return "left"
    return "error" if visit.cut or visit.status >= HTTPStatus.BAD_REQUEST else "ok"
