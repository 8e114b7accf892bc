"""Asks a node's launcher for an engine: with what, which launcher, and how patiently."""

import asyncio
import time
from pathlib import Path

from models.errors import UnavailableError, UnreachableError
from serving.engine import compile_cache, recorder
from serving.engine.arguments import vllm_arguments, vllm_environment
from serving.engine.gang import gang_environment
from serving.engine.launch_protocol import SpawnRequest
from serving.engine.launcher_client import Launcher, Lease
from serving.engine.load_format import formats_for
from serving.engine.recorder_reader import recorder_path
from serving.engine.surroundings import Surroundings
from serving.protocol import EngineAssignment

LAUNCHER_RETRY_S = 0.02
"""Between two tries to reach a launcher that is still importing; a failed connect costs nothing."""


def request_for(
    assignment: EngineAssignment, around: Surroundings, folder: Path, token: str, log_path: Path
) -> SpawnRequest:
    """What the launcher is asked for.

    Args:
        assignment: The engine.
        around: The host's means.
        folder: The model's weights on this node.
        token: What every route of the engine shall ask for.
        log_path: Where the engine's output goes.
    """
    manifest, gang = assignment.manifest, assignment.gang
    compiled = None
    if around.compile_dir is not None:
        compiled = compile_cache.folder(around.compile_dir, manifest, folder, around.machine)
    return SpawnRequest(
        engine_id=assignment.engine_id,
        args=vllm_arguments(manifest, folder, formats_for(manifest, folder), gang),
        environment={
            **vllm_environment(manifest, around.accelerators),
            **({} if gang is None else gang_environment(around.address)),
            **({} if compiled is None else {compile_cache.VARIABLE: str(compiled)}),
            recorder.PATH_VARIABLE: str(recorder_path(around.log_dir, assignment.engine_id)),
        },
        token=token,
        log_path=log_path,
        address=around.address,
        memory_gib=manifest.resources.memory_gib,
        gpus=around.accelerators,
        mode=manifest.engine.spawn,
    )


async def spawn(request: SpawnRequest, build: str | None, around: Surroundings) -> Lease:
    """Has the engine started, and waits for a launcher that is still on its way.

    Args:
        request: The engine.
        build: The engine build that it is of; None: the platform's own.
        around: The host's means.

    Raises:
        UnavailableError: If the node has no launcher of the build, or it does not answer in time.
    """
    deadline_s = time.monotonic() + around.launcher_patience_s
    launcher = _launcher(build, around)
    while True:
        try:
            return await launcher.spawn(request)
        except UnreachableError as exc:
            if time.monotonic() >= deadline_s:
                raise UnavailableError(
                    "this node's launcher does not answer",
                    hint="it takes some seconds to start; its log says why it does not",
                ) from exc
            await asyncio.sleep(LAUNCHER_RETRY_S)


def _launcher(build: str | None, around: Surroundings) -> Launcher:
    if build is None:
        return around.launcher
    try:
        return around.builds[build]
    except KeyError:
        known = ", ".join(sorted(around.builds)) or "none but the platform's own"
        raise UnavailableError(
            f"this node has no launcher of the engine build {build}",
            hint=f"it has: {known}; PENSTOCK_BUILD_SOCKETS names them",
        ) from None
