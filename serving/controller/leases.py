"""Splits each engine's slots among the gateways. Pure."""

from collections.abc import Mapping

LOOK_AHEAD_MIN = 2
LOOK_AHEAD_SHARE = 8
"""One extra request for every 8 slots keeps an engine's batch full while reports travel."""


def capacity(slots: int) -> int:
    """Requests that all gateways together may have in an engine: its slots and the look-ahead."""
    return slots + max(LOOK_AHEAD_MIN, slots // LOOK_AHEAD_SHARE)


def split(slots: int, demand: Mapping[str, int], *, looks_ahead: bool = True) -> dict[str, int]:
    """Shares of one engine for each gateway, after their demand for its model (requests).

    Each gateway gets at least one slot, so that none has to wait for a reply before its first
    request; so the sum is at most `capacity(slots)` plus the number of gateways. An idle gateway
    counts as one request. Remainders go to the largest fractions, ties to the smaller name.

    Args:
        looks_ahead: The engine has a queue of its own; without one the sum is at most `slots`, or
            the number of gateways.
    """
    if not demand:
        return {}
    total = capacity(slots) if looks_ahead else slots
    weights = {gateway: requests + 1 for gateway, requests in demand.items()}
    whole = sum(weights.values())
    shares = {gateway: total * weight // whole for gateway, weight in weights.items()}
    left = total - sum(shares.values())
    by_fraction = sorted(weights, key=lambda g: (-(total * weights[g] % whole), g))
    for gateway in by_fraction[:left]:
        shares[gateway] += 1
    return {gateway: max(1, share) for gateway, share in shares.items()}
