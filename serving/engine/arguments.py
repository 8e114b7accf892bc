"""Translates a manifest into vLLM's command line and environment; knows no vLLM. Pure."""

from collections.abc import Iterator
from pathlib import Path

from models.manifest import EngineArgument, Manifest
from models.tasks import Task
from serving.engine.gang import gang_arguments, ranks_environment
from serving.engine.load_format import load_format
from serving.protocol import GangPlace

GUARD = "serving.engine.guard.TokenGuard"
RUNTIME_LORA = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
"""Opens vLLM's routes that load adapters; behind the token like all others, and no tenant's."""
CPU_KV_CACHE_GIB = 0.0625
"""vLLM's own default on a CPU is 92 % of the machine's memory."""


STARTUP_PLAN = "VLLM_ENABLE_STARTUP_PLAN"
"""Has a GPU's room for the KV cache measured by the first start and kept beside what was compiled;
vLLM measures anew where device, versions or configuration differ, or less memory is free. Another
build than the platform's own may not know it."""


def vllm_arguments(
    manifest: Manifest,
    folder: Path,
    installed: frozenset[str] = frozenset(),
    gang: GangPlace | None = None,
) -> tuple[str, ...]:
    """The command line that serves the weights in `folder` as the manifest says.

    Host and port are left to the launcher.

    Args:
        manifest: The model.
        folder: Its weights on this node.
        installed: Load formats beyond vLLM's own; see `serving.engine.load_format`.
        gang: This host's part, where several hosts run the engine.
    """
    place = () if gang is None else gang_arguments(gang)
    return (*_arguments(manifest, folder, installed), *place)


def vllm_environment(manifest: Manifest, accelerators: tuple[str, ...]) -> dict[str, str]:
    """What the engine's environment has beyond the launcher's.

    Args:
        manifest: The model.
        accelerators: Ids of the accelerators that the host holds.
    """
    found = {} if manifest.engine.lora is None else dict(RUNTIME_LORA)
    if manifest.resources.accelerator == "cpu":
        return found | ranks_environment(manifest)
    found["CUDA_VISIBLE_DEVICES"] = ",".join(accelerators)
    if manifest.engine.kv_cache_gib is None and manifest.engine.build is None:
        found[STARTUP_PLAN] = "1"
    if manifest.scaling.idle != "stop":
        found["VLLM_SERVER_DEV_MODE"] = "1"  # its routes of sleep; behind the token like all others
    return found


def _arguments(manifest: Manifest, folder: Path, installed: frozenset[str]) -> Iterator[str]:
    engine, resources = manifest.engine, manifest.resources
    on_cpu = resources.accelerator == "cpu"
    yield f"--model={folder}"
    yield f"--served-model-name={manifest.name}"
    yield f"--dtype={engine.dtype}"
    yield f"--max-num-seqs={engine.max_num_seqs}"
    if engine.max_model_len is not None:
        yield f"--max-model-len={engine.max_model_len}"
    if engine.trust_remote_code:
        yield "--trust-remote-code"
    if (chosen := load_format(manifest, installed)) is not None:
        yield f"--load-format={chosen}"
    if engine.quantization is not None:
        yield f"--quantization={engine.quantization}"

    yield f"--tensor-parallel-size={resources.tensor_parallel}"
    yield f"--pipeline-parallel-size={resources.pipeline_parallel}"
    if on_cpu:
        # The executor `mp` spins on a whole core on a CPU, so it is used only where it must be.
        yield f"--distributed-executor-backend={'uni' if resources.ranks == 1 else 'mp'}"
    elif resources.hosts > 1:
        yield "--distributed-executor-backend=mp"  # `nnodes` is this executor's

    eager = on_cpu if engine.enforce_eager is None else engine.enforce_eager
    yield "--enforce-eager" if eager else "--no-enforce-eager"
    kv_cache_gib = engine.kv_cache_gib or (CPU_KV_CACHE_GIB if on_cpu else None)
    if kv_cache_gib is not None:
        yield f"--kv-cache-memory-bytes={int(kv_cache_gib * 2**30)}"

    if engine.tool_parser is not None:
        yield "--enable-auto-tool-choice"
        yield f"--tool-call-parser={engine.tool_parser}"
    if engine.reasoning_parser is not None:
        yield f"--reasoning-parser={engine.reasoning_parser}"

    if engine.lora is not None:
        yield "--enable-lora"
        yield f"--max-lora-rank={engine.lora.max_rank}"
        yield f"--max-loras={engine.lora.at_once}"
        yield f"--max-cpu-loras={engine.lora.in_memory}"
    if manifest.task in (Task.EMBED, Task.CLASSIFY) and "runner" not in engine.args:
        yield "--runner=pooling"
    if manifest.scaling.idle != "stop":
        yield "--enable-sleep-mode"
    yield "--enable-request-id-headers"
    yield "--enable-prompt-tokens-details"
    yield "--disable-fastapi-docs"
    yield "--disable-uvicorn-access-log"
    yield "--uvicorn-log-level=warning"
    yield f"--middleware={GUARD}"
    for name, value in engine.args.items():
        yield _extra(name, value)


def _extra(name: str, value: EngineArgument) -> str:
    plain = name.lstrip("-").replace("_", "-")
    if isinstance(value, bool):
        return f"--{plain}" if value else f"--no-{plain}"
    return f"--{plain}={value}"
