"""Tuned profiles: the vLLM arguments that matter, by model, hardware and goal, each with a reason.

A manifest that says `profile: throughput` takes its engine arguments from here wherever it gives
none of its own. The files are `profiles/common.yaml`, for all models, and one for each model of
the catalog; each is a list of layers, and of two layers that fit the later one counts. What
`penstock tune` measures is another thing: see `models.profile_measured`.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Literal, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from models.catalog import Entry, Task, entries
from models.errors import BadRequestError
from models.faults import faults_of
from models.manifest import EngineArgument, EngineSpec, Goal, Manifest, Name
from models.strict import Strict

FOLDER = Path(__file__).parent / "profiles"
COMMON = "common"
SLOTS = "max_num_seqs"
"""The one setting that is a field of the manifest; all others are `engine.args`."""

FileT = TypeVar("FileT", bound=Strict)


class ProfileError(BadRequestError):
    """A file of profiles that cannot be accepted."""

    code = "invalid_profile"


class Mark(StrEnum):
    """How a value was come by."""

    MEASURED = "measured"
    PUBLISHED = "published"
    ESTIMATED = "estimated"


class Setting(Strict):
    """One argument of the engine."""

    value: EngineArgument | None
    """Null takes back what an earlier layer says."""
    why: str = Field(min_length=12)
    """The reason, for the operator."""
    mark: Mark = Mark.ESTIMATED
    """How the value was come by."""
    source: str | None = None
    """Where it was published, or what it was measured on."""

    @model_validator(mode="after")
    def _names_its_source(self) -> Self:
        if self.mark is not Mark.ESTIMATED and not self.source:
            raise ValueError(f"a {self.mark} value needs a source")
        return self


class Layer(Strict):
    """Settings, and what they are for; what is left empty is for all."""

    goals: tuple[Goal, ...] = ()
    accelerators: tuple[str, ...] = ()
    """Accelerators or pools of them: `h200` or `h200x8`."""
    tasks: tuple[Task, ...] = ()
    settings: dict[str, Setting] = Field(min_length=1)
    """By vLLM's long name without dashes."""

    @model_validator(mode="after")
    def _sets_what_a_manifest_may_set(self) -> Self:
        values = {name: setting.value for name, setting in self.settings.items()}
        slots = values.pop(SLOTS, None)
        if slots is not None and not isinstance(slots, int):
            raise ValueError(f"{SLOTS} must be a whole number")
        EngineSpec(args={name: value for name, value in values.items() if value is not None})
        return self

    def fits(self, goal: Goal, task: Task, pools: Iterable[str]) -> bool:
        """Whether it is for a goal, a task and one of the names of a pool."""
        return (
            (not self.goals or goal in self.goals)
            and (not self.tasks or task in self.tasks)
            and (not self.accelerators or not set(self.accelerators).isdisjoint(pools))
        )


class Profiles(Strict):
    """One file."""

    apiVersion: Literal["penstock/v1"]
    kind: Literal["Profiles"]
    model: Name | None = None
    """Name in the catalog; none: for all models."""
    layers: tuple[Layer, ...] = Field(min_length=1)


def read_file(path: Path, kind: type[FileT]) -> FileT:
    """Reads a YAML file of profiles of some kind.

    Raises:
        ProfileError: If it cannot be read, or is none of that kind; names the field.
    """
    try:
        return kind.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise ProfileError(f"{path} cannot be read as YAML") from exc
    except ValidationError as exc:
        raise ProfileError(f"{path}: {faults_of(exc)[0].named('file')}") from exc


def load_profiles(path: Path) -> Profiles:
    """Reads one file.

    Raises:
        ProfileError: If it cannot be read, or is no file of profiles; names the field.
    """
    found = read_file(path, Profiles)
    if found.model != (None if path.stem == COMMON else path.stem):
        raise ProfileError(f"{path} is for {found.model!r}; the file must have that name")
    return found


@cache
def _layers(model: str | None) -> tuple[Layer, ...]:
    common = load_profiles(FOLDER / f"{COMMON}.yaml").layers
    own = FOLDER / f"{model}.yaml"
    if model is None or not own.exists():
        return common
    return common + load_profiles(own).layers


def settings_for(
    goal: Goal, accelerator: str, pool: str, task: Task = Task.CHAT, model: str | None = None
) -> Mapping[str, Setting]:
    """What a profile sets, by the argument's name.

    Args:
        goal: What the engine shall be good at.
        accelerator: As `h200`.
        pool: As `h200x8`.
        task: What the model is asked for.
        model: Its name in the catalog; none: what holds for all models.

    Raises:
        ProfileError: If a file is broken.
    """
    found: dict[str, Setting] = {}
    for layer in _layers(model):
        if layer.fits(goal, task, (accelerator, pool)):
            found |= layer.settings
    return {name: setting for name, setting in found.items() if setting.value is not None}


def entry_of(source: str) -> Entry | None:
    """The catalog's entry that has this source in one of its variants, whatever its revision."""
    plain = source.partition("@")[0]
    for entry in entries():
        sources = (entry.source, *(variant.source or "" for variant in entry.variants))
        if plain in (known.partition("@")[0] for known in sources):
            return entry
    return None


def settings_of(manifest: Manifest) -> Mapping[str, Setting]:
    """What the profile of a manifest sets, the manifest's own arguments left out.

    Raises:
        ProfileError: If a file is broken.
    """
    if manifest.profile is None or manifest.endpoints:
        return {}
    entry, resources = entry_of(manifest.source), manifest.resources
    pools = manifest.engine.args.get("runner") == "pooling"
    task = entry.task if entry is not None else Task.EMBED if pools else Task.CHAT
    name = None if entry is None else entry.name
    found = settings_for(manifest.profile, resources.accelerator, resources.pool, task, name)
    own = {key.lstrip("-").replace("-", "_") for key in manifest.engine.args}
    if SLOTS in manifest.engine.model_fields_set:
        own.add(SLOTS)
    return {key: setting for key, setting in found.items() if key not in own}


def with_profile(manifest: Manifest) -> Manifest:
    """The manifest with its profile's arguments filled in: what the engine is started with.

    The manifest itself where it names no profile. Applying it twice changes nothing.

    Raises:
        ProfileError: If a file is broken.
    """
    values = {name: setting.value for name, setting in settings_of(manifest).items()}
    if not values:
        return manifest
    slots = values.pop(SLOTS, None)
    update: dict[str, object] = {"args": {**values, **manifest.engine.args}}
    if slots is not None:
        update[SLOTS] = slots
    return manifest.model_copy(update={"engine": manifest.engine.model_copy(update=update)})


def manifest_with_goal(manifest: Manifest, goal: Goal) -> Manifest:
    """A manifest of the catalog that leaves to a profile what the profile sets."""
    document = manifest.model_dump(mode="json", exclude_unset=True) | {"profile": goal}
    engine = dict(document.get("engine", {}))
    bare = manifest.model_copy(
        update={"profile": goal, "engine": EngineSpec(args=_runner(manifest))}
    )
    given = settings_of(bare)
    if SLOTS in given:
        engine.pop(SLOTS, None)
    args = {key: value for key, value in engine.pop("args", {}).items() if key not in given}
    if args:
        engine["args"] = args
    document["engine"] = engine
    return Manifest.model_validate(document)


def _runner(manifest: Manifest) -> dict[str, EngineArgument]:
    return {key: value for key, value in manifest.engine.args.items() if key == "runner"}
