"""New revisions beside old ones: which canaries are on their way, and what that means for the plan.

The binder knows models, not revisions: while a canary is on its way it sees two models, the old
revision under the model's own name and the new one under a label (`tracks`, `seen`, `real`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from models.rollout_spec import CanarySpec
from serving.controller.canary import DEATHS, Canary, Figures, Verdict, advance, engines
from serving.controller.events import EventLog
from serving.controller.placement import Bind, SeenHost, Unbind, WantedModel
from serving.controller.registry import DeployedModel
from serving.controller.starts import FAILED_AFTER, Starts
from serving.protocol import CanaryRoute, DemandReport

NEW = " new"
"""Marks the label of a new revision; no model's name has a space."""


class Rollouts:
    """The canaries of all models. Memory only; `RolloutKeeper` copies it to the store."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._canaries: dict[str, Canary] = {}
        self._held: dict[str, int] = {}  # revisions that replace an old one, and are paused
        self._why: dict[str, str] = {}
        self._leaving: dict[str, str] = {}  # why the new revision goes, until the old one is back
        self._revisions: dict[str, int] = {}  # as they were when last looked at
        self._at_once: dict[str, int] = {}  # revisions that take over without a canary
        self._models: dict[str, DeployedModel] = {}

    # --- what happens -------------------------------------------------------------------------

    def restore(self, canaries: Iterable[Canary]) -> None:
        """Goes on with an earlier controller's canaries; each begins its step anew.

        One whose two revisions are the same stands for a paused rollout without a canary.
        """
        for one in canaries:
            if one.stable == one.candidate:
                self._held[one.model] = one.candidate
            else:
                self._canaries[one.model] = one

    def skip(self, model: str, revision: int) -> None:
        """That revision, just deployed, takes over at once, whatever its manifest says."""
        self._at_once[model] = revision

    def hear(self, report: DemandReport) -> None:
        """A gateway tells how attempts ended."""
        for demand in report.models:
            canary = self._canaries.get(demand.model)
            model = self._models.get(demand.model)
            if canary is None or model is None:
                continue
            news = model.same_as(canary.candidate)
            for counts in demand.revisions:
                canary = canary.heard(counts.revision in news, counts)
            self._canaries[demand.model] = canary

    def died(self, name: str, revision: int) -> None:
        """An engine died that had been ready."""
        canary, model = self._canaries.get(name), self._models.get(name)
        if canary is not None and model is not None:
            is_new = revision in model.same_as(canary.candidate)
            self._canaries[name] = canary.died(is_new)

    def follow(
        self, models: Iterable[DeployedModel], running: Mapping[str, set[int]], now: float
    ) -> None:
        """Begins and ends canaries as revisions are deployed.

        Args:
            models: All that are deployed.
            running: The revisions of each model's engines.
            now: Unix seconds.
        """
        self._models = {model.name: model for model in models}
        for name in self._canaries.keys() - self._models.keys():
            del self._canaries[name]
            self._leaving.pop(name, None)
        for name, model in self._models.items():
            if self._revisions.get(name) != model.revision:
                before = self._before(model, running.get(name, set()))
                self._deployed(model, before, now)
                self._revisions[name] = model.revision
        self._revisions = {name: self._revisions[name] for name in self._models}
        self._held = {
            name: self._models[name].revision
            for name, held in self._held.items()
            if name in self._models and self._models[name].has_engine_of(held)
        }
        self._at_once = {n: at for n, at in self._at_once.items() if n in self._models}

    def step(
        self, starts: Callable[[str], Starts], ready: Mapping[str, set[int]], now: float
    ) -> None:
        """Judges all canaries.

        Args:
            starts: Tells how a model's last starts went.
            ready: The revisions of each model's ready engines.
            now: Unix seconds.
        """
        for name, canary in list(self._canaries.items()):
            if name in self._leaving:
                continue
            spec = self._spec(name)
            mine = ready.get(name, set()) & self._models[name].same_as(canary.candidate)
            went = starts(name)
            if went.failures >= FAILED_AFTER and not mine:
                self._leave(canary, f"its engine does not start: {went.why}")
                continue
            if not mine:
                canary = replace(canary, step_at=now, old=Figures(), new=Figures())
                self._canaries[name] = canary
                self._why[name] = "no engine of the new revision is ready yet"
                if canary.new_deaths < DEATHS:
                    continue
            after, verdict, why = advance(canary, spec, now)
            self._why[name] = why
            match verdict:
                case Verdict.ROLLED_BACK:
                    self._leave(canary, why)
                case Verdict.PROMOTED:
                    del self._canaries[name]
                    self._tell("promoted", canary, f"takes everything: {why}")
                case Verdict.GROWS:
                    self._canaries[name] = after
                    self._tell("grown", after, f"gets {after.share(spec):.0%}: {why}")
                case Verdict.STAYS:
                    self._canaries[name] = after

    def can_pause(self, model: str, paused: bool, *, replaces: int | None = None) -> bool:
        """Whether `pause` would find a rollout to hold, or to let go on."""
        if model in self._canaries:
            return True
        return replaces is not None if paused else model in self._held

    def pause(self, model: str, paused: bool, *, replaces: int | None = None) -> bool:
        """Holds a rollout where it is, or lets it go on; False where there is none.

        Args:
            replaces: The revision whose engines take the place of older ones now, if one does.
        """
        if (canary := self._canaries.get(model)) is not None:
            canary = self._canaries[model] = replace(canary, paused=paused)
        elif paused and replaces is not None:
            canary = Canary(model, replaces, replaces)
            self._held[model] = replaces
        elif not paused and model in self._held:
            canary = Canary(model, self._held[model], self._held.pop(model))
        else:
            return False
        self._tell("paused" if paused else "resumed", canary, "stays where it is" if paused else
                   "goes on")  # fmt: skip
        return True

    def is_held(self, model: str) -> bool:
        """Whether its rollout, without a canary, is paused."""
        return model in self._held

    # --- what follows -------------------------------------------------------------------------

    def of(self, model: str) -> Canary | None:
        """The model's canary."""
        return self._canaries.get(model)

    def all(self) -> dict[str, Canary]:
        """All canaries, by model, and what stands for paused rollouts; see `restore`."""
        held = {name: Canary(name, at, at, paused=True) for name, at in self._held.items()}
        return held | self._canaries

    def why(self, model: str) -> str:
        """How its canary stands, in a sentence."""
        return self._leaving.get(model) or self._why.get(model, "")

    def leaving(self) -> list[tuple[Canary, str]]:
        """Canaries whose old revision has to be brought back, and why."""
        return [(self._canaries[name], why) for name, why in self._leaving.items()]

    def share(self, model: str) -> float:
        """Share of the requests for the new revision; 1 where there is no canary."""
        canary = self._canaries.get(model)
        if canary is None:
            return 1.0
        return 0.0 if model in self._leaving else canary.share(self._spec(model))

    def route(self, model: DeployedModel) -> CanaryRoute | None:
        """What gateways are told."""
        canary = self._canaries.get(model.name)
        if canary is None:
            return None
        return CanaryRoute(
            revisions=tuple(sorted(model.same_as(canary.candidate))),
            share=self.share(model.name),
            sticky=self._spec(model.name).sticky,
        )

    def tracks(self, model: DeployedModel, wanted: WantedModel) -> list[WantedModel]:
        """The model as the binder takes it: twice while a canary is on its way.

        The new revision takes free hosts and those of idle models: nobody waits for a trial.
        """
        replaces = model.manifest.rollout.no_room == "replace"
        canary = self._canaries.get(model.name)
        if canary is None and model.name in self._held:  # engines of any revision will do
            return [replace(wanted, same_engine=frozenset(model.alike), replaces=replaces)]
        if canary is None:
            return [replace(wanted, replaces=replaces)]
        old, new = engines(wanted.target, canary.share(self._spec(model.name)))
        gone = model.name in self._leaving
        return [
            replace(
                wanted,
                revision=canary.stable,
                same_engine=model.same_as(canary.stable),
                target=wanted.target if gone else old,
                retry_at_s=None,
            ),
            replace(
                wanted,
                name=model.name + NEW,
                revision=canary.candidate,
                same_engine=model.same_as(canary.candidate),
                target=0 if gone else new,
                min=0,
                asked_since_s=None,
                trial_of=model.name,
            ),
        ]

    def seen(self, host: SeenHost) -> SeenHost:
        """The host as the binder sees it."""
        engine = host.engine
        if engine is None or (canary := self._canaries.get(engine.model)) is None:
            return host
        model = self._models[engine.model]
        if engine.revision not in model.same_as(canary.candidate):
            return host
        return replace(host, engine=replace(engine, model=engine.model + NEW))

    # --- inside -------------------------------------------------------------------------------

    def _before(self, model: DeployedModel, running: set[int]) -> int | None:
        """The revision that served before: as last looked at; after a start, as engines show."""
        if (seen := self._revisions.get(model.name)) is not None:
            return seen
        older = running - model.same_as(model.revision)
        return max(older, default=None)

    def _deployed(self, model: DeployedModel, before: int | None, now: float) -> None:
        name, spec = model.name, model.manifest.rollout.canary
        canary = self._canaries.get(name)
        stable = before if canary is None else canary.stable
        at_once = self._at_once.pop(name, None) == model.revision
        if canary is not None and model.has_engine_of(canary.candidate) and spec is not None:
            self._canaries[name] = replace(canary, candidate=model.revision)
            return
        self._canaries.pop(name, None)
        self._leaving.pop(name, None)
        if spec is None or at_once or stable is None or model.has_engine_of(stable):
            return
        begun = Canary(name, stable, model.revision, step_at=now)
        self._canaries[name] = begun
        share = begun.share(spec)
        self._tell("begun", begun, f"gets {share:.0%} of the requests, once its engine is ready")

    def _leave(self, canary: Canary, why: str) -> None:
        self._leaving[canary.model] = why
        self._tell("rolled_back", canary, f"gives way to revision {canary.stable}: {why}")

    def _tell(self, what: str, canary: Canary, said: str) -> None:
        self._events.record(
            f"rollout_{what}", f"revision {canary.candidate} {said}", model=canary.model
        )

    def _spec(self, name: str) -> CanarySpec:
        return self._models[name].manifest.rollout.canary or CanarySpec()


def real(name: str) -> str:
    """The model behind a label of the plan."""
    return name.removesuffix(NEW)


def unlabelled(action: Bind | Unbind) -> Bind | Unbind:
    """The action with its model's own name."""
    return replace(action, model=real(action.model))
