"""Checks recommendations of `penstock cost`: a model's recorded demand, replayed as advised."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from autoscaler.fleet import EngineModel
from autoscaler.rehearse import Recording, recording_of, rehearse
from autoscaler.simulate import Outcome
from models.errors import PenstockError
from models.scaling_spec import ScalingSpec
from serving.cli.client import AdminClient
from serving.cli.rehearsal import HOURS, USUAL_START_S, engine_of, hosts_of, spec_at
from serving.costs import Recommendation, Trial
from serving.money import picodollars, shown
from serving.views import ModelView

SLO_LOST = 0.001
"""Share of requests: who misses no more than this beside today's keeps the promise."""


def replays(admin: AdminClient, advice: Sequence[Recommendation]) -> Mapping[int, str]:
    """What the replay of each recommendation shows, by its number; of those that can be replayed.

    Raises:
        PenstockError: If the platform does not answer.
    """
    stages: dict[str, Stage | str] = {}
    told: dict[int, str] = {}
    for number, one in enumerate(advice):
        if one.trial is None or one.model is None:
            continue
        if one.model not in stages:
            stages[one.model] = _stage(admin, one.model)
        stage = stages[one.model]
        told[number] = stage if isinstance(stage, str) else stage.told(one.trial)
    return told


class Stage:
    """A model's demand and its engine, ready to be replayed; what was is replayed once."""

    def __init__(
        self,
        recording: Recording,
        model: ModelView,
        engine: EngineModel,
        starts_s: Sequence[float],
        places: int,
    ) -> None:
        self._recording = recording
        self._model = model
        self._engine = engine
        self._starts_s = starts_s
        self._places = places
        self._before = self._play(model.manifest.scaling, engine, places)

    def told(self, trial: Trial) -> str:
        """Plays a trial, and says what it changes."""
        scaling = self._model.manifest.scaling
        changed = {name: value for name in ("min", "idle_timeout_s")
                   if (value := getattr(trial, name)) is not None}  # fmt: skip
        engine = replace(
            self._engine,
            slots=trial.slots or self._engine.slots,
            prefill_tps=self._engine.prefill_tps * trial.prefill_factor,
            step_ms=self._engine.step_ms * trial.step_factor,
            step_ms_per_seq=self._engine.step_ms_per_seq * trial.step_factor,
        )
        before = self._before
        after = before
        if changed or engine != self._engine:
            after = self._play(scaling.model_copy(update=changed), engine, self._places)
        text = (
            f"{len(self._recording.trace)} requests of the last {HOURS:g} h: "
            f"{before.gpu_hours:.2f} engine-hours x {_dollars(trial.engine_hour)}/h = "
            f"{_cost(before, trial.engine_hour)} -> {after.gpu_hours:.2f} x "
            f"{_dollars(trial.engine_hour_then)}/h = {_cost(after, trial.engine_hour_then)}; SLO "
            f"met {before.attainment:.2%} -> {after.attainment:.2%}, cold hits "
            f"{before.cold_hits} -> {after.cold_hits}"
        )
        if trial.reclaimed:
            left = max(1, math.ceil(self._places * (1 - trial.reclaimed)))
            worst = self._play(scaling, engine, left)
            text += (
                f"; were all spot machines taken away at once and for good, {left} of "
                f"{self._places} hosts would meet {worst.attainment:.2%}"
            )
        return f"{text}; {_verdict(before, after, trial)}"

    def _play(self, scaling: ScalingSpec, engine: EngineModel, places: int) -> Outcome:
        most = min(places, scaling.most)
        return rehearse(
            self._recording, self._model.name, spec_at(scaling), engine, self._starts_s, most
        )


def _stage(admin: AdminClient, name: str) -> Stage | str:
    try:
        model = admin.model(name)
    except PenstockError as exc:
        return f"no: {exc}"
    recording = recording_of(name, admin.demand(name, HOURS).seconds)
    if recording is None:
        return f"no: nobody asked within {HOURS:g} h"
    capacity = admin.capacity(name)
    engine = engine_of(capacity, model.manifest)
    if engine is None:
        return "no: what an engine can do is not known yet"
    starts_s = capacity.starts_s or [USUAL_START_S]
    return Stage(recording, model, engine, starts_s, hosts_of(admin, model))


def _verdict(before: Outcome, after: Outcome, trial: Trial) -> str:
    cheaper = _amount(after, trial.engine_hour_then) < _amount(before, trial.engine_hour)
    if not cheaper:
        return "it saves nothing"
    kept = after.attainment >= before.attainment - SLO_LOST
    return "it saves, and keeps the SLO" if kept else "it saves at the SLO's expense"


def _amount(outcome: Outcome, per_hour: str) -> int:
    return int(picodollars(per_hour) * Decimal(str(outcome.gpu_hours)))


def _cost(outcome: Outcome, per_hour: str) -> str:
    return shown(_amount(outcome, per_hour))


def _dollars(amount: str) -> str:
    return shown(picodollars(amount))
