"""Measured profiles: what `penstock tune` found on one machine, read before any formula.

    FOLDER/MODEL-POOL-GOAL.yaml     one profile each; a later tuning run replaces it

A profile counts only for the model, the hardware and the vLLM that it was measured with; one of
another machine or version is left aside, with a warning.
"""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, model_validator

from models.manifest import EngineArgument, Goal, Name
from models.profile import read_file
from models.strict import Strict

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Level(Strict):
    """What was measured with so many requests at once."""

    concurrency: int = Field(ge=1)
    output_tokens_s: Positive
    ttft_p99_s: Positive
    tpot_p50_s: Positive
    tpot_p99_s: Positive


class Choice(Level):
    """A level on the front, and the arguments that it took."""

    settings: dict[str, EngineArgument] = Field(default_factory=dict)


class Step(Strict):
    """A decode step."""

    batch: int = Field(ge=1)
    step_s: Positive


class Paired(Strict):
    """The found arguments against the defaults, in pairs of runs; 95 % interval of the ratio."""

    pairs: int = Field(ge=1)
    ratio: Positive
    """Above 1: the found ones are better."""
    low: Positive
    high: Positive


class Measured(Strict):
    """One measured profile."""

    apiVersion: Literal["penstock/v1"] = "penstock/v1"
    kind: Literal["MeasuredProfile"] = "MeasuredProfile"
    model: Name
    source: str
    """Where the weights are from, without a revision."""
    goal: Goal
    pool: str
    """As `cpu` or `h200x2`."""
    tensor_parallel: int = Field(default=1, ge=1)
    pipeline_parallel: int = Field(default=1, ge=1)
    hardware: str = Field(min_length=1)
    """The machine or device by its own name."""
    vllm: str = Field(min_length=1)
    measured_at: str
    """Day, as 2026-11-22."""
    slo: dict[str, Positive]
    """What the best arguments had to keep, as `ttft_p99: 2`."""
    settings: dict[str, EngineArgument]
    """The best engine arguments; empty where the defaults were."""
    slots: int = Field(ge=1)
    """Sequences that an engine with them runs at once; what exceeds them waits."""
    prompt_tokens: int = Field(ge=1)
    answer_tokens: int = Field(ge=1)
    levels: tuple[Level, ...] = Field(min_length=1)
    """All that was measured with the best arguments, by concurrency."""
    pareto: tuple[Choice, ...] = Field(min_length=1)
    """Tokens/s against TPOT over all arguments that were tried: none is better in both."""
    steps: tuple[Step, ...] = Field(min_length=1)
    """Step time over batch size."""
    prefill_tokens_s: Positive
    paired: Paired | None = None
    trials: int = Field(ge=1)
    failed_trials: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        for name, values in (
            ("levels", [level.concurrency for level in self.levels]),
            ("steps", [step.batch for step in self.steps]),
        ):
            if any(later <= earlier for earlier, later in pairwise(values)):
                raise ValueError(f"{name} must be in order, each once")
        return self

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return (
            f"{self.model} for {self.goal} on {self.hardware}, vLLM {self.vllm}, {self.measured_at}"
        )

    def fits(self, tensor_parallel: int, pipeline_parallel: int) -> bool:
        """Whether it was measured with these parallel sizes."""
        return (self.tensor_parallel, self.pipeline_parallel) == (
            tensor_parallel,
            pipeline_parallel,
        )

    @property
    def line(self) -> tuple[float, float]:
        """Seconds of a step, and what each further sequence adds: least squares, never below 0."""
        n = len(self.steps)
        mean_b = sum(step.batch for step in self.steps) / n
        mean_s = sum(step.step_s for step in self.steps) / n
        spread = sum((step.batch - mean_b) ** 2 for step in self.steps)
        slope = 0.0
        if spread > 0:
            both = sum((step.batch - mean_b) * (step.step_s - mean_s) for step in self.steps)
            slope = min(max(both / spread, 0.0), mean_s / mean_b)
        return mean_s - slope * mean_b, slope

    def step_s(self, batch: float) -> float:
        """Seconds of a decode step: between measured batches on a line, beyond by `line`."""
        points = self.steps
        if batch <= points[0].batch:
            return points[0].step_s
        for low, high in pairwise(points):
            if batch <= high.batch:
                share = (batch - low.batch) / (high.batch - low.batch)
                return low.step_s + share * (high.step_s - low.step_s)
        return points[-1].step_s + self.line[1] * (batch - points[-1].batch)

    def tokens_s(self, batch: int, prompt: float, answer: float) -> float:
        """Answer tokens/s with so many sequences, their prompts taken in beside."""
        batch = min(batch, self.slots)
        return answer / (prompt / self.prefill_tokens_s + answer * self.step_s(batch) / batch)

    @property
    def error_factor(self) -> float:
        """By what factor `tokens_s` is off at the levels that were measured, at worst."""
        worst = 1.0
        for level in self.levels:
            predicted = self.tokens_s(level.concurrency, self.prompt_tokens, self.answer_tokens)
            ratio = predicted / level.output_tokens_s
            worst = max(worst, ratio, 1 / ratio)
        return worst


def load_measured(path: Path) -> Measured:
    """Reads one measured profile.

    Raises:
        ProfileError: If it cannot be read, or has figures that are none.
    """
    return read_file(path, Measured)


def write_measured(folder: Path, profile: Measured) -> Path:
    """Writes a profile to its place in the folder, whole or not at all; returns the path.

    Raises:
        OSError: If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{profile.model}-{profile.pool}-{profile.goal}.yaml"
    text = yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False, width=100)
    beside = path.with_suffix(".tmp")
    beside.write_text(text, "utf-8")
    beside.replace(path)
    return path


def plain_source(source: str) -> str:
    """A source without its revision."""
    return source.partition("@")[0]
