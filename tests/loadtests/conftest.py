"""A fake engine that runs inside the test, over loopback."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from loadtests.fake.batching import BatchingTimeline, Shape
from loadtests.fake.faults import parse_fault
from loadtests.fake.server import FakeEngine, Identity
from loadtests.fake.timeline import Schedule, ScheduledTimeline

FAST = Shape(step_s=0.001, step_per_seq_s=0.0, prefill_tps=1e6)


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Starts fake engines; gives back their base URLs."""
    engines: list[FakeEngine] = []

    async def start_engine(
        shape: Shape = FAST, *, faults: tuple[str, ...] = (), schedule: Schedule | None = None,
        **identity: object,
    ) -> str:  # fmt: skip
        timeline = ScheduledTimeline(schedule) if schedule else BatchingTimeline(shape)
        engine = FakeEngine(
            Identity(**identity), timeline, tuple(parse_fault(fault) for fault in faults)
        )
        engines.append(engine)
        return f"http://127.0.0.1:{await engine.listen('127.0.0.1', 0)}"

    yield start_engine
    for engine in engines:
        await engine.close()
