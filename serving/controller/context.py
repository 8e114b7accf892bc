"""What the handlers of one controller share."""

from dataclasses import dataclass, field

from fastapi import Request

from serving.controller.events import EventLog
from serving.controller.identities import Identities
from serving.controller.loop import ControlLoop
from serving.controller.registry import Registry
from serving.controller.scaling_log import ScalingLog
from serving.controller.share_keeper import ShareKeeper
from serving.controller.store import Store
from serving.controller.telemetry import Telemetry
from serving.controller.usage_store import UsageStore
from serving.settings import ControllerSettings


@dataclass(slots=True)
class Controller:
    """The parts of a running controller; `app` wires them."""

    settings: ControllerSettings
    store: Store
    registry: Registry
    identities: Identities
    events: EventLog
    telemetry: Telemetry
    loop: ControlLoop
    scaling: ScalingLog
    closing: bool = False
    """Long polls are answered at once: the process is about to end."""
    broken: bool = False
    """A background task died: the process has to be restarted."""
    standby: bool = False
    """It only reads the database; another controller leads."""

    shares: ShareKeeper = field(init=False)

    def __post_init__(self) -> None:
        self.shares = ShareKeeper(self.store, self.identities)

    @property
    def usage(self) -> UsageStore:
        """What tenants used."""
        return UsageStore(self.store, self.settings.unknown_usage)

    def close_polls(self) -> None:
        """Answers all long polls, now and from now on: the process is about to end."""
        self.closing = True
        self.loop.routes.changes.wake()
        self.identities.changes.wake()
        for host in self.loop.fleet:
            host.changes.wake()


def controller_of(request: Request) -> Controller:
    """The controller that serves the request."""
    controller: Controller = request.app.state.controller
    return controller
