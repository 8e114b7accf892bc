"""Sets a controller up that shares its database with others: only where settings ask for it."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from models.errors import BadRequestError
from serving.controller.context import Controller
from serving.controller.events import EventLog
from serving.controller.identities import Identities
from serving.controller.leader_career import Career, Lead
from serving.controller.leader_lease import LeaseRow
from serving.controller.loop import ControlLoop
from serving.controller.registry import Limits, Registry
from serving.controller.scaling_log import ScalingLog
from serving.controller.store import Store
from serving.controller.telemetry import Telemetry
from serving.settings import ControllerSettings

ANY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104  # refused here, not bound


def turns_of(
    settings: ControllerSettings, lead: Lead, show: Callable[[Controller], None]
) -> Career:
    """The turns of standing by and leading of a controller with these settings.

    Raises:
        BadRequestError: If nobody could tell where this controller is.
    """
    lease_s = settings.leader_lease_s
    if lease_s is None:
        raise BadRequestError("a controller that is alone takes no turns")
    row = LeaseRow.at(settings.database_url, lease_s)
    return Career(row, own_url(settings), lease_s, functools.partial(reading, settings), lead, show)


def own_url(settings: ControllerSettings) -> str:
    """Where gateways and hosts reach this controller.

    Raises:
        BadRequestError: If the settings do not say so.
    """
    if settings.controller_advertise_url is not None:
        return settings.controller_advertise_url.rstrip("/")
    host, port = settings.controller_host, settings.controller_port
    if host in ANY_ADDRESS or not port:
        raise BadRequestError(
            "a controller beside others has to say where it is",
            param="PENSTOCK_CONTROLLER_ADVERTISE_URL",
            hint="set PENSTOCK_CONTROLLER_ADVERTISE_URL to its base URL, as http://10.0.0.7:8100",
        )
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def reading(settings: ControllerSettings) -> AsyncIterator[Controller]:
    """A standby's parts: the database, and who may ask; a loop that nobody runs."""
    store = await Store.open(settings.database_url)
    stop = asyncio.Event()
    following: asyncio.Task[None] | None = None
    try:
        registry = Registry(store, Limits(settings.pools, memory_gib=0.0))
        identities = Identities(store)
        await identities.refresh()
        events = EventLog(store)
        telemetry = Telemetry()
        loop = ControlLoop(settings, registry, events, telemetry)
        scaling = ScalingLog(
            store, registry, loop.targets, loop.recorded, profiles=settings.profiles_dir
        )
        following = asyncio.create_task(identities.run(stop))
        yield Controller(
            settings, store, registry, identities, events, telemetry, loop, scaling, standby=True
        )
    finally:
        stop.set()
        if following is not None:
            await asyncio.gather(following, return_exceptions=True)
        await store.close()
