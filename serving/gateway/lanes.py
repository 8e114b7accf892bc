"""The lanes of all models in the routing table."""

from collections.abc import Iterator

from models.adapters_spec import split_name
from models.errors import UnavailableError
from serving.gateway.lane import Alarm, Lane
from serving.gateway.places import LaneLimits, not_found
from serving.gateway.quarantine import Quarantine
from serving.gateway.verdicts import Verdicts
from serving.protocol import ModelRoute, RoutesDelta


class Lanes:
    """All models of the routing table, each with its lane."""

    def __init__(self, limits: LaneLimits, alarm: Alarm) -> None:
        self._limits = limits
        self.quarantine = Quarantine()
        self.verdicts = Verdicts()
        self._alarm = alarm
        self._lanes: dict[str, Lane] = {}
        self.version = 0
        self.loaded = False

    def __iter__(self) -> Iterator[Lane]:
        """All lanes, those of deleted models that still have work included."""
        return iter(list(self._lanes.values()))

    def get(self, model: str) -> Lane:
        """The lane of a model, awake or not; `model:adapter` is the model's.

        Raises:
            ModelNotFoundError: If it is not deployed, or has no such adapter.
            UnavailableError: If no routing table is there yet.
        """
        if not self.loaded:
            raise UnavailableError("the gateway is starting and knows no models yet")
        name, adapter = split_name(model)
        lane = self._lanes.get(name)
        if lane is None or lane.retired or (name != model and not lane.has(adapter)):
            raise not_found(model)
        return lane

    def routes(self) -> list[ModelRoute]:
        """The models that are deployed, by name."""
        live = (lane.route for lane in self._lanes.values() if not lane.retired)
        return sorted(live, key=lambda route: route.name)

    def apply(self, delta: RoutesDelta) -> None:
        """Takes over a change of the routing table."""
        named = {route.name for route in delta.models}
        gone = set(self._lanes) - named if delta.full else set(delta.removed) - named
        for name in gone & set(self._lanes):
            self._lanes[name].retire()
        for route in delta.models:
            if (lane := self._lanes.get(route.name)) is not None:
                lane.update(route)
            else:
                self._lanes[route.name] = Lane(route, self._limits, self._alarm)
        self.version = delta.version
        self.loaded = self.loaded or delta.full

    def grant(self, leases: dict[str, int]) -> None:
        """Takes over slot leases, and uses them at once."""
        for lane in self._lanes.values():
            lane.balancer.grant(leases)
            lane.pump()

    def forget_idle_retired(self) -> None:
        """Drops lanes of deleted models whose last request is over."""
        for name, lane in list(self._lanes.items()):
            if lane.retired and not lane.balancer.in_flight():
                del self._lanes[name]

    def snapshot(self) -> RoutesDelta:
        """The whole table, as it is kept on disk."""
        return RoutesDelta(version=self.version, full=True, models=tuple(self.routes()))
