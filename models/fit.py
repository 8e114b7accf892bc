"""Whether a model can fit what its manifest gives it: the sizing planner's word at the deploy."""

from collections.abc import Mapping
from typing import Any

from models.config_fields import ConfigError
from models.config_json import read_architecture, weights_of
from models.errors import BadRequestError
from models.hardware import GIB, UnknownHardwareError, hardware_named
from models.manifest import Manifest
from models.plan import DoesNotFitError
from models.precision import Precision
from models.sizing import Ask, plan

QUANTIZED = {
    "fp8": Precision.FP8,
    "awq": Precision.INT4,
    "gptq": Precision.INT4,
    "mxfp4": Precision.MXFP4,
    "nvfp4": Precision.NVFP4,
}


def check_fit(
    manifest: Manifest,
    config: Mapping[str, Any] | None,
    weight_bytes: int | None,
    machine_gib: float | None = None,
) -> list[str]:
    """Refuses a model that cannot fit; returns what else is worth a word.

    Args:
        manifest: The model.
        config: Its config.json, where it is known.
        weight_bytes: Of its files, where they are known.
        machine_gib: Memory of the machine that has the cpu pool.

    Raises:
        DoesNotFitError: Saying by how much, and what would fit.
    """
    if manifest.resources.accelerator == "cpu":
        return _on_cpu(manifest, weight_bytes, machine_gib)
    if config is None:
        return []
    try:
        hardware = hardware_named(manifest.resources.accelerator)
        architecture = read_architecture(config)
        weights = _precision(manifest, config)
    except (UnknownHardwareError, ConfigError) as exc:
        return [f"whether it fits is not known: {exc}"]
    context = manifest.engine.max_model_len or architecture.max_context
    if context > architecture.max_context:
        return [
            f"engine.max_model_len: {context} tokens are more than the {architecture.max_context} "
            "that the model's config.json allows"
        ]
    cache = manifest.engine.args.get("kv_cache_dtype")
    try:
        plan(
            Ask(
                model=manifest.name,
                architecture=architecture,
                hardware=hardware,
                weights=weights,
                cache=Precision.FP8 if str(cache).startswith("fp8") else Precision.BF16,
                context=context,
                concurrency=1,
                tensor_parallel=manifest.resources.tensor_parallel,
                pipeline_parallel=manifest.resources.pipeline_parallel,
            )
        )
    except DoesNotFitError as exc:
        raise DoesNotFitError(
            str(exc),
            param="resources",
            hint=f"{exc.hint}; in the manifest: engine.max_model_len, engine.quantization, "
            "resources.gpus with tensor_parallel, resources.accelerator",
        ) from exc
    except BadRequestError as exc:
        return [f"whether it fits is not known: {exc}"]
    return []


def _on_cpu(manifest: Manifest, weight_bytes: int | None, machine_gib: float | None) -> list[str]:
    if weight_bytes is None:
        return []
    weights_gib = weight_bytes / GIB
    needed_gib = weights_gib + (manifest.engine.kv_cache_gib or 0.0)
    if machine_gib is not None and needed_gib > machine_gib:
        raise DoesNotFitError(
            f"{manifest.name} does not fit this machine: weights {weights_gib:.1f} GiB and cache "
            f"{needed_gib - weights_gib:.1f} GiB are {needed_gib - machine_gib:.1f} GiB more than "
            f"its {machine_gib:.1f} GiB",
            param="resources.memory_gib",
            hint="deploy a smaller or quantized model, or on a pool of GPUs",
        )
    if needed_gib > manifest.resources.memory_gib:
        return [
            f"resources.memory_gib: {manifest.resources.memory_gib:g} GiB are less than weights "
            f"and cache, which take {needed_gib:.1f} GiB"
        ]
    return []


def _precision(manifest: Manifest, config: Mapping[str, Any]) -> Precision:
    """How the weights lie in the device's memory.

    Raises:
        ConfigError: If config.json names a quantization that is not known.
    """
    method = (manifest.engine.quantization or "").lower()
    for known, precision in QUANTIZED.items():
        if known in method:
            return precision
    stored = weights_of(config)
    short = manifest.engine.dtype in ("auto", "bfloat16", "float16")
    return Precision.BF16 if stored is Precision.FP32 and short else stored
