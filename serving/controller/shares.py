"""Splits limits among gateways, so that together they never have more than there is. Pure.

For each meter a gateway *holds* what it may go up to. The sum of what is held never passes the
limit, but for the one request that a gateway may let through before it asked (see the gateway's
`limits_meter`). Of what nobody used yet, the half is handed out ahead, after what each gateway is
asked for, and the other half to whoever is short of it first: where a limit is used up, nothing
lies idle at a gateway that nobody asks.

A gateway whose share shrinks holds the old one until it reports a smaller one: an answer may get
lost. So usage can move from one gateway to another no faster than reports
travel, and never be spent twice. A gateway that fell silent holds its share until that has lapsed
on its side and what it let through is out of every window.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from serving.shares import LEASE_S, MeterKind, MeterReport, Share, ShareReply, ShareReport

WINDOW_S = 61.0
SILENT_S = 3.0
"""A gateway whose meter is idle stops to report it; it gets nothing new meanwhile."""

BUDGETS = frozenset({MeterKind.DAY, MeterKind.MONTH})

MeterId = tuple[str, MeterKind, str]
"""Limit, kind, and for a budget its period."""


@dataclass(slots=True)
class _Holder:
    used: int
    held: int
    wanted: int
    short: int
    seen_s: float


@dataclass(slots=True)
class _Split:
    holders: dict[str, _Holder] = field(default_factory=dict)


class ShareBook:
    """What each gateway holds of each meter; monotonic seconds.

    Args:
        limit_of: What a meter is held against now; None where it is no longer limited.
        grace_s: For so long after its start nothing is granted beyond what gateways hold already:
            they have shares from a controller before this one.
    """

    def __init__(
        self,
        limit_of: Callable[[str, MeterKind], int | None],
        began_s: float,
        grace_s: float = 1.25,
    ) -> None:
        self._limit_of = limit_of
        self._settled_s = began_s + grace_s
        self._splits: dict[MeterId, _Split] = {}
        self.spent: dict[MeterId, dict[str, int]] = {}
        """What each gateway used of a budget, those that are gone too."""
        self.changed: set[tuple[MeterId, str]] = set()
        """Of these, the ones that are not stored yet."""

    def restore(self, rows: Iterable[tuple[MeterId, str, int]]) -> None:
        """Takes over what was used of budgets before our start."""
        for meter_id, gateway, used in rows:
            self.spent.setdefault(meter_id, {})[gateway] = used

    def forget(self, is_past: Callable[[str], bool]) -> None:
        """Drops what was used of budgets in periods that are long over."""
        self.spent = {one: used for one, used in self.spent.items() if not is_past(one[2])}
        self.changed = {one for one in self.changed if not is_past(one[0][2])}

    def settle(self) -> None:
        """All gateways that hold shares have told of them."""
        self._settled_s = float("-inf")

    def report(self, report: ShareReport, now_s: float) -> ShareReply:
        """Takes a gateway's meters, and gives it its shares."""
        shares = [self._share(report.gateway_id, meter, now_s) for meter in report.meters]
        return ShareReply(shares=tuple(share for share in shares if share is not None))

    def drop_stale(self, now_s: float) -> None:
        """Frees what gateways hold that are surely gone; done now and then."""
        for meter_id, split in list(self._splits.items()):
            for gateway, holder in list(split.holders.items()):
                if now_s - holder.seen_s > self._kept_s(meter_id):
                    del split.holders[gateway]
            if not split.holders:
                del self._splits[meter_id]

    def held(self, limit_id: str, kind: MeterKind, period: str = "") -> int:
        """What all gateways hold of a meter together."""
        split = self._splits.get((limit_id, kind, period))
        return sum(h.held for h in split.holders.values()) if split else 0

    def _share(self, gateway: str, meter: MeterReport, now_s: float) -> Share | None:
        limit = self._limit_of(meter.limit_id, meter.kind)
        meter_id = (meter.limit_id, meter.kind, meter.period)
        if limit is None:
            self._splits.pop(meter_id, None)
            return None
        split = self._splits.setdefault(meter_id, _Split())
        held = max(meter.held, meter.used)
        mine = _Holder(meter.used, held, meter.wanted, meter.short, now_s)
        split.holders[gateway] = mine
        if meter.kind in BUDGETS:
            self._note_spent(meter_id, gateway, meter.used)
            limit = max(0, limit - self._spent_by_gone(meter_id, split))
        others = [h for g, h in split.holders.items() if g != gateway]
        free = max(0, limit - sum(h.held for h in others))
        needed = mine.used + mine.short
        target = max(needed, mine.used + self._ahead(limit, split, mine, now_s))
        unsettled = now_s < self._settled_s
        granted = min(free, target, mine.held if unsettled else target)
        mine.held = max(mine.held, granted)
        return Share(
            limit_id=meter.limit_id,
            kind=meter.kind,
            granted=granted,
            more=granted < needed and (unsettled or any(h.held > h.used for h in others)),
        )

    def _ahead(self, limit: int, split: _Split, mine: _Holder, now_s: float) -> int:
        """What a gateway gets of that which nobody used yet, before it is asked for.

        All of it where nobody else is asked for any; else of the half its part; nothing where
        another one is short of it now.
        """
        others = (h for h in split.holders.values() if h is not mine)
        if not mine.wanted or any(h.short and now_s - h.seen_s <= SILENT_S for h in others):
            return 0
        unused = max(0, limit - sum(holder.used for holder in split.holders.values()))
        whole = sum(
            holder.wanted for holder in split.holders.values() if now_s - holder.seen_s <= SILENT_S
        )
        return unused if whole == mine.wanted else unused * mine.wanted // (2 * whole)

    def _kept_s(self, meter_id: MeterId) -> float:
        return LEASE_S if meter_id[1] is MeterKind.CONCURRENT else LEASE_S + WINDOW_S

    def _note_spent(self, meter_id: MeterId, gateway: str, used: int) -> None:
        spent = self.spent.setdefault(meter_id, {})
        if spent.get(gateway) != used:
            spent[gateway] = used
            self.changed.add((meter_id, gateway))

    def _spent_by_gone(self, meter_id: MeterId, split: _Split) -> int:
        spent = self.spent.get(meter_id, {})
        return sum(used for gateway, used in spent.items() if gateway not in split.holders)
