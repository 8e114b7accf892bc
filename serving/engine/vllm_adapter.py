"""The only module that imports vLLM: warms it up, and runs one engine with its OpenAI app.

All use of vLLM's inner API is here, for the versions that `versions.TABLE` names, and so the module
is longer than others; what needs no vLLM of it goes elsewhere. The imports stand inside the
functions, so that this module can be named without paying for vLLM's import (7 s).
"""

import argparse
import asyncio
import functools
import gc
import importlib
import logging
import os
import signal
import socket
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from models.errors import BadRequestError, UnavailableError, UpstreamError
from serving.engine import (
    causes,
    grammar_budget,
    reasoning,
    recording,
    shared_memory,
    shared_steps,
    warm_modules,
)
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

DEFECTIVE_CACHE = (0, 32)
"""Version of vLLM whose compile cache is never loaded on a CPU."""

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
    _remember_what_stays()
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
    _inspect_imported_models_here()
    _load_what_was_compiled()
    _mark_weights(mark)
    _name_what_ranks_share()
    if args.headless:
        serve_share(args, lambda: mark(StartPhase.ENGINE_READY))
    record_outputs(args.reasoning_parser)
    _share_steps()
    _bound_grammars()
    _rank_without_compiling()
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
                _after_core_fork(lambda: facade.begin(self, ("generate",)))
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
        _quiet_the_server()
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


def serve_share(args: argparse.Namespace, on_ready: Callable[[], None]) -> NoReturn:
    """Runs the ranks of one host of a gang that is not the first; returns never.

    Args:
        args: vLLM's, with `--headless` and the host's place in the gang.
        on_ready: Called when the ranks of the whole gang have met.

    Raises:
        BadRequestError: If vLLM refuses an argument.
        UpstreamError: When a rank has ended.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    try:
        config = AsyncEngineArgs.from_cli_args(args).create_engine_config(
            usage_context=UsageContext.OPENAI_API_SERVER, headless=True
        )
    except (ValueError, TypeError, KeyError, NotImplementedError) as exc:
        cause = causes.of_text(str(exc))
        raise BadRequestError(cause.sentence, hint=cause.hint) from exc
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    executor = MultiprocExecutor(config, monitor_workers=False)
    on_ready()
    executor.start_worker_monitor(inline=True)
    raise UpstreamError("a rank of the engine ended", hint="the engine's log says why")


def execute_share(arguments: Sequence[str]) -> None:
    """The same by vLLM's public `serve --headless`, which the entry point for servers lacks."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    command = ServeSubcommand()
    parser = FlexibleArgumentParser(prog="vllm")
    command.subparser_init(parser.add_subparsers())
    args = parser.parse_args(["serve", *arguments])
    command.validate(args)
    command.cmd(args)


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


def _after_core_fork(do: Callable[[], None]) -> None:
    """Has `do` called where vLLM itself begins what may run beside the core's start."""
    from vllm.v1.engine.core_client import MPClient

    ordinary = MPClient._start_mm_warmup

    def start_mm_warmup(client: Any) -> None:
        ordinary(client)
        do()

    MPClient._start_mm_warmup = start_mm_warmup


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


def _remember_what_stays() -> None:
    """Has vLLM ask once, before the fork, for what is the same in every engine of this node."""
    import vllm.logger
    from vllm.config.logging import LoggingConfig
    from vllm.utils import cpu_resource_utils

    # Each look goes through the metadata of all that is installed: 18 ms, six times a start.
    installed: Any = metadata
    installed.entry_points = functools.cache(installed.entry_points)
    for group in warm_modules.ENTRY_POINTS:
        installed.entry_points(group=group)
    # `lscpu`, 8 ms, twice a start.
    cpu_resource_utils._get_cpu_list = functools.cache(cpu_resource_utils._get_cpu_list)
    cpu_resource_utils._get_cpu_list()
    # The API process and the core set up the same logging each: with 400 loggers 60 ms.
    vllm.logger.configure_logging_if_needed(LoggingConfig())
    ordinary = vllm.logger._configure_vllm_root_logger

    def configure_root(config: Any = None) -> None:
        if config != vllm.logger._last_configured_logging_config:
            ordinary(config)

    vllm.logger._configure_vllm_root_logger = configure_root


def _quiet_the_server() -> None:
    from vllm.entrypoints.launchers import launcher

    launcher.logger.setLevel(logging.WARNING)  # it lists its fifty routes
    # On its way out vLLM looks for whoever has its port, finds its own dying engine core, and
    # breaks off with a traceback if that is a zombie by then.
    launcher.find_process_using_port = lambda port: None


def _inspect_imported_models_here() -> None:
    """Has vLLM look at a model's class in this process instead of in a new one, which takes 10 s.

    vLLM starts one because importing a model could initialise CUDA; a model that was imported
    before the fork did not, and on a CPU none does.
    """
    from vllm.model_executor.models import registry
    from vllm.platforms import current_platform

    ordinary = registry._LazyRegisteredModel.inspect_model_cls

    def inspect_model_cls(model: Any) -> Any:
        if model.module_name in sys.modules or current_platform.is_cpu():
            return registry._ModelInfo.from_model_cls(model.load_model_cls())
        return ordinary(model)

    registry._LazyRegisteredModel.inspect_model_cls = inspect_model_cls


def record_outputs(reasoning_parser: str | None) -> None:
    """Has this process' engine count its attempts, where its host asks for that.

    Args:
        reasoning_parser: The model's, by vLLM's name; none: it does not reason.
    """
    from vllm.v1.engine.output_processor import OutputProcessor

    def make(tokenizer: Any, arguments: Mapping[str, Any]) -> Any:
        from vllm.reasoning import ReasoningParserManager

        parser = ReasoningParserManager.get_reasoning_parser(str(reasoning_parser))
        return parser(tokenizer, **arguments)

    readers = reasoning.Readers(reasoning_parser, make) if reasoning_parser else None
    recording.hook(OutputProcessor, readers)


def _share_steps() -> None:
    """Has long prompts cut in the steps that several tenants share; the core is forked later."""
    from vllm.v1.core.sched.scheduler import Scheduler

    shared_steps.hook(Scheduler)


def _bound_grammars() -> None:
    """Has a request end whose grammar holds up the others; the core is forked later."""
    from vllm.v1.structured_output.backend_xgrammar import XgrammarGrammar

    grammar_budget.hook(XgrammarGrammar)


def _rank_without_compiling() -> None:
    """Has a CPU's engine answer `logprobs` at once.

    vLLM compiles one line for it at the first request that asks. On two cores that takes seconds,
    in which nobody gets a token and which a gateway may take for a hang: 11 s on busy ones.
    """
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        sampler: Any = importlib.import_module("vllm.v1.sample.sampler")
        sampler.batched_count_greater_than = lambda x, values: (x >= values).sum(-1)


def _load_what_was_compiled() -> None:
    """Has vLLM use its compile cache on a CPU instead of writing it anew at each start.

    vLLM 0.32 asks what it loads to finish its loading (`decorators.py`), which a CPU's artifacts
    cannot; it takes that for a broken cache and compiles again. Any other version is left alone.
    """
    import torch
    from vllm.version import __version_tuple__

    if tuple(__version_tuple__[:2]) != DEFECTIVE_CACHE:
        return
    ordinary = torch.compiler.load_compiled_function

    def load_compiled_function(*args: Any, **named: Any) -> Any:
        loaded: Any = ordinary(*args, **named)
        compiled = loaded._artifacts.compiled_fn
        if not hasattr(compiled, "finalize_loading"):
            compiled.finalize_loading = lambda config: None
        return loaded

    torch.compiler.load_compiled_function = load_compiled_function


def _name_what_ranks_share() -> None:
    from vllm.v1.executor import multiproc_executor

    def rendezvous() -> str:
        return shared_memory.rendezvous_of(Path(tempfile.gettempdir()), uuid.uuid4().hex)

    multiproc_executor.get_file_store_init_method = rendezvous


def _give_the_stage_its_input(runner: Any) -> None:
    """Makes the buffer that a pipeline's later stages read from.

    vLLM 0.32 makes it in its warm-up, which it leaves out on a CPU without compilation: the first
    request then ends the engine (`gpu_model_runner.py`, sync_and_gather_intermediate_tensors).
    """
    from vllm.distributed.parallel_state import get_pp_group
    from vllm.platforms import current_platform

    if current_platform.is_cpu() and not get_pp_group().is_first_rank:
        runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
            batch_size=runner.max_num_tokens, dtype=runner.dtype, device=runner.device
        )


def _mark_weights(mark: Mark) -> None:
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    def load_model(wrapper: Any, *args: Any, **kwargs: Any) -> Any:
        result = wrapper.worker.load_model(*args, **kwargs)
        _give_the_stage_its_input(wrapper.worker.model_runner)
        mark(StartPhase.WEIGHTS)
        return result

    WorkerWrapperBase.load_model = load_model
