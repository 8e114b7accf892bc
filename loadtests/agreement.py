"""`python -m loadtests.agreement URL --tokenizer DIR`: do other clients tell the same as ours?

Our client, that of `vllm bench serve` and, where `--guidellm` names its command, guidellm put the
same load on one server in turn, in rounds whose order turns too. Two clients agree on a figure
where the 95 % interval of its ratio holds 1, or the ratio is within 3 % of it. Prints a table in
Markdown for each, and, last, one JSON line. Needs vLLM installed; what it imports is in a process
of its own.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from loadtests.client import Client, ServerError
from loadtests.compare import MIN_PAIRS, Interval, ratio
from loadtests.execute import learn_server
from loadtests.profile import Profile
from loadtests.prompts import Prompts
from loadtests.rulers import ClientError, Figures, Load, Ruler, guidellms, ours, vllms
from loadtests.workload import Chat

FIGURES = (
    "output_throughput", "median_ttft_ms", "median_tpot_ms", "median_itl_ms", "median_e2el_ms",
    "mean_ttft_ms", "mean_tpot_ms", "p99_tpot_ms",
)  # fmt: skip
WITHIN = 0.03
OURS = "ours"


@dataclass(frozen=True, slots=True)
class Agreement:
    """A figure as two clients tell it."""

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
    """What pairs of runs, ours first, say of each figure that both clients tell."""
    found = []
    for name in FIGURES:
        values = [(ours.get(name, 0.0), theirs.get(name, 0.0)) for ours, theirs in pairs]
        if all(a > 0 and b > 0 for a, b in values):
            found.append(
                Agreement(
                    name, median(a for a, _ in values), median(b for _, b in values), ratio(values)
                )
            )
    return found


async def prompts_of(load: Load) -> Prompts:
    """What makes prompts of an exact length for the server.

    Raises:
        ServerError: The server cannot be used.
    """
    profile = Profile(workload=Chat(completion=True))
    async with Client(load.url, os.environ.get("OPENAI_API_KEY")) as client:
        return (await learn_server(client, load.model, profile))[1]


def rounds(
    load: Load, rulers: Mapping[str, Ruler], prompts: Prompts, count: int
) -> dict[str, list[Figures]]:
    """What each client told in each round; in each round another one begins.

    Raises:
        ClientError: A client failed.
    """
    told: dict[str, list[Figures]] = {name: [] for name in rulers}
    names = list(rulers)
    for number in range(count):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            told[name].append(rulers[name](load, prompts, number))
        sys.stderr.write(f"round {number + 1} of {count}\n")
    return told


def markdown(load: Load, pairs: int, theirs: str, found: Sequence[Agreement]) -> str:
    """The table for the documentation."""
    lines = [
        f"{pairs} pairs, {load.concurrency} at once, {load.requests} requests of "
        f"{load.input_tokens} tokens in and {load.output_tokens} out",
        "",
        f"| figure | ours | {theirs} | ours / theirs | 95 % | agree |",
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
    parser.add_argument("--guidellm", type=Path, metavar="COMMAND", help="guidellm 0.8's command")
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
    rulers: dict[str, Ruler] = {OURS: ours, "vLLM's client": vllms}
    if parsed.guidellm is not None:
        rulers["guidellm"] = guidellms(parsed.guidellm)
    try:
        prompts = asyncio.run(prompts_of(load))
        told = rounds(load, rulers, prompts, parsed.pairs)
    except (ServerError, ClientError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 6
    line: dict[str, object] = {
        "bench": "agreement", "pairs": parsed.pairs, "load_average": os.getloadavg()[0],
    }  # fmt: skip
    agree = True
    for name in list(rulers)[1:]:
        found = agreements(list(zip(told[OURS], told[name], strict=True)))
        sys.stdout.write(markdown(load, parsed.pairs, name, found) + "\n")
        agree = agree and all(each.holds for each in found)
        line[name] = {
            each.name: {"ratio": round(each.ratio.estimate, 4), "agrees": each.holds}
            for each in found
        }
    sys.stdout.write(json.dumps(line) + "\n")
    return 0 if parsed.pairs >= MIN_PAIRS and agree else 1


if __name__ == "__main__":
    sys.exit(main())
