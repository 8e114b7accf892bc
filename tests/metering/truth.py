"""What must be true afterwards: our tables against what tenants and engines counted themselves."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from serving.controller import usage_queries
from serving.controller.store import Store
from serving.controller.usage_queries import Span
from serving.controller.usage_store import UsageStore
from serving.controller.usage_tables import ATTEMPTS, USAGE, USAGE_HOURS
from serving.identities import TokenPrice
from serving.money import per_token
from serving.prices import charge
from serving.usage_views import ReconcileView
from tests.metering.client import Try
from tests.metering.platform import PRICE


@dataclass(frozen=True)
class Stored:
    """Our tables."""

    usage: dict[str, Any]
    attempts: dict[str, Any]
    hours: tuple[int, int, int]  # requests, prompt, completion
    charged: int  # picodollars, by the hours
    reconciled: ReconcileView


async def read(database_url: str) -> Stored:
    """All that was stored, after what can be resolved is resolved."""
    store = await Store.open(database_url)
    try:
        usage = UsageStore(store, "bill")
        while await usage.resolve():
            pass
        await usage.share(0.0)
        sums = [func.coalesce(func.sum(USAGE_HOURS.c[n]), 0) for n in
                ("requests", "prompt", "completion", "charged")]  # fmt: skip
        async with store.transaction() as db:
            rows = (await db.execute(select(USAGE))).all()
            attempts = (await db.execute(select(ATTEMPTS))).all()
            hours = (await db.execute(select(*sums))).one()
        reconciled = await usage_queries.reconcile(store, Span(0, 2e12))
    finally:
        await store.close()
    return Stored(
        {row.usage_id: row for row in rows},
        {row.attempt_id: row for row in attempts},
        (int(hours[0]), int(hours[1]), int(hours[2])),
        int(hours[3]),
        reconciled,
    )


def tallies(folder: Path) -> dict[str, tuple[int, int]]:
    """Of each attempt that a fake engine worked on: prompt and completion, by its own count."""
    prompts: dict[str, int] = {}
    made: Counter[str] = Counter()
    for path in folder.glob("host*/*.tally"):
        for line in path.read_text().splitlines():
            mark, attempt_id, *prompt = line.split()
            if mark == "+":
                prompts[attempt_id] = int(prompt[0])
            else:
                made[attempt_id] += 1
    return {attempt_id: (prompt, made[attempt_id]) for attempt_id, prompt in prompts.items()}


def faults(
    stored: Stored, tries: list[Try], tally: dict[str, tuple[int, int]], at_deaths: int
) -> list[str]:
    """Every way in which the tables are not what was counted beside them; empty where all is true.

    Args:
        stored: Our tables.
        tries: What tenants saw.
        tally: What fake engines counted.
        at_deaths: Requests that gateways may not have settled when these were killed.
    """
    return [
        *_served_faults(tries),
        *_attempt_faults(stored, tally),
        *_complete_faults(stored, tries),
        *_empty_faults(stored, tries),
        *_partial_faults(stored, tries),
        *_sum_faults(stored, at_deaths),
        *_charge_faults(stored),
        *_share_faults(stored),
    ]


def _served_faults(tries: list[Try]) -> list[str]:
    """A run in which hardly anybody was served shows nothing.

    A fifth of the tenants leave early. Tries that found a gateway dead say nothing: they are the
    more, the longer it takes to start.
    """
    complete, left = sum(one.complete for one in tries), sum(one.left for one in tries)
    if complete > left:
        return []
    statuses = dict(Counter(one.status for one in tries if not one.complete and not one.left))
    return [f"only {complete} answers, and {left} left early; the rest by status: {statuses}"]


def _attempt_faults(stored: Stored, tally: dict[str, tuple[int, int]]) -> list[str]:
    found = []
    for attempt_id, (prompt, completion) in tally.items():
        row = stored.attempts.get(attempt_id)
        if row is None:
            found.append(f"attempt {attempt_id} of the engine's tally is not stored")
        # An engine that was killed between its recorder and its tally may be one ahead.
        elif row.prompt != prompt or row.completion - completion not in (
            (0, 1) if row.outcome == "died" else (0,)
        ):
            found.append(f"attempt {attempt_id}: stored {row.prompt, row.completion}, "
                         f"tally {prompt, completion}")  # fmt: skip
    for attempt_id, row in stored.attempts.items():
        if row.usage_id not in stored.usage:
            found.append(f"attempt {attempt_id} belongs to no usage")
    return found


def _complete_faults(stored: Stored, tries: list[Try]) -> list[str]:
    found = []
    complete = [one for one in tries if one.complete]
    if len({one.usage_id for one in complete}) != len(complete):
        found.append("two answers bear one usage_id")
    for one in complete:
        row = stored.usage.get(one.usage_id)
        if row is None:
            found.append(f"complete answer {one.usage_id} is not billed")
        elif row.completion != one.got or (one.told is not None and row.prompt != one.prompt):
            found.append(f"complete answer {one.usage_id}: billed {row.prompt, row.completion} as "
                         f"{row.status}, got {one.prompt, one.got}")  # fmt: skip
    return found


def _empty_faults(stored: Stored, tries: list[Try]) -> list[str]:
    """Who is billed got bytes, or left by itself, or is unknown."""
    answered = {one.usage_id for one in tries if one.usage_id}
    left = sum(one.left and not one.usage_id for one in tries)
    billed = {
        usage_id
        for usage_id, row in stored.usage.items()
        if row.prompt + row.completion > 0 and row.status != "unknown"
    }
    silent = billed - answered
    if len(silent) > left:
        return [f"{len(silent)} are billed though nobody got a byte, and only {left} had left"]
    cancelled = sum(stored.usage[usage_id].status == "cancelled" for usage_id in silent)
    done = len(silent) - cancelled
    return [f"{done} answers that nobody saw are billed"] if done > left else []


def _partial_faults(stored: Stored, tries: list[Try]) -> list[str]:
    found = []
    for one in tries:
        if one.complete or not one.usage_id:
            continue
        row = stored.usage.get(one.usage_id)
        attempt = stored.attempts.get(row.attempt_id) if row is not None else None
        if row is None or attempt is None:
            found.append(f"partial answer {one.usage_id} has no row or no attempt")
        elif not one.parts <= row.completion <= attempt.completion:
            found.append(f"partial answer {one.usage_id}: got {one.parts}, billed {row.completion} "
                         f"as {row.status}, made {attempt.completion}")  # fmt: skip
    return found


def _sum_faults(stored: Stored, at_deaths: int) -> list[str]:
    found = []
    unknown = sum(row.status == "unknown" for row in stored.usage.values())
    if unknown > at_deaths:
        found.append(f"{unknown} unknown, but {at_deaths} unsettled at the gateways' deaths")
    rows = stored.usage.values()
    summed = (len(rows), sum(r.prompt for r in rows), sum(r.completion for r in rows))
    if summed != stored.hours:
        found.append(f"the hours' sums are {stored.hours}, the rows' {summed}")
    seen = stored.reconciled
    if seen.attempts_without_usage or seen.usage_without_attempt or seen.unresolved:
        found.append(f"reconcile: {seen!r}")
    if seen.lost_attempts:
        found.append(f"recorders lost {seen.lost_attempts} attempts")
    found += [
        f"{drift.between}: {drift.kind} {drift.left} and {drift.right}"
        for drift in seen.drifts
        if drift.tokens and drift.between == "usage and attempts"
    ]
    return found


def _charge_faults(stored: Stored) -> list[str]:
    """Each request is charged by the price book, and the hours hold the same money."""
    tokens = {name: per_token(PRICE[name]) for name in ("input", "cached", "output")}
    price = TokenPrice(price_id="p", model="*", **tokens)
    found = [
        f"request {row.usage_id} is charged {row.price}, should be {owed}"
        for row in stored.usage.values()
        if row.price != (owed := charge(price, row.prompt, row.cached, row.completion))
    ]
    summed = sum(row.price or 0 for row in stored.usage.values())
    if summed != stored.charged:
        found.append(f"the hours' charges are {stored.charged}, the rows' {summed}")
    return found


def _share_faults(stored: Stored) -> list[str]:
    """Each request has the shares of its attempts; those of an engine fit into its life."""
    found = []
    shares: defaultdict[str, float] = defaultdict(float)
    engines: defaultdict[str, list[Any]] = defaultdict(list)
    for row in stored.attempts.values():
        if row.share_s is None:
            found.append(f"attempt {row.attempt_id} has no share")
        shares[row.usage_id] += row.share_s or 0.0
        engines[row.engine_id].append(row)
    for usage_id, share_s in shares.items():
        seen = stored.usage[usage_id].engine_share_s if usage_id in stored.usage else share_s
        if seen is None or abs(seen - share_s) > 1e-6:
            found.append(f"request {usage_id} has a share of {seen} s, its attempts {share_s} s")
    for engine_id, rows in engines.items():
        # Beside wall clocks, which say when an attempt that died was last seen, within a second.
        life_s = max(row.ended_at for row in rows) - min(row.started_at for row in rows) + 1.0
        if (had_s := sum(row.share_s or 0.0 for row in rows)) > life_s:
            found.append(f"attempts had {had_s:.3f} s of {engine_id}, which lived {life_s:.3f} s")
    return found
