"""What an engine can do before it ever ran: as `penstock tune` measured it on such a machine, else
the sizing planner's figures, at their pessimistic end.

Reads the model's config.json where it is on this machine, else the catalog's copy of it; fetches
nothing. Too low a guess starts an engine too many for some seconds, too high a one makes tenants
wait: hence the pessimistic end.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoscaler.capacity import Capacity
from models.calibration import calibrated, error_factor
from models.catalog import entries
from models.config_fields import load_config
from models.config_json import read_architecture, weights_of
from models.errors import PenstockError
from models.hardware import hardware_named
from models.manifest import Manifest
from models.precision import Precision
from models.profile_measured import Measured
from models.profile_search import Here, find_measured
from models.roofline import Deployment
from models.sizing import CPU_START_S, GPU_START_S, UNMEASURED_FACTOR
from models.sources import BUILTINS
from serving.logs import get_logger

PROMPT, CONTEXT = 512, 1024
"""Tokens of the request that is thought of: a short chat."""
CPU_CHUNK, GPU_CHUNK = 2048, 8192
"""Prompt tokens of one step, vLLM's defaults."""

log = get_logger(__name__)


def guess_start_s(manifest: Manifest) -> float:
    """What a start takes by the planner, in seconds, without the reading of weights."""
    return CPU_START_S if manifest.resources.accelerator == "cpu" else GPU_START_S


def guess_capacity(
    manifest: Manifest, profiles: Path | None = None, here: Here | None = None
) -> Capacity | None:
    """One engine by a measured profile, else by the planner; None where neither can tell.

    Reads files: not for the event loop.

    Args:
        manifest: The model, its own profile filled in.
        profiles: Folder of measured profiles.
        here: What they must have been measured with; by default what this machine has.
    """
    found = find_measured(profiles, manifest, here or Here.of_this_machine())
    for warning in found.warnings:
        log.warning("profile_left_aside", model=manifest.name, reason=warning)
    if found.profile is not None:
        return measured_capacity(found.profile, manifest)
    return _by_formula(manifest)


def measured_capacity(profile: Measured, manifest: Manifest) -> Capacity:
    """One engine as it was measured, with the manifest's slots."""
    step_s, step_per_seq_s = profile.line
    return Capacity(
        slots=manifest.engine.max_num_seqs,
        prefill_tps=profile.prefill_tokens_s,
        step_s=step_s,
        step_per_seq_s=step_per_seq_s,
        chunk_tokens=_chunk(manifest),
    )


def _chunk(manifest: Manifest) -> int:
    """Prompt tokens of one step."""
    chunk = manifest.engine.args.get("max_num_batched_tokens")
    if isinstance(chunk, int) and chunk > 0:
        return chunk
    return CPU_CHUNK if manifest.resources.accelerator == "cpu" else GPU_CHUNK


def _by_formula(manifest: Manifest) -> Capacity | None:
    try:
        config = config_of(manifest)
        if config is None:
            return None
        engine = Deployment(
            read_architecture(config),
            hardware_named(manifest.resources.accelerator),
            weights_of(config),
            Precision.BF16,
            manifest.resources.tensor_parallel,
            manifest.resources.pipeline_parallel,
        )
        return formula_of(engine, manifest.engine.max_num_seqs, _chunk(manifest))
    except (PenstockError, OSError, ArithmeticError):
        return None


def formula_of(engine: Deployment, slots: int, chunk_tokens: int) -> Capacity:
    """One engine by the planner's formulas, at their pessimistic end.

    Raises:
        ArithmeticError: If its model's shape makes no sense.
    """
    factor = UNMEASURED_FACTOR if engine.hardware.is_cpu else error_factor()
    reached = calibrated()

    def step_s(batch: int) -> float:
        return engine.decode_step_s(batch, CONTEXT) / reached.decode + engine.step_overhead_s

    slope = (step_s(slots) - step_s(1)) / max(1, slots - 1)
    return Capacity(
        slots=slots,
        prefill_tps=PROMPT / engine.prefill_s(PROMPT) * reached.prefill / factor,
        step_s=max(0.0, step_s(1) - slope) * factor,
        step_per_seq_s=slope * factor,
        chunk_tokens=chunk_tokens,
    )


def config_of(manifest: Manifest) -> Mapping[str, Any] | None:
    """The model's config.json, from this machine or the catalog; None where neither has it.

    Raises:
        PenstockError: If it cannot be read.
        OSError: If the same.
    """
    scheme, _, rest = manifest.source.partition("://")
    if scheme == "builtin" and rest in BUILTINS:
        return load_config(BUILTINS[rest])
    if scheme == "file":
        return load_config(Path(rest))
    plain = manifest.source.partition("@")[0]
    for entry in entries():
        if entry.source.partition("@")[0] == plain:
            return entry.config
    return None
