"""`python -m loadtests.ladder URL`: the same chats at one concurrency after the other, as JSON.

For searches that measure a server again and again: one process, one warm-up and one answer for all
concurrencies, and at the end prompts alone. The server's key is in PENSTOCK_API_KEY. Exit codes as
of `loadtests.bench`; figures that could not be measured are null.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import orjson
import uvloop

from loadtests.client import Client, ServerError
from loadtests.execute import Prepared, execute, prepare
from loadtests.profile import Closed, Profile
from loadtests.summary import Summary, figure, summarize
from loadtests.workload import Chat, Length

OK, UNUSABLE = 0, 6
FIGURES = ("output_rate", "ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99", "itl_p50")
PREFILL_REQUESTS = 4


def profile(prompt: int, output: int, concurrency: int, requests: int, seed: int) -> Profile:
    """Chats of exact lengths."""
    return Profile(
        workload=Chat(Length(prompt), Length(output)),
        load=Closed(concurrency=concurrency, requests=requests),
        ignore_eos=True,
        warmup=0,
        seed=seed,
        timeout_s=120.0,
    )


async def climb(url: str, key: str | None, parsed: argparse.Namespace) -> dict[str, object]:
    """Runs all levels.

    Raises:
        ServerError: The server cannot be used.
    """
    warm = profile(parsed.input_tokens, 8, 1, 1, parsed.seed).model_copy(update={"warmup": 2})
    async with Client(url, key, warm.timeout_s) as client:
        prepared = await prepare(client, parsed.model, warm)
        await execute(prepared, warm, seed=parsed.seed)
        levels = []
        for number, concurrency in enumerate(parsed.levels):
            wanted = profile(
                parsed.input_tokens, parsed.output_tokens, concurrency,
                max(concurrency * parsed.rounds, parsed.least_requests), parsed.seed + number,
            )  # fmt: skip
            summary = await _run(prepared, wanted)
            found = {name: figure(summary, name) for name in FIGURES}
            levels.append(
                {
                    "concurrency": concurrency,
                    "failed": summary.failed,
                    "failures": dict(summary.failures),
                    "complaints": list(summary.complaints),
                    **found,
                }
            )
        alone = profile(
            parsed.prefill_tokens, 1, 1, PREFILL_REQUESTS, parsed.seed + len(parsed.levels)
        )
        summary = await _run(prepared, alone)
    spent_s = None if summary.ttft is None else summary.ttft.mean_s
    taken_in = summary.prompt_tokens - summary.cached_tokens
    rate = taken_in / summary.completed / spent_s if spent_s and summary.completed else None
    return {"levels": levels, "prefill_tokens_s": rate}


async def _run(prepared: Prepared, wanted: Profile) -> Summary:
    run = await execute(prepared, wanted, seed=wanted.seed)
    return summarize(run.outcomes, run.duration_s)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser("python -m loadtests.ladder")
    parser.add_argument("url")
    parser.add_argument("--model")
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=2, help="requests of a visitor")
    parser.add_argument("--least-requests", type=int, default=4)
    parser.add_argument("--input-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--prefill-tokens", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; gives back the exit code."""
    parsed = parse(argv)
    key = os.environ.get("PENSTOCK_API_KEY")
    try:
        found = uvloop.run(climb(parsed.url, key, parsed))
    except ServerError as error:
        sys.stderr.write(f"error: {error}\n")
        return UNUSABLE
    sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE))
    return OK


if __name__ == "__main__":
    sys.exit(main())
