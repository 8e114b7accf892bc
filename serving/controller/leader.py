"""Who leads, where several controllers share a database: decided from a lease and a time. Pure.

The database's clock decides whether a lease has run out. A leader also counts for itself, on a
clock of its own that only runs forward, from the moment before it asked: its own account ends
first, so that it has stopped before anybody else may begin.
"""

from dataclasses import dataclass, replace

POLL_S = 0.5
"""How often a standby looks, where the lease does not say that it can wait longer or less."""

RENEWALS = 4
"""A leader renews so many times within a lease."""

MARGIN = 0.1
"""Share of a lease that a leader gives away: two clocks may not run equally fast."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The row of the database."""

    holder: str  # empty: nobody has led yet
    url: str  # at which gateways and hosts reach the holder
    token: int  # grows with each leader; what an earlier one still writes is refused by it
    expires_at: float  # Unix seconds of the database's clock

    def runs(self, now: float) -> bool:
        """Whether somebody leads at a time of the database's clock."""
        return bool(self.holder) and now < self.expires_at


@dataclass(frozen=True, slots=True)
class Take:
    """The lease has run out: ask for it, if nobody has asked since."""

    token: int  # of the lease that was seen


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody leads: look again after so many seconds."""

    seconds: float


def decide(lease: Lease, now: float) -> Take | Wait:
    """What a standby does at a time of the database's clock.

    A lease that ends before the next look is waited for, so that a takeover is not late by POLL_S.
    """
    if not lease.runs(now):
        return Take(lease.token)
    return Wait(min(POLL_S, lease.expires_at - now))


@dataclass(frozen=True, slots=True)
class Tenure:
    """A leader's own account of its lease, on a clock that only runs forward."""

    token: int
    lease_s: float
    asked_s: float  # when the last renewal that was granted was asked for

    @property
    def renew_every_s(self) -> float:
        """Between two renewals."""
        return self.lease_s / RENEWALS

    def holds(self, now_s: float) -> bool:
        """Whether it may act: the database's account of the lease ends later than this one."""
        return now_s < self.asked_s + self.lease_s * (1 - MARGIN)

    def renewed(self, asked_s: float) -> "Tenure":
        """After the database granted what was asked for at `asked_s`."""
        return replace(self, asked_s=asked_s)
