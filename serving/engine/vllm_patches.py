"""What is changed in a vLLM of this process before an engine starts in it. Runs no engine.

`vllm_adapter` says what is changed when. Each function changes one thing, for the versions that
`versions.TABLE` names. As there, vLLM's imports stand inside the functions.
"""

import functools
import importlib
import logging
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import Any

from serving.engine import (
    grammar_budget,
    reasoning,
    recording,
    shared_memory,
    shared_steps,
    warm_modules,
)
from serving.engine.child import Mark
from serving.protocol import StartPhase

DEFECTIVE_CACHE = (0, 32)
"""Version of vLLM whose compile cache is never loaded on a CPU."""


def after_core_fork(do: Callable[[], None]) -> None:
    """Has `do` called where vLLM itself begins what may run beside the core's start."""
    from vllm.v1.engine.core_client import MPClient

    ordinary = MPClient._start_mm_warmup

    def start_mm_warmup(client: Any) -> None:
        ordinary(client)
        do()

    MPClient._start_mm_warmup = start_mm_warmup


def remember_what_stays() -> None:
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


def quiet_the_server() -> None:
    from vllm.entrypoints.launchers import launcher

    launcher.logger.setLevel(logging.WARNING)  # it lists its fifty routes
    # On its way out vLLM looks for whoever has its port, finds its own dying engine core, and
    # breaks off with a traceback if that is a zombie by then.
    launcher.find_process_using_port = lambda port: None


def inspect_imported_models_here() -> None:
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


def share_steps() -> None:
    """Has long prompts cut in the steps that several tenants share; the core is forked later."""
    from vllm.v1.core.sched.scheduler import Scheduler

    shared_steps.hook(Scheduler)


def bound_grammars() -> None:
    """Has a request end whose grammar holds up the others; the core is forked later."""
    from vllm.exceptions import GenerationError, VLLMValidationError
    from vllm.v1.engine import FinishReason
    from vllm.v1.engine.output_processor import OutputProcessor
    from vllm.v1.structured_output import StructuredOutputManager
    from vllm.v1.structured_output.backend_xgrammar import XgrammarGrammar

    class GrammarTooSlowError(VLLMValidationError, GenerationError):  # type: ignore[misc]
        """A whole answer is refused as the one, a stream ended as the other: both with 400."""

        def __init__(self, param: str, message: str) -> None:
            super().__init__(message, parameter=param)
            self.status_code = HTTPStatus.BAD_REQUEST

        def __str__(self) -> str:
            return str(self.args[0])

    grammar_budget.hook(XgrammarGrammar)
    grammar_budget.hook_manager(StructuredOutputManager)
    grammar_budget.hook_outputs(OutputProcessor, FinishReason.ERROR, GrammarTooSlowError)


def rank_without_compiling() -> None:
    """Has a CPU's engine answer `logprobs` at once.

    vLLM compiles one line for it at the first request that asks. On two cores that takes seconds,
    in which nobody gets a token and which a gateway may take for a hang: 11 s on busy ones.
    """
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        sampler: Any = importlib.import_module("vllm.v1.sample.sampler")
        sampler.batched_count_greater_than = lambda x, values: (x >= values).sum(-1)


def load_what_was_compiled() -> None:
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


def name_what_ranks_share() -> None:
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


def mark_weights(mark: Mark) -> None:
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    def load_model(wrapper: Any, *args: Any, **kwargs: Any) -> Any:
        result = wrapper.worker.load_model(*args, **kwargs)
        _give_the_stage_its_input(wrapper.worker.model_runner)
        mark(StartPhase.WEIGHTS)
        return result

    WorkerWrapperBase.load_model = load_model
