"""How a model stands: its state, and why, for tenants and for operators. Pure."""

from dataclasses import dataclass

from serving.controller.starts import Starts
from serving.protocol import ModelState


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model's state follows from."""

    target: int
    ready: int
    outdated: int  # of the ready ones those of an older revision
    starting: int
    waits_for_host: bool
    starts: Starts
    pool: str
    pool_hosts: int
    hosts_needed: int = 1  # by one engine
    swaps: bool = False  # an old revision's engine went before a new one was ready
    dozing_on: str = ""  # the host on which an engine of the model sleeps, if one does


@dataclass(frozen=True, slots=True)
class Standing:
    """A model's state; `reason` is the operator's, `public_reason` safe for tenants."""

    state: ModelState
    reason: str = ""
    public_reason: str = ""


def assess(seen: Seen, now_s: float) -> Standing:
    """The state of a model at one moment (monotonic seconds)."""
    if seen.ready:
        return _serving(seen)
    if seen.starts.has_failed(now_s):
        return Standing(
            ModelState.FAILED,
            f"{seen.starts.failures} starts failed in a row, the last one because: "
            + seen.starts.why,
            "its engine does not start",
        )
    if seen.target == 0 and not seen.starting:
        last = f"the last start failed: {seen.starts.why}" if seen.starts.failures else ""
        if seen.dozing_on:
            last = f"its engine sleeps on {seen.dozing_on}"
        return Standing(ModelState.ASLEEP, last)
    public = "no host is free" if seen.waits_for_host else ""
    return Standing(ModelState.WAKING, _trouble(seen), public)


def _serving(seen: Seen) -> Standing:
    parts = []
    if seen.ready < seen.target:
        parts.append(f"{seen.ready} of {seen.target} engines are ready")
    if seen.outdated:
        parts.append("an older revision serves until the current one is ready")
    whole = seen.ready >= seen.target and not (seen.outdated and seen.starts.failures)
    if parts and (trouble := _trouble(seen)):
        parts.append(trouble)
    return Standing(ModelState.READY if whole else ModelState.DEGRADED, "; ".join(parts))


def _trouble(seen: Seen) -> str:
    parts = []
    if seen.swaps:
        parts.append("no host was free for both revisions: the old one's engine went first")
    if seen.waits_for_host:
        hosts = f"{seen.pool_hosts} host" + ("" if seen.pool_hosts == 1 else "s")
        live = f"none of {hosts} is free"
        if seen.hosts_needed > 1:
            live = f"fewer than {seen.hosts_needed} of {hosts} are free"
        if not seen.pool_hosts:
            live = "no host is up"
        parts.append(f"waits for a host: in pool {seen.pool} {live}")
    if seen.starts.failures:
        parts.append(f"the last start failed: {seen.starts.why}")
    return "; ".join(parts)
