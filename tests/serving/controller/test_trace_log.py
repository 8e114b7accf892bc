"""Starts outlive the controller, and a database that is away for a while."""

import asyncio

import pytest

from models.errors import PenstockError
from serving.controller.store import Store
from serving.controller.tables import STARTS
from serving.controller.trace_log import TraceLog
from serving.controller.trace_rows import ROWS_KEPT, read_traces, write_traces
from serving.controller.traces import Trace, Traces
from serving.protocol import StartPhase
from tests.serving.controller.test_traces import engine, token


async def test_starts_are_there_again_for_the_next_controller(store: Store) -> None:
    traces = Traces()
    log = TraceLog(store, traces)
    traces.routed(engine("eng-1"))
    traces.failed(engine("eng-2"), "broken", 100.9)
    await log.flush()
    traces.first_token("guide", token("eng-1"))
    await log.flush()
    later = Traces()
    await TraceLog(store, later).restore()
    assert sorted(later.of("guide"), key=lambda t: t.engine_id) == traces.of("guide")


async def test_each_whole_start_is_exported_once(store: Store) -> None:
    traces, told = Traces(), list[Trace]()
    log = TraceLog(store, traces, told.append)
    traces.failed(engine("eng-1"), "broken", 100.9)
    await log.flush()
    await log.flush()
    assert [trace.engine_id for trace in told] == ["eng-1"]


async def test_stop_writes_what_is_left(store: Store) -> None:
    traces = Traces()
    stop = asyncio.Event()
    running = asyncio.create_task(TraceLog(store, traces).run(stop))
    traces.routed(engine("eng-1"))
    stop.set()
    await running
    assert [t.engine_id for t in await read_traces(store)] == ["eng-1"]


async def test_unwritten_starts_are_written_later(store: Store) -> None:
    traces = Traces()
    traces.routed(engine("eng-1"))
    async with store.transaction() as db:
        await db.run_sync(lambda sync: STARTS.drop(sync))
    with pytest.raises(PenstockError):
        await TraceLog(store, traces).flush()
    async with store.transaction() as db:
        await db.run_sync(lambda sync: STARTS.create(sync))
    await TraceLog(store, traces).flush()
    assert [t.engine_id for t in await read_traces(store)] == ["eng-1"]


async def test_oldest_starts_are_dropped(store: Store) -> None:
    many = [
        Trace(f"s-{n}", f"eng-{n}", "guide", 1, "h", "n", {StartPhase.BOUND: float(n)})
        for n in range(ROWS_KEPT + 3)
    ]
    await write_traces(store, many[:-1])
    await write_traces(store, many[-1:])
    kept = await read_traces(store)
    assert (len(kept), kept[0].engine_id, kept[-1].engine_id) == (
        ROWS_KEPT, "eng-3", f"eng-{ROWS_KEPT + 2}",
    )  # fmt: skip
