"""Which arguments a tuning run tries, for a manifest. Pure: no clock, and a seed for what is drawn.

Nothing here changes what a model answers: formats of weights and cache, and speculative decoding,
which refuses some sampling parameters, are for the operator to choose.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from models.manifest import EngineArgument, Goal, Manifest
from models.profile import SLOTS, settings_of
from serving.tuning.trials import Settings

Space = Mapping[str, Sequence[EngineArgument]]

CPU: Space = {
    SLOTS: (64, 16, 128, 8),
    "stream_interval": (4, 8, 2),
    "max_num_batched_tokens": (1024, 4096, 512),
    "async_scheduling": (False, True),
    "enable_prefix_caching": (False, True),
}
GPU: Space = {
    SLOTS: (512, 256, 1024, 128, 64),
    "max_num_batched_tokens": (16384, 8192, 4096, 2048, 32768),
    "stream_interval": (8, 2, 16),
    "max_cudagraph_capture_size": (1024, 512, 256),
    "async_scheduling": (True, False),
    "enable_prefix_caching": (True, False),
    "performance_mode": ("interactivity",),
}
DRAWN = 200
"""Combinations that are drawn at most beyond the single changes."""


def space_of(manifest: Manifest) -> Space:
    """The arguments worth trying on its hardware."""
    found = dict(CPU if manifest.resources.accelerator == "cpu" else GPU)
    if manifest.resources.pipeline_parallel > 1:
        found.pop("async_scheduling", None)  # vLLM refuses it with stages
    if manifest.resources.tensor_parallel > 1 and manifest.resources.accelerator != "cpu":
        found["enable_expert_parallel"] = (True,)  # a dense model's trial fails, and says so
    return found


def candidates(manifest: Manifest, goal: Goal, seed: int) -> list[Settings]:
    """What is tried beside the defaults, the most promising first, nothing twice.

    First what the profile of the goal says, then each single change, then drawn combinations.
    """
    space = space_of(manifest)
    found: list[Settings] = []
    for settings in _in_order(manifest, goal, space, seed):
        real = without_defaults(manifest, settings)
        if real and real not in found and _is_possible(manifest, real):
            found.append(real)
    return found


def _in_order(manifest: Manifest, goal: Goal, space: Space, seed: int) -> Iterator[Settings]:
    bare = manifest.model_copy(
        update={"profile": goal, "engine": type(manifest.engine)(args=_kept(manifest))}
    )
    yield {name: one.value for name, one in settings_of(bare).items() if one.value is not None}
    for values in zip_longest(*space.values()):
        for name, value in zip(space, values, strict=True):
            if value is not None:
                yield {name: value}
    source = random.Random(seed)  # noqa: S311, not for secrets
    for _ in range(DRAWN):
        drawn = {name: source.choice([None, *values]) for name, values in space.items()}
        yield {name: value for name, value in drawn.items() if value is not None}


def _kept(manifest: Manifest) -> dict[str, EngineArgument]:
    return {name: value for name, value in manifest.engine.args.items() if name == "runner"}


def without_defaults(manifest: Manifest, settings: Settings) -> Settings:
    """The settings without those that the manifest has in any case."""
    now = {**manifest.engine.args, SLOTS: manifest.engine.max_num_seqs}
    return {name: value for name, value in sorted(settings.items()) if now.get(name) != value}


def _is_possible(manifest: Manifest, settings: Settings) -> bool:
    batched = settings.get("max_num_batched_tokens")
    slots = settings.get(SLOTS, manifest.engine.max_num_seqs)
    return not isinstance(batched, int) or not isinstance(slots, int) or batched >= slots


def combined(parts: Sequence[Settings]) -> Settings:
    """Several single changes at once; of two for the same argument the first counts."""
    found: Settings = {}
    for part in parts:
        found = {**part, **found}
    return dict(sorted(found.items()))


def applied(manifest: Manifest, settings: Settings) -> Manifest:
    """The manifest with the settings in place of its own.

    Raises:
        ValidationError: If a value is none that a manifest may have.
    """
    args = dict(settings)
    engine = manifest.engine.model_dump(mode="json", exclude_unset=True)
    if SLOTS in args:
        engine[SLOTS] = args.pop(SLOTS)
    engine["args"] = {**manifest.engine.args, **args}
    document = manifest.model_dump(mode="json", exclude_unset=True) | {"engine": engine}
    return Manifest.model_validate(document)
