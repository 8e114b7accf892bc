"""A host's share of an engine that a gang of hosts runs: the ranks beyond the first host's.

Imports vLLM, inside the functions, as `vllm_adapter` does. What makes a gang of several hosts, and
where its ranks meet, `gang` says.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from typing import NoReturn

from models.errors import BadRequestError, UpstreamError
from serving.engine import causes


def serve(args: argparse.Namespace, on_ready: Callable[[], None]) -> NoReturn:
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


def execute(arguments: Sequence[str]) -> None:
    """The same by vLLM's public `serve --headless`, which the entry point for servers lacks."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    command = ServeSubcommand()
    parser = FlexibleArgumentParser(prog="vllm")
    command.subparser_init(parser.add_subparsers())
    args = parser.parse_args(["serve", *arguments])
    command.validate(args)
    command.cmd(args)
