"""How many engines each model shall have now, and since when it lacks some."""

from collections.abc import Iterable, Mapping

from autoscaler.loop import Autoscaler
from autoscaler.snapshot import Decision, Snapshot, Spec
from serving.controller.binder import Life, WantedModel
from serving.controller.decisions import Decisions
from serving.controller.demand import Demand
from serving.controller.moment import Moment
from serving.controller.observed import Fleet
from serving.controller.registry import DeployedModel
from serving.controller.starts import Starts

NO_DEMAND = Demand()

Demands = Mapping[str, Demand] | None
"""The demand for each model; None where no gateway lives to tell."""


class Targets:
    """Asks the autoscaler, and remembers its answers."""

    def __init__(self, fleet: Fleet) -> None:
        self.decisions = Decisions()
        self._fleet = fleet
        self._autoscaler = Autoscaler()
        self._targets: dict[str, int] = {}
        self._idle_s: dict[str, float] = {}
        self._lacking_since: dict[str, float] = {}

    def of(self, model: str) -> int:
        """Engines that the model shall have."""
        return self._targets.get(model, 0)

    def all(self) -> dict[str, int]:
        """Engines that each model shall have."""
        return dict(self._targets)

    def lacking_since(self, model: str, now: Moment) -> float:
        """When it was decided that the model needs engines that it has not, in Unix seconds."""
        return self._lacking_since.get(model, now.at)

    def found_running(self, model: str, now: Moment) -> None:
        """An engine of the model turned out to run already: it is kept for one idle time."""
        self._autoscaler.found_running(model, len(self._fleet.bound(model)), now.s)

    def gave_way(self, model: str) -> None:
        """An idle engine of the model was taken away: it does not ask for it back."""
        left = len(self._fleet.bound(model))
        self._autoscaler.gave_way(model, left)
        self._targets[model] = min(self.of(model), left)

    def decide(self, models: Iterable[DeployedModel], demands: Demands, now: Moment) -> None:
        """Makes the targets of all deployed models; others are forgotten."""
        before, targets_before = self._lacking_since, self._targets
        self._targets, self._idle_s, self._lacking_since = {}, {}, {}
        bound = self._fleet.bound_by_model()
        for model in models:
            lives = [engine.life for engine in bound.get(model.name, [])]
            decision, seen = self._decide(model, lives, demands, now)
            self._targets[model.name] = decision.target
            self.decisions.note(model.name, now.at, targets_before.get(model.name), decision, seen)
            if seen.ready + seen.starting < decision.target:
                self._lacking_since[model.name] = before.get(model.name, now.at)
        self._autoscaler.keep_only(set(self._targets))
        self.decisions.keep_only(set(self._targets))

    def _decide(
        self, model: DeployedModel, lives: list[Life], demands: Demands, now: Moment
    ) -> tuple[Decision, Snapshot]:
        asked = None if demands is None else demands.get(model.name, NO_DEMAND)
        seen = Snapshot(
            at_s=now.s,
            ready=lives.count(Life.READY),
            starting=lives.count(Life.STARTING),
            queued=None if asked is None else asked.queued,
            in_flight=None if asked is None else asked.in_flight,
            arrivals=0 if asked is None else asked.counts.arrivals,
        )
        scaling = model.manifest.scaling
        spec = Spec(min=scaling.min, max=scaling.max, idle_timeout_s=scaling.idle_timeout_s)
        decision = self._autoscaler.decide(model.name, seen, spec)
        self._idle_s[model.name] = decision.idle_s
        return decision, seen

    def wanted(self, model: DeployedModel, demands: Demands, starts: Starts) -> WantedModel:
        """The model as the binder takes it."""
        asked = None if demands is None else demands.get(model.name, NO_DEMAND)
        return WantedModel(
            name=model.name,
            revision=model.revision,
            pool=model.manifest.resources.pool,
            target=self.of(model.name),
            min=model.manifest.scaling.min,
            same_engine=model.same_engine,
            asked_since_s=None if asked is None else asked.asked_since_s,
            idle_s=None if asked is None or asked.is_some else self._idle_s[model.name],
            retry_at_s=starts.retry_s,
            avoid=frozenset({starts.host_id}) if starts.failures else frozenset(),
        )
