"""Turns a search's outcome into a measured profile. Pure."""

from collections.abc import Mapping, Sequence

from models.manifest import Manifest
from models.profile_measured import Choice, Level, Measured, Step, plain_source
from serving.tuning.halving import Outcome, Wish
from serving.tuning.scoring import pareto
from serving.tuning.space import applied
from serving.tuning.trials import Figures, Reading, Settings, Trial

LEAST_STEP_SHARE = 0.2
"""Of TPOT, that a step takes at least once the prompts beside it are taken off."""


def profile_of(
    outcome: Outcome,
    manifest: Manifest,
    wish: Wish,
    *,
    lengths: tuple[int, int],
    hardware: str,
    vllm: str,
    day: str,
) -> Measured:
    """The measured profile of what was found.

    Args:
        lengths: Tokens of a prompt and of an answer, as they were asked for.
        hardware: The device or machine by its own name.
        vllm: Version of the engine.
        day: As 2026-11-22.
    """
    figures = _longest(outcome.trials, outcome.best)
    good = [trial for trial in outcome.trials if trial.figures is not None]
    front = pareto(
        (level, trial.settings) for trial in good if trial.figures for level in trial.figures.levels
    )
    slots = applied(manifest, outcome.best).engine.max_num_seqs
    prefill = figures.prefill_tokens_s or 0.0
    return Measured(
        model=manifest.name,
        source=plain_source(manifest.source),
        goal=wish.goal,
        pool=manifest.resources.pool,
        tensor_parallel=manifest.resources.tensor_parallel,
        pipeline_parallel=manifest.resources.pipeline_parallel,
        hardware=hardware,
        vllm=vllm,
        measured_at=day,
        slo=dict(wish.slo),
        settings=outcome.best,
        slots=slots,
        prompt_tokens=lengths[0],
        answer_tokens=lengths[1],
        levels=tuple(_level(reading) for reading in _ordered(figures.levels)),
        pareto=tuple(
            Choice(**_level(reading).model_dump(), settings=settings) for reading, settings in front
        ),
        steps=_steps(figures, lengths, prefill, slots),
        prefill_tokens_s=round(prefill, 1),
        paired=outcome.paired,
        trials=len(outcome.trials),
        failed_trials=len(outcome.trials) - len(good),
    )


def _longest(trials: Sequence[Trial], settings: Settings) -> Figures:
    """Of the trials with these settings the figures of the one that measured longest."""
    made = [t for t in trials if t.settings == settings and t.figures is not None]
    found = max(made, key=lambda trial: trial.rounds).figures
    if found is None:  # cannot be: a search whose best has no figures raises
        raise ValueError("the best settings have no figures")
    return found


def _ordered(levels: Sequence[Reading]) -> list[Reading]:
    by_concurrency: Mapping[int, Reading] = {level.concurrency: level for level in levels}
    return [by_concurrency[concurrency] for concurrency in sorted(by_concurrency)]


def _level(reading: Reading) -> Level:
    return Level(
        concurrency=reading.concurrency,
        output_tokens_s=round(reading.output_rate or 0.0, 2),
        ttft_p99_s=round(reading.ttft_p99 or 0.0, 6),
        tpot_p50_s=round(reading.tpot_p50 or 0.0, 6),
        tpot_p99_s=round(reading.tpot_p99 or 0.0, 6),
    )


def _steps(
    figures: Figures, lengths: tuple[int, int], prefill_tps: float, slots: int
) -> tuple[Step, ...]:
    """Step time over batch size: what a token takes, less the prompts that came in meanwhile.

    Visitors beyond the slots wait, and are no part of a batch. In a closed loop of b visitors,
    `prompt / answer` prompts' tokens come in for each token of each sequence, and share its step.
    """
    prompt, answer = lengths
    steps = []
    readings = _ordered(figures.levels)
    within = [level for level in readings if level.concurrency <= slots]
    for level in within or readings[:1]:
        took_s = level.tpot_p50 or 0.0
        beside_s = level.concurrency * prompt / answer / prefill_tps
        step_s = max(took_s - beside_s, LEAST_STEP_SHARE * took_s)
        steps.append(Step(batch=min(level.concurrency, slots), step_s=round(step_s, 7)))
    return tuple(steps)
