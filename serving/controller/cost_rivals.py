"""The same model on another accelerator: what the sizing planner says of it, against what runs.

Formulas on both sides, so that what they miss by cancels out for the most part. Reads the model's
config.json where it is at hand, as `guesses` does; fetches nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from autoscaler.capacity import Capacity
from models.config_json import read_architecture, weights_of
from models.errors import PenstockError
from models.hardware import HARDWARE, hardware_named
from models.manifest import Manifest
from models.precision import Precision
from models.roofline import Deployment
from models.sizing import Ask, plan
from serving.controller.guesses import config_of, formula_of
from serving.prices import Capacity as CapacityClass
from serving.prices import PriceBook

CHUNK_TOKENS = 8192
USUAL_CONTEXT = 8192


@dataclass(frozen=True, slots=True)
class Rival:
    """An engine of a model on another accelerator, against the present one."""

    accelerator: str
    gpus: int
    slots: int
    per_hour: int
    """Picodollars for one of these accelerators and hour, on demand."""
    now: Capacity
    then: Capacity

    @property
    def prefill_factor(self) -> float:
        """Prompt tokens a second, over the present engine's."""
        return self.then.prefill_tps / self.now.prefill_tps

    @property
    def step_factor(self) -> float:
        """Seconds of a step at half the slots, over the present engine's."""
        batch = self.slots / 2
        return self.then.token_s(batch) / self.now.token_s(batch)

    def work_factor(self, prompt: float, completion: float) -> float:
        """Engine seconds for requests of this kind, over the present engine's.

        Args:
            prompt: Tokens of a prompt.
            completion: Tokens of an answer.
        """
        batch = self.slots / 2

        def work_s(engine: Capacity) -> float:
            return prompt / engine.prefill_tps + completion * engine.token_s(batch)

        return work_s(self.then) / work_s(self.now)


def rivals(manifest: Manifest, book: PriceBook, at: float) -> list[Rival]:
    """The accelerators that have a price and can hold the model, each with its own parallel sizes.

    None for a model on a CPU, over several hosts, or of which nobody knows the shape.
    """
    resources = manifest.resources
    if resources.accelerator == "cpu" or resources.hosts > 1 or manifest.endpoints:
        return []
    try:
        return [*_rivals(manifest, book, at)]
    except (PenstockError, OSError, ArithmeticError):
        return []


def _rivals(manifest: Manifest, book: PriceBook, at: float) -> Iterator[Rival]:
    config = config_of(manifest)
    if config is None:
        return
    model, weights = read_architecture(config), weights_of(config)
    resources, slots = manifest.resources, manifest.engine.max_num_seqs
    context = manifest.engine.max_model_len or min(USUAL_CONTEXT, model.max_context)
    present = Deployment(
        model,
        hardware_named(resources.accelerator),
        weights,
        Precision.BF16,
        resources.tensor_parallel,
        resources.pipeline_parallel,
    )
    now = formula_of(present, slots, CHUNK_TOKENS)
    for hardware in HARDWARE:
        per_hour = book.gpu_hour(hardware.name, CapacityClass.ON_DEMAND, at)
        if hardware.is_cpu or hardware.name == resources.accelerator or per_hour is None:
            continue
        ask = Ask(manifest.name, model, hardware, weights, context=context, concurrency=slots)
        try:
            sized = plan(ask)
        except PenstockError:
            continue
        other = Deployment(
            model, hardware, weights, Precision.BF16, sized.tensor_parallel, sized.pipeline_parallel
        )
        if sized.devices > hardware.gpus_a_host:
            continue
        room = min(slots, sized.max_concurrency)
        then = formula_of(other, room, CHUNK_TOKENS)
        yield Rival(hardware.name, sized.devices, room, per_hour, now, then)
