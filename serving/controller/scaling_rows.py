"""The autoscaler's rows: written as batches, read at the controller's start and for `explain`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import and_, delete, func, insert, select

from autoscaler.learning import Steps
from autoscaler.snapshot import Decision, Memory, Snapshot
from serving.controller.capacities import Kind
from serving.controller.decisions import TargetChange
from serving.controller.recorded import DemandSecond
from serving.controller.scaling_tables import CAPACITIES, DECISIONS, DEMAND, MEMORIES
from serving.controller.store import Store

DECISIONS_KEPT = 500
"""Of each model; a row takes about 1.5 KiB."""
DEMAND_KEPT_S = 3 * 86_400
"""Of each model, at most one row a second; a row takes about 50 bytes."""

RowT = TypeVar("RowT")

_DECISION = TypeAdapter(Decision)
_SNAPSHOT = TypeAdapter(Snapshot)
_MEMORY = TypeAdapter(Memory)
_STEPS = TypeAdapter(Steps)


# --- decisions --------------------------------------------------------------------------------


async def add_decisions(store: Store, changes: Sequence[tuple[str, TargetChange]]) -> None:
    """Appends changes of targets; of each model the newest DECISIONS_KEPT stay.

    Raises:
        DatabaseError: If the database does not answer.
    """
    if not changes:
        return
    rows = [
        {
            "model": model,
            "at": change.at,
            "before": change.before,
            # Python's own JSON: it keeps what is infinite or no number.
            "decision": json.dumps(asdict(change.decision)),
            "seen": json.dumps(asdict(change.seen)),
        }
        for model, change in changes
    ]
    async with store.transaction() as db:
        await db.execute(insert(DECISIONS), rows)
        for model in {model for model, _ in changes}:
            mine = DECISIONS.c.model == model
            oldest = (
                select(DECISIONS.c.id)
                .where(mine)
                .order_by(DECISIONS.c.id.desc())
                .offset(DECISIONS_KEPT)
                .limit(1)
            )
            if (last := (await db.execute(oldest)).scalar_one_or_none()) is not None:
                await db.execute(delete(DECISIONS).where(and_(mine, DECISIONS.c.id <= last)))


async def read_decisions(store: Store, model: str, limit: int) -> list[TargetChange]:
    """A model's newest changes, oldest first; a row of another version that says too little is
    left out.

    Raises:
        DatabaseError: If the database does not answer.
    """
    newest = (
        select(DECISIONS)
        .where(DECISIONS.c.model == model)
        .order_by(DECISIONS.c.id.desc())
        .limit(limit)
    )
    async with store.transaction() as db:
        rows = (await db.execute(newest)).all()
    found = []
    for row in reversed(rows):
        decision, seen = _parsed(_DECISION, row.decision), _parsed(_SNAPSHOT, row.seen)
        if decision is not None and seen is not None:
            found.append(TargetChange(row.at, row.before, decision, seen))
    return found


# --- memories and capacities ------------------------------------------------------------------


async def put_memories(store: Store, memories: Mapping[str, Memory], at: float) -> None:
    """Stores memories whose times count from the moment `at`, in Unix seconds.

    Raises:
        DatabaseError: If the database does not answer.
    """
    if not memories:
        return
    rows = [
        {"model": model, "at": at, "memory": json.dumps(asdict(memory))}
        for model, memory in memories.items()
    ]
    async with store.transaction() as db:
        await db.execute(delete(MEMORIES).where(MEMORIES.c.model.in_(list(memories))))
        await db.execute(insert(MEMORIES), rows)


async def read_memories(store: Store) -> dict[str, tuple[float, Memory]]:
    """The memory of each model, and the moment from which its times count.

    Raises:
        DatabaseError: If the database does not answer.
    """
    async with store.transaction() as db:
        rows = (await db.execute(select(MEMORIES))).all()
    found = {row.model: (row.at, _parsed(_MEMORY, row.memory)) for row in rows}
    return {model: (at, memory) for model, (at, memory) in found.items() if memory is not None}


async def put_capacities(
    store: Store, learned: Mapping[Kind, tuple[int, Steps]], at: float
) -> None:
    """Stores what was learned of kinds of engines: their slots and the sums of their steps.

    Raises:
        DatabaseError: If the database does not answer.
    """
    if not learned:
        return
    async with store.transaction() as db:
        for kind, (slots, steps) in learned.items():
            same = and_(
                CAPACITIES.c.model == kind.model,
                CAPACITIES.c.revision == kind.revision,
                CAPACITIES.c.pool == kind.pool,
            )
            await db.execute(delete(CAPACITIES).where(same))
            await db.execute(
                insert(CAPACITIES).values(
                    **asdict(kind), at=at, slots=slots, steps=json.dumps(asdict(steps))
                )
            )


async def read_capacities(store: Store) -> dict[Kind, tuple[int, Steps]]:
    """What was learned of all kinds of engines.

    Raises:
        DatabaseError: If the database does not answer.
    """
    async with store.transaction() as db:
        rows = (await db.execute(select(CAPACITIES))).all()
    found = {}
    for row in rows:
        steps = _parsed(_STEPS, row.steps)
        if steps is not None:
            found[Kind(row.model, row.revision, row.pool)] = row.slots, steps
    return found


# --- demand -----------------------------------------------------------------------------------


async def add_demand(store: Store, seconds: Sequence[DemandSecond], now_at: float) -> None:
    """Appends what came in, and drops what is older than DEMAND_KEPT_S.

    A second that is there already (a controller that was restarted within it) is added to.

    Raises:
        DatabaseError: If the database does not answer.
    """
    if not seconds:
        return
    async with store.transaction() as db:
        rows = {(second.model, second.at): asdict(second) for second in seconds}
        first, last = seconds[0].at, seconds[-1].at
        there = select(DEMAND).where(DEMAND.c.at.between(first, last))
        for row in (await db.execute(there)).mappings():
            key = row["model"], row["at"]
            if key in rows:
                for name in ("arrivals", "prompt_tokens", "finished", "output_tokens"):
                    rows[key][name] += row[name]
                await db.execute(
                    delete(DEMAND).where(and_(DEMAND.c.model == key[0], DEMAND.c.at == key[1]))
                )
        await db.execute(insert(DEMAND), list(rows.values()))
        await db.execute(delete(DEMAND).where(DEMAND.c.at < int(now_at) - DEMAND_KEPT_S))


async def read_demand(store: Store, model: str, since_at: float) -> list[DemandSecond]:
    """What came in for a model since a moment, oldest first.

    Raises:
        DatabaseError: If the database does not answer.
    """
    query = (
        select(DEMAND)
        .where(and_(DEMAND.c.model == model, DEMAND.c.at >= int(since_at)))
        .order_by(DEMAND.c.at)
    )
    async with store.transaction() as db:
        rows = (await db.execute(query)).mappings().all()
    return [DemandSecond(**row) for row in rows]


async def forget_models(store: Store, kept: Iterable[str]) -> None:
    """Drops the memories of models that are not deployed any more.

    Raises:
        DatabaseError: If the database does not answer.
    """
    names = list(kept)
    async with store.transaction() as db:
        count = (await db.execute(select(func.count()).select_from(MEMORIES))).scalar_one()
        if count > len(names):
            await db.execute(delete(MEMORIES).where(MEMORIES.c.model.not_in(names)))


def _parsed(adapter: TypeAdapter[RowT], text: str) -> RowT | None:
    try:
        return adapter.validate_python(json.loads(text))
    except (ValidationError, ValueError):
        return None
