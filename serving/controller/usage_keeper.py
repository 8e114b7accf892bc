"""What the controller does about usage by itself: resolves, reconciles, forgets."""

import asyncio
import time

from prometheus_client import CollectorRegistry

from serving.background import set_within
from serving.controller import usage_queries
from serving.controller.database import DatabaseError
from serving.controller.store import Store
from serving.controller.usage_queries import Span
from serving.controller.usage_store import PRUNED_AT_ONCE, UsageStore
from serving.logs import get_logger
from serving.metrics import METERING_DRIFT, USAGE_UNRESOLVED

RESOLVE_INTERVAL_S = 2.0
RECONCILE_INTERVAL_S = 60.0
RECONCILED_S = 3600.0
"""The metric of drift looks at what was stored within this time."""
SHARED_S = 3 * RECONCILE_INTERVAL_S
"""For so long a share that was missed is looked for."""
LAG_S = 15.0
"""What was stored since then may still lack its other side."""

DAY_S = 86_400.0
UNTOLD_S = DAY_S
"""For so long the recorder of a request of unknown usage is waited for: its node may come back."""

log = get_logger(__name__)


class UsageKeeper:
    """Keeps usage in order, and tells in metrics how the counts agree.

    Args:
        store: Where usage is.
        usage: Resolves and prunes it.
        retention_days: How long rows of single requests are kept.
        registry: Of the controller's metrics.
    """

    def __init__(
        self, store: Store, usage: UsageStore, retention_days: float, registry: CollectorRegistry
    ) -> None:
        self._store = store
        self._usage = usage
        self._retention_days = retention_days
        self._drift = METERING_DRIFT.gauge(registry)
        self._unresolved = USAGE_UNRESOLVED.gauge(registry)

    async def run(self, stop: asyncio.Event) -> None:
        """Works until it is stopped; a database that is away is tried again."""
        next_reconcile_s = 0.0
        while not await set_within(stop, RESOLVE_INTERVAL_S):
            try:
                while not stop.is_set() and await self._usage.resolve():
                    pass
                if time.monotonic() >= next_reconcile_s:
                    next_reconcile_s = time.monotonic() + RECONCILE_INTERVAL_S
                    await self._look_after(time.time(), stop)
            except DatabaseError as exc:
                log.warning("usage_not_kept", error=str(exc))

    async def _look_after(self, now: float, stop: asyncio.Event) -> None:
        while not stop.is_set() and await self._usage.settle_unknown(now - UNTOLD_S):
            pass
        seen = await usage_queries.reconcile(self._store, Span(now - RECONCILED_S, now - LAG_S))
        for drift in seen.drifts:
            self._drift.labels(drift.between, drift.kind).set(drift.tokens)
        self._unresolved.clear()
        for status, number in (await usage_queries.unresolved(self._store)).items():
            self._unresolved.labels(status).set(number)
        await self._usage.share(now - SHARED_S)
        before = now - self._retention_days * DAY_S
        while not stop.is_set() and await self._usage.prune(before) >= PRUNED_AT_ONCE:
            pass
