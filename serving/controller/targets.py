"""How many engines each model shall have now, and since when it lacks some."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from autoscaler.loop import Autoscaler
from autoscaler.snapshot import Decision, Memory, Reason, Snapshot, Spec
from serving.controller import sight
from serving.controller.capacities import Capacities
from serving.controller.decisions import Decisions
from serving.controller.demand import Demand
from serving.controller.fleet import Fleet
from serving.controller.guesses import guess_start_s
from serving.controller.moment import Moment
from serving.controller.observed_engine import Engine
from serving.controller.placement import Life, WantedModel
from serving.controller.registry import DeployedModel
from serving.controller.sight import Claim
from serving.controller.starts import Starts
from serving.controller.traces import Traces

NO_DEMAND = Demand()

START_READ_S = 5.0
"""How often a model's measured starts are looked at."""

Demands = Mapping[str, Demand] | None
"""The demand for each model; None where no gateway lives to tell."""


class Targets:
    """Asks the autoscaler, and remembers its answers."""

    def __init__(self, fleet: Fleet, traces: Traces) -> None:
        self.decisions = Decisions()
        self.capacities = Capacities()
        self.growable: dict[str, int] = {}
        """Hosts that each pool may still grow by."""
        self._fleet = fleet
        self._traces = traces
        self._autoscaler = Autoscaler()
        self._last: dict[str, Decision] = {}
        self._specs: dict[str, Spec] = {}
        self._lacking_since: dict[str, float] = {}
        self._starts_s: dict[str, tuple[float, float]] = {}

    def of(self, model: str) -> int:
        """Engines that the model shall have."""
        last = self._last.get(model)
        return 0 if last is None else last.target

    def all(self) -> dict[str, int]:
        """Engines that each model shall have."""
        return {model: last.target for model, last in self._last.items()}

    def last(self, model: str) -> Decision | None:
        """The last decision for a model."""
        return self._last.get(model)

    def lasts(self) -> Mapping[str, Decision]:
        """The last decision for each model."""
        return self._last

    def most(self) -> dict[str, int]:
        """Engines that each model may have at most at this hour."""
        return {model: spec.max for model, spec in self._specs.items()}

    def lacking_since(self, model: str, now: Moment) -> float:
        """When it was decided that the model needs engines that it has not, in Unix seconds."""
        return self._lacking_since.get(model, now.at)

    def found_running(self, model: str, now: Moment) -> None:
        """An engine of the model turned out to run already: it is kept for one idle time."""
        self._autoscaler.found_running(model, len(self._fleet.bound(model)), now.s)

    def gave_way(self, model: str) -> None:
        """An engine of the model was taken away: an idle model does not ask for it back."""
        left = len(self._fleet.bound(model))
        self._autoscaler.gave_way(model, left)
        if (last := self._last.get(model)) is not None:
            self._last[model] = replace(last, target=min(last.target, left))

    def memories(self) -> Mapping[str, Memory]:
        """What the policy carries from one decision to the next, for each model."""
        return self._autoscaler.memories()

    def restore(self, model: str, memory: Memory) -> None:
        """Takes over an earlier controller's memory of a model."""
        self._autoscaler.restore(model, memory)

    def decide(self, models: Iterable[DeployedModel], demands: Demands, now: Moment) -> None:
        """Makes the targets of all deployed models; others are forgotten."""
        models = list(models)
        lacking, last = self._lacking_since, self._last
        bound = self._fleet.bound_by_model()
        self._specs = {model.name: sight.spec_of(model, now.at) for model in models}
        claims = {m.name: self._claim(m, bound.get(m.name, [])) for m in models}
        self._last, self._lacking_since = {}, {}
        room = sight.rooms(claims, sight.count_free(self._fleet), self.growable)
        draining = sight.count_draining(self._fleet)
        for model in models:
            name, engines = model.name, bound.get(model.name, [])
            seen = sight.look(
                engines,
                draining[name],
                None if demands is None else demands.get(name, NO_DEMAND),
                room[name],
                self._start_s(model, now.s),
                self.capacities.of(model),
                now,
            )
            before = last[name].target if name in last else None
            decision = self._last[name] = self._decide(model, seen, before)
            self.decisions.note(name, now.at, before, decision, seen)
            if seen.ready + seen.starting < decision.target:
                self._lacking_since[name] = lacking.get(name, now.at)
        self.capacities.keep_only(engine.engine_id for engine in self._fleet.engines())
        self._autoscaler.keep_only(set(self._last))
        self.decisions.keep_only(set(self._last))

    def _decide(self, model: DeployedModel, seen: Snapshot, before: int | None) -> Decision:
        spec = self._specs[model.name]
        if not model.manifest.scaling.paused:
            return self._autoscaler.decide(model.name, seen, spec)
        if before is None:  # the controller has just begun: as many as there are
            before = self._autoscaler.target_of(model.name) or seen.ready + seen.starting
        held = max(0, min(max(before, spec.min), spec.max))
        decision = self._autoscaler.decide(model.name, seen, replace(spec, min=held, max=held))
        return replace(decision, reason=Reason.PAUSED)

    def _claim(self, model: DeployedModel, engines: list[Engine]) -> Claim:
        scaling = model.manifest.scaling
        live = sum(engine.life is not Life.DEAD for engine in engines)
        spare = max(0, live - self._specs[model.name].min)
        resources = model.manifest.resources
        return Claim(resources.pool, scaling.priority, spare, resources.hosts)

    def start_s(self, model: DeployedModel) -> float:
        """What a start of the model takes, a high quantile in seconds; a guess before the first."""
        return sight.cold_start_s(self._traces.of(model.name), guess_start_s(model.manifest))

    def _start_s(self, model: DeployedModel, now_s: float) -> float:
        read_s, found_s = self._starts_s.get(model.name, (float("-inf"), 0.0))
        if not read_s <= now_s < read_s + START_READ_S:
            found_s = self.start_s(model)
            self._starts_s[model.name] = now_s, found_s
        return found_s

    def wanted(self, model: DeployedModel, demands: Demands, starts: Starts) -> WantedModel:
        """The model as the binder takes it."""
        asked = None if demands is None else demands.get(model.name, NO_DEMAND)
        last = self._last[model.name]
        return WantedModel(
            name=model.name,
            revision=model.revision,
            pool=model.manifest.resources.pool,
            target=last.target,
            min=self._specs[model.name].min,
            priority=model.manifest.scaling.priority,
            same_engine=model.same_engine,
            asked_since_s=None if asked is None else asked.asked_since_s,
            idle_s=None if asked is None or asked.is_some else last.idle_s,
            retry_at_s=starts.retry_s,
            avoid=frozenset({starts.host_id}) if starts.failures else frozenset(),
        )
