"""A controller beside others: stands by, leads when the lease is free, stands by again.

A standby reads the database and writes nothing; the leader is the same controller as one that is
alone, but that each of its writes, its steps and its answers asks whether it still leads.
"""

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from serving.background import set_within
from serving.controller.context import Controller
from serving.controller.database import DatabaseError
from serving.controller.leader import POLL_S, Take, Tenure, Wait, decide
from serving.controller.leader_fence import nobody
from serving.controller.leader_lease import LeaseRow
from serving.controller.leader_term import Term, ever_s
from serving.logs import get_logger

SHORTEST_S = 0.01
"""Between two looks at the lease."""

RETRY_S = 0.2
"""Between two tries to renew a lease while the database does not answer."""

STEP_DOWN_S = 40.0
"""A leader whose parts do not end within this time is ended as a process: longer than the longest
statement of the database."""

log = get_logger(__name__)

Lead = Callable[[Term], AbstractAsyncContextManager[Controller]]
StandBy = Callable[[], AbstractAsyncContextManager[Controller]]


class Career:
    """Turns of standing by and leading, until it is closed.

    Args:
        row: The lease.
        url: Where gateways and hosts reach this controller.
        lease_s: How long a lease runs.
        stand_by: Opens a controller that only reads.
        lead: Opens one that leads.
        show: Told of each controller as it begins to serve.
    """

    def __init__(
        self,
        row: LeaseRow,
        url: str,
        lease_s: float,
        stand_by: StandBy,
        lead: Lead,
        show: Callable[[Controller], None],
    ) -> None:
        self.name = f"controller-{uuid.uuid4().hex[:12]}"
        self.leader_url: str | None = None
        self.serving: Controller | None = None
        self.standing = asyncio.Event()
        """Set once it serves, as a standby at first."""
        self._row = row
        self._url = url
        self._lease_s = lease_s
        self._stand_by = stand_by
        self._lead = lead
        self._show = show
        self._term: Term | None = None
        self._stop = asyncio.Event()

    def leads(self) -> bool:
        """Whether this controller may act at this moment."""
        return self._term is not None and self._term.leads()

    def stop(self) -> None:
        """Has `run` end in good order; cancelled amid a query it would leave a thread behind."""
        self._stop.set()
        if self._term is not None:
            self._term.over.set()

    async def run(self) -> None:
        """Stands by and leads in turns until it is stopped; awaits a database that is away."""
        async with contextlib.aclosing(self._row), self._stand_by() as standby:
            standby.store.guard(nobody)
            while not self._stop.is_set():
                self._serve(standby)
                self.standing.set()
                try:
                    if (tenure := await self._wait_for_lease()) is not None:
                        await self._lead_for(Term(tenure))
                except DatabaseError as exc:
                    log.warning("database_awaited", error=str(exc))
                    await set_within(self._stop, POLL_S)

    def _serve(self, controller: Controller) -> None:
        self.serving = controller
        self._show(controller)

    async def _wait_for_lease(self) -> Tenure | None:
        """The lease, once it is this controller's; None where it was stopped before."""
        while not self._stop.is_set():
            lease, now = await self._row.look()
            self.leader_url = lease.url if lease.runs(now) else None
            match decide(lease, now):
                case Wait(seconds):
                    await set_within(self._stop, max(SHORTEST_S, seconds))
                case Take(seen):
                    asked_s = ever_s()
                    token = await self._row.take(seen, self.name, self._url, self._lease_s)
                    if token is not None:
                        return Tenure(token, self._lease_s, asked_s)
        return None

    async def _lead_for(self, term: Term) -> None:
        """Leads until the term is over, and gives back what is left of the lease."""
        log.info("leads", token=term.tenure.token, holder=self.name)
        ended = asyncio.Event()
        renewal = asyncio.create_task(self._renew(term, ended))
        end: asyncio.TimerHandle | None = None
        try:
            async with self._lead(term) as controller:
                self._serve(controller)
                self._term, self.leader_url = term, self._url
                if not self._stop.is_set():
                    await term.over.wait()
                self._term = self.leader_url = None  # who leads now is looked up next
                log.warning("leads_no_longer", token=term.tenure.token, holder=self.name)
                end = asyncio.get_running_loop().call_later(STEP_DOWN_S, _end_process)
        finally:
            self._term = None
            if end is not None:
                end.cancel()
            ended.set()
            await renewal
            with contextlib.suppress(DatabaseError):
                await self._row.give_back(term.tenure.token)

    async def _renew(self, term: Term, ended: asyncio.Event) -> None:
        """Renews until the term is over: the lease is another's, or ran out for want of an answer.

        It is not mended then. Hosts and gateways were not heard meanwhile: whoever leads next, be
        it this controller, begins as one that has just started, and adopts what runs.
        """
        wait_s = term.tenure.renew_every_s
        while term.leads():
            if await set_within(ended, wait_s):
                return
            asked_s = ever_s()
            try:
                if not await self._row.renew(term.tenure.token, self._lease_s):
                    term.over.set()
                elif term.leads():
                    term.renewed(asked_s)
                wait_s = term.tenure.renew_every_s
            except DatabaseError as exc:
                log.warning("lease_not_renewed", error=str(exc))
                wait_s = RETRY_S


def _end_process() -> None:
    log.critical("step_down_took_too_long", after_s=STEP_DOWN_S)
    os._exit(1)


@asynccontextmanager
async def pursued(career: Career) -> AsyncIterator[None]:
    """Runs a career meanwhile; begins when it serves.

    Raises:
        PenstockError: If it cannot even stand by.
    """

    def note_death(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (exc := task.exception()) is not None and career.serving:
            log.critical("career_died", exc_info=exc)
            career.serving.broken = True

    task = asyncio.create_task(career.run())
    task.add_done_callback(note_death)
    begun = asyncio.create_task(career.standing.wait())
    try:
        await asyncio.wait({task, begun}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield
    finally:
        begun.cancel()
        career.stop()
        await asyncio.gather(task, begun, return_exceptions=True)
