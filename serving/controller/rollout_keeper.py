"""Brings old revisions back where a canary failed, and copies canaries to the store."""

import asyncio
import time

from sqlalchemy import delete, insert, select

from models.errors import PenstockError
from serving.background import set_within
from serving.controller.canary import Canary
from serving.controller.context import Controller
from serving.controller.database import DatabaseError
from serving.controller.rollout_tables import ROLLOUTS
from serving.controller.store import Store
from serving.logs import get_logger

INTERVAL_S = 0.25
STEP_AT_S = 10.0
"""How exactly the beginning of a step is stored: it moves on while no engine is ready."""
AUTHOR = "the canary's gate"

log = get_logger(__name__)


class RolloutKeeper:
    """What the loop's rollouts leave to somebody who may wait for the database."""

    def __init__(self, here: Controller) -> None:
        self._here = here
        self._rollouts = here.loop.rollouts
        self._written: dict[str, Canary] = {}

    async def restore(self) -> None:
        """Begins with what an earlier controller stored.

        Raises:
            DatabaseError: If the database does not answer.
        """
        found = await read_canaries(self._here.store)
        self._written = {canary.model: canary for canary in found}
        self._rollouts.restore(found)

    async def run(self, stop: asyncio.Event) -> None:
        """Works until it is stopped."""
        while not await set_within(stop, INTERVAL_S):
            try:
                await self._bring_back()
                await self._write()
            except DatabaseError as exc:
                log.warning("rollouts_not_written", error=str(exc))

    async def _bring_back(self) -> None:
        for canary, why in self._rollouts.leaving():
            model = self._here.registry.find(canary.model)
            manifest = None if model is None else model.manifest_of(canary.stable)
            if model is None or manifest is None or model.revision != canary.candidate:
                continue  # deployed anew, or deleted, meanwhile
            try:
                result = await self._here.registry.apply(
                    manifest, time.time(), if_revision=canary.candidate, author=AUTHOR
                )
            except PenstockError as exc:
                log.warning("not_rolled_back", model=canary.model, error=str(exc))
                continue
            self._here.events.record(
                "rolled_back",
                f"revision {result.revision} is revision {canary.stable} again: {why}",
                model=canary.model,
            )
            self._here.loop.changed(canary.model)

    async def _write(self) -> None:
        now = {name: stored_form(one) for name, one in self._rollouts.all().items()}
        if now == self._written:
            return
        await write_canaries(self._here.store, list(now.values()))
        self._written = now


def stored_form(canary: Canary) -> Canary:
    """What is stored: the figures of a step begin anew with each controller."""
    step_at = canary.step_at - canary.step_at % STEP_AT_S
    return Canary(
        canary.model, canary.stable, canary.candidate, canary.step, step_at, canary.paused
    )


async def read_canaries(store: Store) -> list[Canary]:
    """All canaries that are stored.

    Raises:
        DatabaseError: If the database does not answer.
    """
    async with store.transaction() as db:
        rows = (await db.execute(select(ROLLOUTS))).all()
    return [
        Canary(row.model, row.stable, row.candidate, row.step, row.step_at, row.paused)
        for row in rows
    ]


async def write_canaries(store: Store, canaries: list[Canary]) -> None:
    """Replaces all that are stored.

    Raises:
        DatabaseError: If the database does not answer.
    """
    async with store.transaction() as db:
        await db.execute(delete(ROLLOUTS))
        if canaries:
            await db.execute(
                insert(ROLLOUTS),
                [
                    {
                        "model": one.model, "stable": one.stable, "candidate": one.candidate,
                        "step": one.step, "step_at": one.step_at, "paused": one.paused,
                    }
                    for one in canaries
                ],
            )  # fmt: skip
