"""Keeps some slots free for tenants that use less than their share. Pure: time is an argument.

A fair order alone does not spare a calm tenant the wait for a slot where a flood holds them all for
as long as its answers take. So a tenant with its share of the slots, or more, leaves some free. How
many is learned: one more when a request of a calm tenant finds none, a small part fewer when it
finds one; that settles where about one in a hundred has to wait (a stochastic approximation of the
99th percentile). With one tenant nothing is kept.
"""

from dataclasses import dataclass

ACTIVE_S = 30.0
"""A tenant counts among those who share for this long after its last request ended."""

SWEEP_S = 5.0

FIRST_SHARE = 0.25
"""Of the slots: so much is kept free before anything was learned."""

MAX_SHARE = 0.4
"""Of the slots: so much is kept free at most."""

SHARED_PREFILL = 1 / 4
"""Of an engine's prefill limit a tenant has so much while there are others."""

CROWD_PREFILL = 1 / 16
"""And so much, or one prompt, where it has more waiting than its share: a step that computes fewer
of its prompts is shorter for everybody else's."""

CROWD = 4
"""Fewer that wait are no crowd."""

MISSES = 0.01
"""Requests of calm tenants that may find no slot."""


@dataclass(slots=True)
class _Use:
    weight: float
    in_flight: int = 0
    seen_s: float = 0.0


class Headroom:
    """Who holds how many slots of a model; monotonic seconds."""

    def __init__(self) -> None:
        self.kept: float | None = None  # slots; None before it was needed
        self._uses: dict[str, _Use] = {}
        self._weights = 0.0
        self._swept_s = 0.0

    def came(self, tenant: str, weight: float, free: int, slots: int, now_s: float) -> None:
        """A request has come, and finds so many of the slots free."""
        use = self._use(tenant, weight, now_s)
        if len(self._uses) < 2 or not self._is_calm(use, slots):
            return
        if self.kept is None:
            self.kept = FIRST_SHARE * slots
        step = max(1.0, slots / 64)
        if free <= 0:
            self.kept = min(MAX_SHARE * slots, self.kept + step)
        else:
            self.kept = max(0.0, self.kept - step * MISSES)

    def prefill_share(self, tenant: str, waiting: int, everyone: int) -> float:
        """The tenant's part of an engine's prefill limit.

        Args:
            waiting: Its requests that wait.
            everyone: All requests that wait.
        """
        use = self._uses.get(tenant)
        if use is None or len(self._uses) < 2:
            return 1.0
        is_crowd = waiting >= CROWD and waiting * self._weights > use.weight * everyone
        return CROWD_PREFILL if is_crowd else SHARED_PREFILL

    def may_take(self, tenant: str, free: int, slots: int) -> bool:
        """Whether the tenant may have one of the free slots."""
        use = self._uses.get(tenant)
        if use is None or self._is_calm(use, slots):
            return True
        return free > (self.kept or 0.0)

    def took(self, tenant: str, weight: float, now_s: float) -> None:
        """A request of the tenant has a slot."""
        self._use(tenant, weight, now_s).in_flight += 1

    def gave_back(self, tenant: str, now_s: float) -> None:
        """A request of the tenant is over."""
        if (use := self._uses.get(tenant)) is not None:
            use.in_flight = max(0, use.in_flight - 1)
            use.seen_s = now_s

    def _is_calm(self, use: _Use, slots: int) -> bool:
        return len(self._uses) < 2 or use.in_flight < slots * use.weight / self._weights

    def _use(self, tenant: str, weight: float, now_s: float) -> _Use:
        if now_s - self._swept_s >= SWEEP_S:
            self._sweep(now_s)
        use = self._uses.get(tenant)
        if use is None:
            use = self._uses[tenant] = _Use(weight)
            self._weights += weight
        use.seen_s = now_s
        return use

    def _sweep(self, now_s: float) -> None:
        self._swept_s = now_s
        self._uses = {
            tenant: use
            for tenant, use in self._uses.items()
            if use.in_flight or now_s - use.seen_s < ACTIVE_S
        }
        self._weights = sum(use.weight for use in self._uses.values())
