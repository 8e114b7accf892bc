"""The flags of the bench command, and the profile that they make."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from loadtests.gauges import DEFAULT
from loadtests.profile import Profile, fields_of, read

DEFAULT_URL = "http://127.0.0.1:8000"
"""Where a platform on this machine listens."""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with a message where it is wrong."""
    parser = argparse.ArgumentParser(
        "penstock bench",
        description="Measures an OpenAI-compatible endpoint.",
        epilog="Without --profile, a closed loop of chats: --concurrency, --requests. A flag "
        "stands over what the profile says.",
    )
    add = parser.add_argument
    add("url", nargs="?", default=os.environ.get("PENSTOCK_URL", DEFAULT_URL),
        help="base URL, with or without /v1; default: PENSTOCK_URL, or " + DEFAULT_URL)  # fmt: skip
    add("--api-key", help="default: PENSTOCK_API_KEY, OPENAI_API_KEY")
    add("--model", help="default: the first that the server lists")
    add("--profile", help="name of a shipped profile, or a YAML file")
    add("--seed", type=int, help="default: the profile's, 0")
    add("--timeout", type=float, metavar="S", help="longest time of a request")

    asked = parser.add_argument_group("what is asked")
    add = asked.add_argument
    add("--workload", choices=("chat", "conversation", "agent", "embeddings"))
    add("--dialogues", metavar="FILE", help="ask what a file of ShareGPT's kind asks")
    add("--completion", action="store_true", help="ask /v1/completions")
    add("--input-tokens", type=int, metavar="N", help="exact length of a prompt")
    add("--output-tokens", type=int, metavar="N", help="max_tokens of a reply")
    add("--shared-tokens", type=int, metavar="N", help="beginning that all prompts share")
    add("--ignore-eos", action="store_true", help="for servers that know it, as vLLM")
    add("--no-stream", action="store_true")

    when = parser.add_argument_group("when")
    add = when.add_argument
    add("--concurrency", type=int, metavar="N", help="closed loop with so many visitors")
    add("--requests", type=int, metavar="N", help="visitors after which a closed loop ends")
    add("--rate", type=float, metavar="RPS", help="open loop at this rate")
    add("--burstiness", type=float, help="1 is Poisson, less is burstier")
    add("--shape", choices=("constant", "ramp", "steps", "spike", "day"))
    add("--trace", help="replay: a shipped trace or a file")
    add("--trace-speed", type=float, metavar="X")
    add("--trace-share", type=float, metavar="X", help="share of the requests to keep")
    add("--trace-length", type=float, metavar="X", help="factor for the numbers of tokens")
    add("--duration", type=float, metavar="S")
    add("--warmup", type=int, metavar="N", help="requests before the run")

    versus = parser.add_argument_group("comparison of two servers")
    add = versus.add_argument
    add("--versus", metavar="URL2", help="run against both in turn, and compare")
    add("--versus-api-key", help="default: that of the first")
    add("--versus-model", help="default: the first that the second server lists")
    add("--pairs", type=int, default=10, metavar="N")

    capacity = parser.add_argument_group("search for the capacity")
    add = capacity.add_argument
    add("--find-capacity", action="store_true",
        help="find the highest rate at which --slo holds, in runs of --duration, 30 s")  # fmt: skip
    add("--slo", default="ttft_p99=2,tpot_p99=0.1", metavar="SLO", help="default: %(default)s (s)")
    add("--start-rate", type=float, default=1.0, metavar="RPS", help="where the search begins")

    limits = parser.add_argument_group("limits of the hardware, in `penstock bench` alone")
    add = limits.add_argument
    add("--roofline", action="store_true",
        help="show the run beside the limits of memory and arithmetic, with formulas")  # fmt: skip
    add("--of", metavar="WHAT",
        help="what the model is: a name of the catalog, a config.json, its folder; default: by"
        " its name")  # fmt: skip
    add("--hardware", metavar="NAME", help="h200, gb200, ..., cpu; default: this machine's")
    add("--gpu", metavar="N", help="index of the GPU to watch, 0 by default")
    add("--weights", metavar="FORMAT", help="as they lie in memory; default: the model's")
    add("--cache", metavar="FORMAT", help="of keys and values: bf16, fp8")
    add("--tensor-parallel", metavar="N", help="devices over which each layer is split")
    add("--slots", metavar="N", help="max_num_seqs, where more is asked at once")

    told = parser.add_argument_group("what is told")
    add = told.add_argument
    add("--watch", action="append", metavar="URL", default=_listed("PENSTOCK_METRICS_URL"),
        help="metrics to draw over the run; default: PENSTOCK_METRICS_URL")  # fmt: skip
    add("--watch-metric", action="append", metavar="NAME", help="default: " + ", ".join(DEFAULT))
    add("--goodput", metavar="SLO", help="what each request is promised: ttft=2,tpot=0.1 (s)")
    add("--fail-if", action="append", metavar="GATE", help="as 'ttft_p99>2'; several at will")
    add("--output", choices=("table", "json"), default="table")
    add("--save-json", type=Path, metavar="FILE", help="in the shape of vllm bench serve, and ours")
    add("--details", action="store_true", help="with each request in that file")
    add("--save-html", type=Path, metavar="FILE", help="one page, with charts")
    add("--save-junit", type=Path, metavar="FILE")
    add("--save-trace", type=Path, metavar="FILE", help="what was sent, to be replayed")
    return parser.parse_args(argv)


def _listed(variable: str) -> list[str]:
    return [value] if (value := os.environ.get(variable)) else []


def profile_from(parsed: argparse.Namespace) -> Profile:
    """The profile that the command line asks for.

    Raises:
        ProfileError: It makes no sense.
        ValueError: Nor does the SLO.
    """
    fields = fields_of(parsed.profile) if parsed.profile else {}
    fields |= _given(
        seed=parsed.seed,
        timeout_s=parsed.timeout,
        warmup=parsed.warmup,
        ignore_eos=parsed.ignore_eos or None,
        stream=False if parsed.no_stream else None,
        fail_if=parsed.fail_if,
        slo=_slo(parsed.goodput),
    )
    load = _load(parsed, _mapping(fields.get("load")))
    if load:
        fields["load"] = load
    workload = _workload(parsed, _mapping(fields.get("workload")))
    if workload:
        fields["workload"] = workload
    return read(fields)


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _mapping(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, dict) else {}


def _slo(text: str | None) -> dict[str, object] | None:
    if text is None:
        return None
    pairs = (pair.strip().partition("=") for pair in text.split(","))
    return {f"{name}_s": value for name, _, value in pairs}


def _load(parsed: argparse.Namespace, load: dict[str, object]) -> dict[str, object]:
    wanted = (
        "replay" if parsed.trace is not None
        else "open" if parsed.rate is not None or parsed.shape is not None
        else "closed" if parsed.concurrency is not None or parsed.requests is not None
        else None
    )  # fmt: skip
    if wanted is not None and load.get("type") != wanted:
        load = {"type": wanted}
        if wanted == "closed" and parsed.requests is None and parsed.duration is None:
            load["requests"] = 20 * (parsed.concurrency or 1)
    load |= _given(
        concurrency=parsed.concurrency,
        requests=parsed.requests,
        rate_rps=parsed.rate,
        burstiness=parsed.burstiness,
        shape=parsed.shape,
        trace=parsed.trace,
        speed=parsed.trace_speed,
        share=parsed.trace_share,
        length=parsed.trace_length,
        duration_s=parsed.duration,
    )
    return {"type": "closed", **load} if load else load


def _workload(parsed: argparse.Namespace, workload: dict[str, object]) -> dict[str, object]:
    if parsed.workload is not None and workload.get("type") != parsed.workload:
        workload = {"type": parsed.workload}
    if parsed.dialogues is not None:
        workload = {"type": "dialogues", "file": parsed.dialogues}
    if parsed.input_tokens is not None:
        workload["prompt"] = {"mean": parsed.input_tokens}
    if parsed.output_tokens is not None:
        workload["output"] = {"mean": parsed.output_tokens}
    workload |= _given(shared=parsed.shared_tokens, completion=parsed.completion or None)
    return {"type": "chat", **workload} if workload else workload
