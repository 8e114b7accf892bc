"""`python -m loadtests.agreement URL --tokenizer DIR`: do vLLM's client and ours tell the same?

The client of `vllm bench serve` and ours put the same load on one server in turn, in pairs, every
other pair in the other order. Prompts are made by us for both, of the same lengths, but never the
same words, which the server would remember. Two clients agree on a figure where the 95 % interval
of its ratio holds 1, or the ratio is within 3 % of it. Prints a table in Markdown and, last, one
JSON line. Needs vLLM installed; what it imports is in a process of its own.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from loadtests.client import Client, ServerError
from loadtests.compare import MIN_PAIRS, Interval, ratio
from loadtests.execute import learn_server
from loadtests.profile import Profile
from loadtests.prompts import Prompts
from loadtests.workload import Chat

FIGURES = (
    "output_throughput", "median_ttft_ms", "median_tpot_ms", "median_itl_ms", "median_e2el_ms",
    "mean_ttft_ms", "mean_tpot_ms", "p99_tpot_ms",
)  # fmt: skip
WITHIN = 0.03

VLLM = """
import sys
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args(sys.argv[1:]))
"""

Figures = Mapping[str, float]


class ClientError(Exception):
    """One of the two clients failed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is put on the server in each run."""

    url: str
    model: str
    tokenizer: str
    concurrency: int
    requests: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """A figure as both clients tell it."""

    name: str
    ours: float
    theirs: float
    """Medians over the runs."""
    ratio: Interval
    """Ours over theirs."""

    @property
    def holds(self) -> bool:
        """Whether the clients agree."""
        return self.ratio.holds(1.0) or abs(self.ratio.estimate - 1) <= WITHIN


def agreements(pairs: Sequence[tuple[Figures, Figures]]) -> list[Agreement]:
    """What pairs of runs, ours first, say of each figure."""
    found = []
    for name in FIGURES:
        values = [(ours[name], theirs[name]) for ours, theirs in pairs]
        if all(a > 0 and b > 0 for a, b in values):
            found.append(
                Agreement(
                    name, median(a for a, _ in values), median(b for _, b in values), ratio(values)
                )
            )
    return found


def _run(name: str, command: Sequence[str], accepted: tuple[int, ...] = (0,)) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode not in accepted:
        said = done.stderr.decode(errors="replace")[-1000:]
        raise ClientError(f"{name} ended with {done.returncode}: {said}")
    return done.stdout


def ours(load: Load, seed: int) -> Figures:
    """A run of our client.

    Raises:
        ClientError: It failed.
    """
    said = _run(
        "our client",
        [
            sys.executable, "-m", "loadtests.bench", load.url, "--model", load.model,
            "--completion", "--concurrency", str(load.concurrency),
            "--requests", str(load.requests), "--input-tokens", str(load.input_tokens),
            "--output-tokens", str(load.output_tokens), "--ignore-eos", "--seed", str(seed),
            "--output", "json",
        ],
        accepted=(0, 1),  # 1: it says that the run is not valid
    )  # fmt: skip
    return dict(json.loads(said))


def theirs(load: Load, prompts: Prompts, seed: int) -> Figures:
    """A run of vLLM's client.

    Raises:
        ClientError: It failed.
    """
    rng = random.Random(f"vllm/{seed}")  # noqa: S311
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The one format of prompts of one's own that its client reads without further packages.
        answer = "word " * load.output_tokens
        asked = [prompts.text(load.input_tokens, rng) for _ in range(load.requests)]
        dialogues = [{"conversations": [{"value": text}, {"value": answer}]} for text in asked]
        (folder / "prompts.json").write_text(json.dumps(dialogues))
        _run(
            "vLLM's client",
            [
                sys.executable, "-c", VLLM, "--backend", "openai", "--base-url", load.url,
                "--endpoint", "/v1/completions", "--model", load.model,
                "--tokenizer", load.tokenizer, "--dataset-name", "sharegpt",
                "--dataset-path", str(folder / "prompts.json"),
                "--sharegpt-output-len", str(load.output_tokens), "--num-prompts",
                str(load.requests), "--max-concurrency", str(load.concurrency), "--ignore-eos",
                "--temperature", "0", "--percentile-metrics", "ttft,tpot,itl,e2el",
                "--disable-tqdm", "--save-result", "--result-dir", name,
                "--result-filename", "result.json",
            ],
        )  # fmt: skip
        return dict(json.loads((folder / "result.json").read_text()))


async def prompts_of(load: Load) -> Prompts:
    """What makes prompts of an exact length for the server.

    Raises:
        ServerError: The server cannot be used.
    """
    profile = Profile(workload=Chat(completion=True))
    async with Client(load.url, os.environ.get("OPENAI_API_KEY")) as client:
        return (await learn_server(client, load.model, profile))[1]


def markdown(load: Load, pairs: int, found: Sequence[Agreement]) -> str:
    """The table for the documentation."""
    lines = [
        f"{pairs} pairs, {load.concurrency} at once, {load.requests} requests of "
        f"{load.input_tokens} tokens in and {load.output_tokens} out",
        "",
        "| figure | ours | vLLM's client | ours / theirs | 95 % | agree |",
        "|---|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {each.name} | {each.ours:,.2f} | {each.theirs:,.2f} | {each.ratio.estimate:.3f} | "
        f"{each.ratio.low:.3f} to {each.ratio.high:.3f} | {'yes' if each.holds else 'no'} |"
        for each in found
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; 1 where the clients disagree, or pairs are too few to say."""
    parser = argparse.ArgumentParser("loadtests.agreement", description=__doc__)
    parser.add_argument("url", help="base URL without /v1; the key comes from OPENAI_API_KEY")
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokenizer", required=True, help="folder or name, for vLLM's client")
    parser.add_argument("--pairs", type=int, default=MIN_PAIRS)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--input-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=48)
    parsed = parser.parse_args(argv)
    load = Load(
        parsed.url, parsed.model, parsed.tokenizer, parsed.concurrency, parsed.requests,
        parsed.input_tokens, parsed.output_tokens,
    )  # fmt: skip
    pairs: list[tuple[Figures, Figures]] = []
    try:
        prompts = asyncio.run(prompts_of(load))
        for number in range(parsed.pairs):
            if number % 2:
                second = theirs(load, prompts, number)
                first = ours(load, number)
            else:
                first = ours(load, number)
                second = theirs(load, prompts, number)
            pairs.append((first, second))
            sys.stderr.write(f"pair {number + 1} of {parsed.pairs}\n")
    except (ServerError, ClientError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 6
    found = agreements(pairs)
    sys.stdout.write(markdown(load, len(pairs), found))
    line = {
        "bench": "agreement", "pairs": len(pairs), "load_average": os.getloadavg()[0],
        "agree": {each.name: each.holds for each in found},
        "ratio": {each.name: round(each.ratio.estimate, 4) for each in found},
    }  # fmt: skip
    sys.stdout.write(json.dumps(line) + "\n")
    return 0 if len(pairs) >= MIN_PAIRS and all(each.holds for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
