"""The rows of the starts that are kept: a copy of `traces`, from which a controller begins."""

from collections.abc import Sequence

from pydantic import TypeAdapter
from sqlalchemy import delete, insert, select

from serving.controller.store import Store
from serving.controller.tables import STARTS
from serving.controller.traces import Trace
from serving.protocol import StartPhase

ROWS_KEPT = 2000
"""Of all models together; a row takes about half a KiB."""

_MARKS = TypeAdapter(dict[str, float])


async def read_traces(store: Store) -> list[Trace]:
    """The newest ROWS_KEPT starts, oldest first.

    Raises:
        DatabaseError: If the database does not answer.
    """
    newest = select(STARTS).order_by(STARTS.c.began_at.desc()).limit(ROWS_KEPT)
    async with store.transaction() as db:
        rows = (await db.execute(newest)).all()
    return [
        Trace(
            start_id=row.start_id,
            engine_id=row.engine_id,
            model=row.model,
            revision=row.revision,
            host_id=row.host_id,
            node=row.node,
            marks=_read_marks(row.marks),
            waited_s=row.waited_s,
            failed_at=row.failed_at,
            error=row.error,
            hint=row.hint,
        )
        for row in reversed(rows)
    ]


async def write_traces(store: Store, traces: Sequence[Trace]) -> None:
    """Stores starts, in the place of what was known of them, and drops the oldest beyond ROWS_KEPT.

    Raises:
        DatabaseError: If the database does not answer.
    """
    if not traces:
        return
    too_old = select(STARTS.c.began_at).order_by(STARTS.c.began_at.desc()).offset(ROWS_KEPT)
    async with store.transaction() as db:
        known = [trace.engine_id for trace in traces]
        await db.execute(delete(STARTS).where(STARTS.c.engine_id.in_(known)))
        await db.execute(insert(STARTS), [_row(trace) for trace in traces])
        oldest = (await db.execute(too_old.limit(1))).scalar_one_or_none()
        if oldest is not None:
            await db.execute(delete(STARTS).where(STARTS.c.began_at <= oldest))


def _read_marks(text: str) -> dict[StartPhase, float]:
    """Without the phases that only a newer version knows, which was here before us."""
    known = set(StartPhase)
    return {StartPhase(p): at for p, at in _MARKS.validate_json(text).items() if p in known}


def _row(trace: Trace) -> dict[str, object]:
    return {
        "engine_id": trace.engine_id,
        "start_id": trace.start_id,
        "model": trace.model,
        "revision": trace.revision,
        "host_id": trace.host_id,
        "node": trace.node,
        "began_at": min(trace.marks.values(), default=trace.failed_at or 0.0),
        "marks": _MARKS.dump_json({phase.value: at for phase, at in trace.marks.items()}).decode(),
        "waited_s": trace.waited_s,
        "failed_at": trace.failed_at,
        "error": trace.error,
        "hint": trace.hint,
    }
