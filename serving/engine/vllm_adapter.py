"""Warms vLLM up, and runs one engine with its OpenAI app.

All use of vLLM's inner API is here, in `vllm_patches` and in `vllm_share`, for the versions that
`versions.TABLE` names; what needs no vLLM of it goes elsewhere. The imports stand inside the
functions, so that these modules can be named without paying for vLLM's import (7 s).
"""

import argparse
import asyncio
import functools
import gc
import importlib
import os
import signal
import socket
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from models.errors import BadRequestError, UnavailableError, UpstreamError
from serving.engine import causes, vllm_patches, vllm_share, warm_modules
from serving.engine.child import Mark
from serving.engine.facade import Facade
from serving.engine.guard import TOKEN_VARIABLE
from serving.engine.self_probe import probe_self
from serving.protocol import StartPhase

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.v1.engine.async_llm import AsyncLLM

CORE_CHECK_S = 0.2

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    # With 1, the CPU platform turns the executor `uni` into `mp`, which spins on a whole core.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Longer than any gateway keeps an idle connection, so that it never writes to one just closed.
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "120",
    # The gateway lets through media of allowed hosts only; none of them may send an engine on.
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
}
"""What an engine's process needs in its environment before vLLM is imported."""

EXEC_MODULE = "vllm.entrypoints.openai.api_server"
"""vLLM's public entry point (the `vllm` command of the CPU build crashes)."""


def pre_import() -> str:
    """Imports and warms all that engines have in common; the caller then forks engines.

    Initialises no accelerator and starts no thread. Call it once, with ENVIRONMENT set.

    Returns:
        Name and version of the build, as `vllm 0.32.0`.

    Raises:
        UnavailableError: If vLLM is not installed, or is of a version that this module cannot run.
    """
    # vLLM imports Ray where it can, for executors that our engines do not have: 25 MiB.
    sys.modules.setdefault("ray", None)  # type: ignore[arg-type]  # None is how Python is told so
    try:
        for name in warm_modules.ALWAYS:
            importlib.import_module(name)
    except ImportError as exc:
        raise UnavailableError(
            f"vLLM 0.32 cannot be imported: {exc}", hint="install penstock[cpu] or penstock[gpu]"
        ) from exc
    import torch._dynamo.trace_rules
    from vllm.platforms import current_platform
    from vllm.version import __version__

    for name in warm_modules.ON_CPU if current_platform.is_cpu() else warm_modules.ON_GPU:
        importlib.import_module(name)
    # Each engine would register the same overrides again, at 0.37 s.
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        current_platform.register_triton_kernel_overrides()
    type(current_platform).register_triton_kernel_overrides = classmethod(lambda cls: None)
    torch._dynamo.trace_rules.get_torch_obj_rule_map()
    _parser()
    vllm_patches.remember_what_stays()
    gc.collect()
    gc.freeze()  # else each child copies and walks the whole heap: 0.9 s
    return f"vllm {__version__}"


def fork_obstacle() -> str | None:
    """Why an engine cannot be forked from this process, or None where it can."""
    import torch

    if torch.cuda.is_initialized():
        return "CUDA is initialised in the launcher"
    threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    if threads > 1:
        return f"the launcher has {threads} threads, of which a fork copies one"
    return None


def serve(arguments: Sequence[str], listener: socket.socket, mark: Mark) -> None:
    """Runs one engine behind its OpenAI app until SIGTERM; for a process forked after pre_import.

    Args:
        arguments: vLLM's command line, without host and port.
        listener: The bound and listening socket.
        mark: Called at WEIGHTS (in the process that loads them), ENGINE_READY and PROBED.

    Raises:
        BadRequestError: If vLLM refuses an argument.
    """
    import uvloop
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
    from vllm.utils.system_utils import decorate_logs, set_process_title

    set_process_title("APIServer")  # else `ps` shows the launcher's command line
    decorate_logs("APIServer")
    try:
        args = _parser().parse_args(list(arguments))
        validate_parsed_serve_args(args)
    except (ValueError, TypeError, KeyError) as exc:
        cause = causes.of_text(str(exc))
        raise BadRequestError(cause.sentence, hint=cause.hint) from exc
    vllm_patches.inspect_imported_models_here()
    vllm_patches.load_what_was_compiled()
    vllm_patches.mark_weights(mark)
    vllm_patches.name_what_ranks_share()
    if args.headless:
        vllm_share.serve(args, lambda: mark(StartPhase.ENGINE_READY))
    vllm_patches.record_outputs(args.reasoning_parser)
    vllm_patches.share_steps()
    vllm_patches.bound_grammars()
    vllm_patches.rank_without_compiling()
    uvloop.run(_serve(args, listener, mark))


async def _serve(args: argparse.Namespace, listener: socket.socket, mark: Mark) -> None:
    from vllm import envs
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.launcher import serve_http, validate_api_server_args
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        validate_api_server_args(args)
        config = AsyncEngineArgs.from_cli_args(args).create_engine_config(
            usage_context=UsageContext.OPENAI_API_SERVER
        )
    except (ValueError, TypeError, KeyError, NotImplementedError) as exc:
        cause = causes.of_text(str(exc))
        raise BadRequestError(cause.sentence, hint=cause.hint) from exc
    # The CPU platform has just set this to spawn, which would import everything anew.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    facade: Facade[AsyncLLM, FastAPI] = Facade(functools.partial(_build_app, args))

    class Engine(AsyncLLM):
        """Builds its app while its core loads the weights."""

        def __init__(self, *given: Any, **named: Any) -> None:
            if _only_generates(config.model_config):
                vllm_patches.after_core_fork(lambda: facade.begin(self, ("generate",)))
            super().__init__(*given, **named)

    engine = Engine.from_vllm_config(
        config,
        usage_context=UsageContext.OPENAI_API_SERVER,
        disable_log_stats=args.disable_log_stats,
    )
    try:
        app = (
            facade.app()
            if facade.begun
            else await _build_app(args, engine, await engine.get_supported_tasks())
        )
        host, port = listener.getsockname()[:2]
        # Callers may connect already: the launcher listens, and uvicorn accepts what waits.
        mark(StartPhase.ENGINE_READY)
        vllm_patches.quiet_the_server()
        server = asyncio.create_task(
            serve_http(
                app,
                sock=listener,
                host=host,
                port=port,
                log_level=args.uvicorn_log_level,
                access_log=False,
                timeout_keep_alive=envs.VLLM_HTTP_TIMEOUT_KEEP_ALIVE,
            )
        )
        core = asyncio.create_task(_watch_core(engine))
        probe = asyncio.create_task(_probe(config.model_config, host, port))
        await asyncio.wait({server, core, probe}, return_when=asyncio.FIRST_COMPLETED)
        if probe.done() and not core.done() and not server.done():
            probe.result()
            mark(StartPhase.PROBED, max_model_len=config.model_config.max_model_len)
            await asyncio.wait({server, core}, return_when=asyncio.FIRST_COMPLETED)
        probe.cancel()
        if core.done():
            core.result()
        core.cancel()
        stopping = await server
    finally:
        engine.shutdown(timeout=0)
    await stopping


async def _probe(model: Any, host: str, port: int) -> None:
    """Has the engine answer one request that costs it one step.

    Raises:
        UpstreamError: If it does not.
    """
    body: dict[str, object] = {"model": model.served_model_name}
    if model.runner_type == "pooling":
        path, body["input"] = "/pooling", "1"
    else:
        path, body["prompt"] = "/v1/completions", "1"
        body |= {"max_tokens": 1, "temperature": 0}
    await probe_self(host, port, os.environ[TOKEN_VARIABLE], path, body)


async def _build_app(
    args: argparse.Namespace, engine: "AsyncLLM", tasks: tuple[str, ...]
) -> "FastAPI":
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app

    app: FastAPI = build_app(args, tasks, engine.model_config)
    await init_app_state(engine, app.state, args, tasks)
    return app


def _only_generates(model: Any) -> bool:
    """Whether text generation is all that the engine's core will say it can do."""
    info = model._model_info
    plain = info.is_text_generation_model and not info.supports_transcription
    return bool(model.runner_type == "generate" and plain)


async def _watch_core(engine: "AsyncLLM") -> NoReturn:
    """Waits for the death of the engine's core; vLLM's own server notices only 5 s later.

    Raises:
        UpstreamError: If a signal ended the core.
        RuntimeError: If it failed; its own exception is in the log.
    """
    while not engine.errored:  # noqa: ASYNC110, vLLM offers no event for it
        await asyncio.sleep(CORE_CHECK_S)
    await asyncio.sleep(CORE_CHECK_S)  # the running streams are told by then
    codes = engine.engine_core.resources.engine_manager.finished_procs().values()
    if (code := min(codes, default=0)) < 0:
        cause = causes.of_exit(None, signal.Signals(-code).name, "")
        raise UpstreamError(cause.sentence, hint=cause.hint)
    raise RuntimeError(causes.CORE_FAILED)


@functools.cache
def _parser() -> "FlexibleArgumentParser":
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):
        """Raises where argparse would print its usage and exit."""

        def error(self, message: str) -> NoReturn:
            raise ValueError(message)

    return make_arg_parser(Parser(prog="vllm"))
