"""`penstock bench --roofline`: a load test, and beside it what the hardware would allow at best."""

import argparse
import ipaddress
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any
from urllib.parse import urlsplit

from models.catalog import CatalogNotFoundError
from models.errors import BadRequestError, PenstockError
from models.hardware import Hardware, device_named, hardware_named
from models.precision import Precision
from models.reached import Load, Reached, formulas, reached
from models.roofline import Deployment
from serving.cli import output
from serving.cli.plan import Found, find_model
from serving.engine.nvml import Nvml, NvmlError, Reading, open_nvml

SAMPLE_S = 0.5
"""Between two readings of the GPU while the load runs."""
VERSUS = ("--versus", "--find-capacity")
"""What runs several loads, where one is to be compared."""


@dataclass
class Samples:
    """Readings of one GPU during the run."""

    taken: list[Reading] = field(default_factory=list)

    def summary(self) -> dict[str, float | str | None]:
        """Means and peaks; empty where nothing was read."""
        if not self.taken:
            return {}
        last = self.taken[-1]
        return {
            "name": last.name,
            "readings": len(self.taken),
            "utilisation_mean": _mean(r.utilisation for r in self.taken),
            "memory_used_max_gib": max(r.memory_used_bytes for r in self.taken) / 2**30,
            "power_mean_w": _mean(r.power_w for r in self.taken),
            "power_limit_w": last.power_limit_w,
            "sm_mean_mhz": _mean(r.sm_mhz for r in self.taken),
            "sm_max_mhz": last.sm_max_mhz,
            "memory_mean_mhz": _mean(r.memory_mhz for r in self.taken),
        }


def _mean(values: Any) -> float | None:
    told = [value for value in values if value is not None]
    return fmean(told) if told else None


@contextmanager
def sampled(nvml: Nvml | None, gpu: str) -> Any:
    """Reads the GPU while the block runs; gives the samples."""
    samples, stop = Samples(), threading.Event()

    def read() -> None:
        while nvml is not None and not stop.is_set():
            try:
                samples.taken.append(nvml.read(gpu))
            except NvmlError:
                return
            stop.wait(SAMPLE_S)

    thread = threading.Thread(target=read, name="nvml", daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join(timeout=5)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our flags, and those of the load test."""
    parser = argparse.ArgumentParser("penstock bench --roofline", add_help=False,
                                     allow_abbrev=False)  # fmt: skip
    parser.add_argument("--roofline", action="store_true")
    parser.add_argument("--of")
    parser.add_argument("--hardware")
    parser.add_argument("--gpu", default="0")
    parser.add_argument("--weights", type=Precision)
    parser.add_argument("--cache", type=Precision)
    parser.add_argument("--tensor-parallel", type=int, default=1)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--output", choices=("table", "json"), default="table")
    return parser.parse_known_args(arguments)


def hardware_of(asked: str | None, url: str, nvml: Nvml | None, gpu: str) -> Hardware:
    """What the model runs on: as asked, else this machine's GPU or CPU, if the server is here.

    Raises:
        BadRequestError: If that cannot be told.
    """
    if asked is not None and asked != "cpu":
        return hardware_named(asked)
    if asked is None and not _is_here(url):
        raise BadRequestError(
            f"{url} is another machine: its hardware has to be named",
            param="hardware", hint="--hardware h200",
        )  # fmt: skip
    if asked is None and nvml is not None:
        name = nvml.read(gpu).name
        found = device_named(name)
        if found is None:
            raise BadRequestError(f"the hardware table has no {name}", hint="--hardware NAME")
        return found
    return measured_cpu()


def measured_cpu() -> Hardware:
    """This machine's CPU, with its rates measured now, by one thread as an engine has.

    Raises:
        BadRequestError: If the measurement fails.
    """
    output.stderr().print("measuring this machine's memory and arithmetic")
    command = [sys.executable, "-P", "-m", "loadtests.roofline_machine"]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(command, env=os.environ | one_thread, stdout=subprocess.PIPE, check=False)
    try:
        told = json.loads(done.stdout)
        return replace(
            hardware_named("cpu"),
            title="this machine's CPU, one thread",
            bandwidth_tb_s=told["bandwidth_gb_s"] / 1000,
            bf16_tflops=told["matmul_tflops"],
            source=f"{told['bandwidth_how']}; {told['matmul_how']}",
        )
    except (ValueError, LookupError) as exc:
        raise BadRequestError("the machine's rates could not be measured") from exc


def _is_here(url: str) -> bool:
    host = urlsplit(url if "://" in url else f"http://{url}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def model_of(asked: str, hardware: Hardware) -> Found:
    """The model that was measured, by a name of the catalog or of what is built in, or its files.

    Raises:
        BadRequestError: If its config.json is not to be had.
    """
    try:
        return find_model(asked, hardware)
    except CatalogNotFoundError:
        try:
            return find_model(f"builtin://{asked}", hardware)
        except PenstockError as exc:
            raise BadRequestError(
                f"what {asked!r} is cannot be told from its name",
                param="of", hint="--of FOLDER, or a config.json, or a name of the catalog",
            ) from exc  # fmt: skip


def load_of(told: Mapping[str, Any], slots: int | None) -> Load:
    """The run as `penstock bench --output json` tells it.

    The batch is the mean number of requests at once, by Little's law.

    Raises:
        BadRequestError: If it answered nothing.
    """
    completed, duration_s = told.get("completed") or 0, told.get("duration") or 0.0
    if not completed or not duration_s or "mean_e2el_ms" not in told:
        raise BadRequestError("no request was answered: there is nothing to compare")
    batch = completed * told["mean_e2el_ms"] / 1000 / duration_s
    ours = told.get("penstock") or {}
    prompts = told["total_input_tokens"] - (ours.get("cached_tokens") or 0)
    tpot_ms = told.get("mean_tpot_ms")
    return Load(
        batch=batch if slots is None else min(batch, slots),
        prompt_tokens=max(prompts, 0) / completed,
        answer_tokens=told["total_output_tokens"] / completed,
        tokens_s=told["output_throughput"],
        tpot_s=None if tpot_ms is None else tpot_ms / 1000,
    )


def bench_roofline(arguments: Sequence[str], url: str, settings: Mapping[str, str]) -> int:
    """Runs the load and prints both; gives back the load test's exit code.

    Raises:
        PenstockError: If model or hardware cannot be told, or the run answered nothing.
    """
    parsed, rest = parse(arguments)
    if clash := [flag for flag in VERSUS if flag in rest]:
        raise BadRequestError(f"--roofline and {clash[0]} do not go together")
    target = next((word for word in rest[:1] if not word.startswith("-")), url)
    nvml = open_nvml() if parsed.hardware != "cpu" else None
    hardware = hardware_of(parsed.hardware, target, nvml, parsed.gpu)
    if hardware.is_cpu:
        nvml = None
    model = model_of(parsed.of, hardware) if parsed.of else None
    command = [sys.executable, "-P", "-m", "loadtests.bench", *rest, "--output", "json"]
    with sampled(nvml, parsed.gpu) as samples:
        done = subprocess.run(
            command, env=os.environ | dict(settings), stdout=subprocess.PIPE, check=False
        )
    if not done.stdout:
        return done.returncode
    told = json.loads(done.stdout)
    model = model or model_of(str(told["model_id"]), hardware)
    found = reached(
        Deployment(
            model.architecture,
            hardware,
            parsed.weights or model.weights,
            parsed.cache or model.cache,
            tensor_parallel=parsed.tensor_parallel,
        ),
        load_of(told, parsed.slots),
    )
    gpu = samples.summary()
    if parsed.output == "json":
        output.print_json(told | {"roofline": document(found, gpu)})
    else:
        show(found, gpu)
    return done.returncode


def document(found: Reached, gpu: Mapping[str, float | str | None]) -> dict[str, object]:
    """The same for machines; rates in answer tokens/s."""
    deployment = found.deployment
    return {
        "hardware": deployment.hardware.name,
        "devices": deployment.devices,
        "source": deployment.hardware.source,
        "weights": deployment.weights,
        "cache": deployment.cache,
        "load": asdict(found.load),
        "memory_limit": found.memory_limit,
        "compute_limit": found.compute_limit,
        "decode_limit": found.decode_limit,
        "run_limit": found.run_limit,
        "decode_measured": found.decode_tokens_s,
        "decode_share": found.decode_share,
        "share": found.share,
        "bound": found.bound,
        "formulas": formulas(found),
        "gpu": dict(gpu),
    }


def show(found: Reached, gpu: Mapping[str, float | str | None]) -> None:
    """Prints the comparison for people."""
    deployment, load = found.deployment, found.load
    hardware, model = deployment.hardware, deployment.model
    rows = [
        ("memory limit", _rate(found.memory_limit), ""),
        ("compute limit", _rate(found.compute_limit), ""),
        ("decode limit", _rate(found.decode_limit), f"{found.bound} bound"),
    ]
    if found.decode_tokens_s is not None and found.decode_share is not None:
        rows.append(("decode, measured", _rate(found.decode_tokens_s), f"{found.decode_share:.2f}"))
    rows += [
        ("limit with prompts", _rate(found.run_limit), ""),
        ("run, measured", _rate(load.tokens_s), f"{found.share:.2f}"),
    ]
    console = output.stdout()
    console.print(
        f"{model.family}, {model.parameters / 1e9:.3g}B, weights {deployment.weights}, cache "
        f"{deployment.cache}; {deployment.devices} x {hardware.title}\n"
        f"batch {load.batch:.4g}, {load.prompt_tokens:.4g} in, {load.answer_tokens:.4g} out\n"
    )
    output.print_items([], ("what", "tokens/s", "share"), rows, output.Format.TABLE)
    for line in ("", *formulas(found), f"hardware: {hardware.source}"):
        console.print(line, soft_wrap=True)
    if gpu:
        told = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in gpu.items()
            if value is not None
        )
        console.print(f"gpu during the run: {told}", soft_wrap=True)


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
