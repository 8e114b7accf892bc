"""Clients that measure the same load: ours, vLLM's own, and guidellm; each in a process of its own.

All three ask `/v1/completions` for prompts of the same lengths, made by us, but never of the same
words, which the server would remember. Figures bear the names of `vllm bench serve`.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.prompts import Prompts

Figures = Mapping[str, float]

VLLM = """
import sys
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args(sys.argv[1:]))
"""

GUIDELLM_NAMES = {
    "median_ttft_ms": ("time_to_first_token_ms", "median"),
    "mean_ttft_ms": ("time_to_first_token_ms", "mean"),
    # What it calls so is the time after the first token over n - 1: TPOT in vLLM's words and ours.
    "median_tpot_ms": ("inter_token_latency_ms", "median"),
    "mean_tpot_ms": ("inter_token_latency_ms", "mean"),
}


class ClientError(Exception):
    """A client failed."""


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


Ruler = Callable[[Load, Prompts, int], Figures]
"""Measures a load once, with a seed; raises ClientError."""


def ours(load: Load, prompts: Prompts, seed: int) -> Figures:
    """A run of our client, which makes its prompts itself.

    Raises:
        ClientError: It failed.
    """
    del prompts
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


def vllms(load: Load, prompts: Prompts, seed: int) -> Figures:
    """A run of vLLM's client.

    Raises:
        ClientError: It failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The one format of prompts of one's own that its client reads without further packages.
        answer = "word " * load.output_tokens
        dialogues = [
            {"conversations": [{"value": text}, {"value": answer}]}
            for text in _texts(load, prompts, f"vllm/{seed}")
        ]
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


def guidellms(command: Path) -> Ruler:
    """The ruler of guidellm 0.8, whose `guidellm` command lies in an environment of its own."""

    def measure(load: Load, prompts: Prompts, seed: int) -> Figures:
        with tempfile.TemporaryDirectory() as name:
            asked, said = Path(name, "prompts.jsonl"), Path(name, "result.json")
            asked.write_text(
                "".join(
                    json.dumps({"prompt": text, "output_tokens_count": load.output_tokens}) + "\n"
                    for text in _texts(load, prompts, f"guidellm/{seed}")
                )
            )
            key = os.environ.get("OPENAI_API_KEY")
            _run(
                "guidellm",
                [
                    str(command), "run", "--backend",
                    f"kind=openai_http,target={load.url},model={load.model},"
                    "request_format=/v1/completions" + (f",api_key={key}" if key else ""),
                    "--profile", f"kind=concurrent,streams={load.concurrency}",
                    "--constraint", f"kind=max_requests,count={load.requests}",
                    "--data", f"kind=json_file,path={asked}", "--output",
                    f"kind=json,path={said}", "--disable-console",
                ],
                environment={"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": name},
            )  # fmt: skip
            return _guidellms_figures(json.loads(said.read_text()))

    return measure


def _guidellms_figures(said: Mapping[str, Any]) -> Figures:
    bench = said["benchmarks"][0]
    done = bench["requests"]["successful"]
    metrics = bench["metrics"]
    figures = {
        name: float(metrics[theirs]["successful"][kind])
        for name, (theirs, kind) in GUIDELLM_NAMES.items()
    }
    latency = metrics["request_latency"]["successful"]
    begun_s = min(request["request_start_time"] for request in done)
    ended_s = max(request["request_end_time"] for request in done)
    return figures | {
        "median_e2el_ms": 1000 * float(latency["median"]),
        "p99_tpot_ms": float(metrics["inter_token_latency_ms"]["successful"]["percentiles"]["p99"]),
        "output_throughput": sum(r["output_tokens"] for r in done) / (ended_s - begun_s),
        "completed": float(len(done)),
    }


def _texts(load: Load, prompts: Prompts, seed: str) -> list[str]:
    rng = random.Random(seed)  # noqa: S311
    return [prompts.text(load.input_tokens, rng) for _ in range(load.requests)]


def _run(
    name: str,
    command: Sequence[str],
    accepted: tuple[int, ...] = (0,),
    environment: Mapping[str, str] | None = None,
) -> bytes:
    done = subprocess.run(
        command, capture_output=True, check=False, env={**os.environ, **(environment or {})}
    )
    if done.returncode not in accepted:
        said = done.stderr.decode(errors="replace")[-1000:]
        raise ClientError(f"{name} ended with {done.returncode}: {said}")
    return done.stdout
