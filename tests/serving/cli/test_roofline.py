"""`penstock bench --roofline`: a run beside its limits, and what it asks of model and hardware."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.catalog import names
from models.errors import BadRequestError
from models.hardware import HARDWARE, device_named
from serving.cli.roofline import (
    Samples,
    hardware_of,
    load_of,
    model_of,
    parse,
    sampled,
)
from serving.engine.nvml import Nvml
from tests.serving.engine.fake_nvml import Device, FakeNvml

PENSTOCK = Path(sys.executable).with_name("penstock")
H200 = HARDWARE[0]
TOLD = {
    "completed": 10, "duration": 5.0, "mean_e2el_ms": 2000.0, "mean_tpot_ms": 15.0,
    "total_input_tokens": 1000, "total_output_tokens": 1280, "output_throughput": 256.0,
    "penstock": {"cached_tokens": 200},
}  # fmt: skip


@pytest.fixture
def engine() -> Iterator[str]:
    command = [sys.executable, "-m", "loadtests.fake_engine", "--step-ms", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(running.stdout.readline())['port']}"
        finally:
            running.terminate()


def bench(url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "OPENAI_"))}
    return subprocess.run(
        [PENSTOCK, "bench", url, *flags], env=clean, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


def test_run_is_shown_beside_its_limits_with_the_formula(engine: str) -> None:
    run = ("--requests", "4", "--output-tokens", "8", "--ignore-eos")
    as_h200 = ("--roofline", "--of", "guide", "--hardware", "h200")
    done = bench(engine, *run, *as_h200)
    assert done.returncode == 0, done.stderr
    for words in ("memory limit", "run, measured", "memory: batch x bandwidth", "H200 datasheet"):
        assert words in done.stdout
    done = bench(engine, *run, *as_h200, "--output", "json")
    told = json.loads(done.stdout)
    assert told["completed"] == 4
    found = told["roofline"]
    assert found["hardware"] == "h200"
    assert found["share"] == pytest.approx(told["output_throughput"] / found["run_limit"])
    assert found["gpu"] == {}


def test_model_that_nobody_knows_is_refused_before_the_load_runs() -> None:
    done = bench("http://127.0.0.1:9", "--roofline", "--of", "no-such", "--hardware", "h200")
    assert done.returncode == 2
    assert "--of FOLDER" in done.stderr


def test_roofline_and_a_comparison_do_not_go_together() -> None:
    done = bench("http://127.0.0.1:9", "--roofline", "--versus", "http://127.0.0.1:8")
    assert done.returncode == 2
    assert "--versus" in done.stderr


def test_batch_is_what_was_in_flight_on_average() -> None:
    load = load_of(TOLD, None)
    assert load.batch == 4.0  # 10 requests of 2 s within 5 s
    assert (load.prompt_tokens, load.answer_tokens) == (80.0, 128.0)
    assert load.tpot_s == 0.015
    assert load_of(TOLD, 3).batch == 3


@pytest.mark.parametrize("missing", ["completed", "duration", "mean_e2el_ms"])
def test_run_that_answered_nothing_is_not_compared(missing: str) -> None:
    with pytest.raises(BadRequestError, match="nothing to compare"):
        load_of({name: value for name, value in TOLD.items() if name != missing}, None)


@pytest.mark.parametrize(
    ("driver", "name"),
    [("NVIDIA H200", "h200"), ("NVIDIA GB200", "gb200"), ("NVIDIA H100 80GB HBM3", "h100"),
     ("NVIDIA A100-SXM4-80GB", "a100"), ("NVIDIA GeForce RTX 3060", None)],
)  # fmt: skip
def test_hardware_is_known_by_its_drivers_name(driver: str, name: str | None) -> None:
    found = device_named(driver)
    assert (None if found is None else found.name) == name


def test_hardware_here_is_the_drivers_and_elsewhere_has_to_be_named() -> None:
    nvml = Nvml(FakeNvml(Device()))
    assert hardware_of(None, "http://127.0.0.1:8000", nvml, "0") is H200
    assert hardware_of("gb200", "https://elsewhere.example", None, "0").name == "gb200"
    with pytest.raises(BadRequestError, match="another machine"):
        hardware_of(None, "https://elsewhere.example", nvml, "0")
    strange = Nvml(FakeNvml(Device(name=b"Some Card")))
    with pytest.raises(BadRequestError, match="Some Card"):
        hardware_of(None, "localhost:8000", strange, "0")


def test_gpu_is_read_while_the_load_runs() -> None:
    with sampled(Nvml(FakeNvml(Device())), "0") as samples:
        while not samples.taken:
            pass
    told = samples.summary()
    assert told["power_mean_w"] == 650.5
    assert told["utilisation_mean"] == 0.97
    assert (told["sm_mean_mhz"], told["sm_max_mhz"]) == (1980, 1980)
    assert told["memory_used_max_gib"] == 10.0
    assert Samples().summary() == {}


def test_models_are_found_in_the_catalog_and_among_those_built_in() -> None:
    assert model_of("guide", H200).architecture.layers == 4
    first = names()[0]
    assert model_of(first, H200).architecture.layers > 4


def test_flags_that_are_not_ours_are_the_load_tests() -> None:
    parsed, rest = parse(["http://h", "--roofline", "--requests", "4", "--weights", "fp8"])
    assert parsed.weights == "fp8"
    assert rest == ["http://h", "--requests", "4"]
