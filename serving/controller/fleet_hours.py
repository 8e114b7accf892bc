"""Counts what accelerators are used for, by the hour: what the platform's own bill is made of."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import and_, insert, select, update

from serving.background import set_within
from serving.controller.database import DatabaseError
from serving.controller.fleet_tables import FLEET_HOURS
from serving.controller.moment import Moment, now
from serving.controller.observed_host import Host
from serving.controller.store import Store
from serving.logs import get_logger
from serving.prices import Capacity

LOOK_S = 1.0
WRITE_S = 10.0
GAP_S = 10.0
"""A longer pause between two looks is not counted: nobody knows what was."""

HOUR_S = 3600

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Use:
    """What one host is used for at a moment."""

    host_id: str
    accelerator: str
    accelerators: int
    capacity: Capacity
    model: str  # empty: it has no engine
    busy: bool


@dataclass(frozen=True, slots=True)
class Row:
    """An hour of one kind of accelerators and one model."""

    hour: int
    accelerator: str
    capacity: Capacity
    model: str
    held_ms: int
    busy_ms: int
    sleeps: int = 0


Key = tuple[int, str, Capacity, str]


class FleetMeter:
    """Adds up uses over time. Pure: moments are arguments."""

    def __init__(self) -> None:
        self._at_s: float | None = None
        self._models: dict[str, str] = {}
        self._sums: defaultdict[Key, list[int]] = defaultdict(lambda: [0, 0, 0])

    def observe(self, uses: Iterable[Use], moment: Moment) -> None:
        """What was since the last look is taken to have been as it is now."""
        passed_s = 0.0 if self._at_s is None else moment.s - self._at_s
        self._at_s = moment.s
        passed_ms = round(passed_s * 1000) if 0 < passed_s <= GAP_S else 0
        hour = int(moment.at // HOUR_S)
        models: dict[str, str] = {}
        for use in uses:
            models[use.host_id] = use.model
            sums = self._sums[hour, use.accelerator, use.capacity, use.model]
            sums[0] += passed_ms * use.accelerators
            sums[1] += passed_ms * use.accelerators * use.busy
            before = self._models.get(use.host_id, "")
            if before and before != use.model:
                self._sums[hour, use.accelerator, use.capacity, before][2] += 1
        self._models = models

    def take(self) -> list[Row]:
        """What was added up since the last call."""
        taken, self._sums = self._sums, defaultdict(lambda: [0, 0, 0])
        return [Row(*key, *sums) for key, sums in taken.items() if any(sums)]

    def put_back(self, rows: Iterable[Row]) -> None:
        """Takes rows back that could not be stored."""
        for row in rows:
            sums = self._sums[row.hour, row.accelerator, row.capacity, row.model]
            for i, value in enumerate((row.held_ms, row.busy_ms, row.sleeps)):
                sums[i] += value


class FleetHours:
    """The rows, and the task that adds to them."""

    def __init__(self, store: Store, look: Callable[[], list[Use]]) -> None:
        self._store = store
        self._look = look
        self._meter = FleetMeter()

    async def run(self, stop: asyncio.Event) -> None:
        """Counts until it is stopped, and stores what is left."""
        written_s = now().s
        while not await set_within(stop, LOOK_S):
            moment = now()
            self._meter.observe(self._look(), moment)
            if moment.s - written_s >= WRITE_S:
                written_s = moment.s
                await self.write()
        await self.write()

    async def write(self) -> None:
        """Stores what was counted; kept for the next time where that is not possible."""
        rows = self._meter.take()
        try:
            await add_rows(self._store, rows)
        except DatabaseError as exc:
            self._meter.put_back(rows)
            log.warning("fleet_hours_not_written", error=str(exc), pending=len(rows))


async def add_rows(store: Store, rows: Iterable[Row]) -> None:
    """Adds to what is stored of each hour.

    Raises:
        DatabaseError: If the database does not answer; nothing is added then.
    """
    table = FLEET_HOURS.c
    async with store.transaction() as db:
        for row in rows:
            here = and_(
                table.hour == row.hour,
                table.accelerator == row.accelerator,
                table.capacity == row.capacity.value,
                table.model == row.model,
            )
            done = await db.execute(
                update(FLEET_HOURS)
                .where(here)
                .values(
                    held_ms=table.held_ms + row.held_ms,
                    busy_ms=table.busy_ms + row.busy_ms,
                    sleeps=table.sleeps + row.sleeps,
                )
            )
            if not done.rowcount:
                await db.execute(
                    insert(FLEET_HOURS).values(
                        hour=row.hour,
                        accelerator=row.accelerator,
                        capacity=row.capacity.value,
                        model=row.model,
                        held_ms=row.held_ms,
                        busy_ms=row.busy_ms,
                        sleeps=row.sleeps,
                    )
                )


async def read_rows(store: Store, first_hour: int, end_hour: int) -> list[Row]:
    """The rows of these hours.

    Raises:
        DatabaseError: If the database does not answer.
    """
    hours = and_(FLEET_HOURS.c.hour >= first_hour, FLEET_HOURS.c.hour < end_hour)
    async with store.transaction() as db:
        rows = (await db.execute(select(FLEET_HOURS).where(hours))).all()
    return [
        Row(
            hour=row.hour,
            accelerator=row.accelerator,
            capacity=Capacity(row.capacity),
            model=row.model,
            held_ms=row.held_ms,
            busy_ms=row.busy_ms,
            sleeps=row.sleeps,
        )
        for row in rows
    ]


def shape_of(pool: str) -> tuple[str, int]:
    """Accelerator and their number in a host, from its pool's name: `h200x8`, `cpu`."""
    name, _, number = pool.rpartition("x")
    return (name, int(number)) if name and number.isdecimal() else (pool, 1)


def uses_of(
    hosts: Iterable[Host], in_flight: Mapping[str, int], capacities: Mapping[str, Capacity]
) -> list[Use]:
    """What hosts are used for; an engine that drains or sleeps is still its model's.

    Args:
        hosts: All that live.
        in_flight: Requests that run, by the engine that they run under.
        capacities: How the machines of a pool are rented; on demand where it is not said.
    """
    uses = []
    for host in hosts:
        accelerator, number = shape_of(host.pool)
        capacity = capacities.get(host.pool, Capacity.ON_DEMAND)
        engine = host.holder
        model = "" if engine is None else engine.model
        busy = engine is not None and in_flight.get(engine.served_by, 0) > 0
        uses.append(Use(host.host_id, accelerator, number, capacity, model, busy))
    return uses
