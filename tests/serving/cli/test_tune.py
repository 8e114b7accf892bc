"""`penstock tune`: what it takes, what it refuses, what it prints; no engine is started."""

import json
from pathlib import Path

import pytest
import yaml

from models.errors import BadRequestError, ConflictError, UnavailableError
from models.manifest import parse_manifest
from serving.cli import output, tune_machine, tune_run
from serving.cli.output import Format
from serving.cli.tune import parse_counts, parse_span
from serving.cli.tune_machine import accelerator_of, machine_for
from serving.cli.tune_run import CPU_LOAD, Wanted, manifest_of
from serving.engine.nvml import Nvml, Reading
from tests.models.test_profile_measured import measured
from tests.serving.cli.conftest import Run
from tests.serving.engine.fake_nvml import Device, FakeNvml

GIB = 2**30


def gpu(number: int, name: str = "NVIDIA H200", used_gib: float = 0.1) -> Reading:
    return Reading(str(number), name, int(used_gib * GIB), 141 * GIB)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("20m", 1200.0), ("1.5h", 5400.0), (" 5m ", 300.0)]
)
def test_span_is_read(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "20", "0m", "-1m", "m", "20 minutes"])
def test_span_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="20m"):
        parse_span(text)


def test_counts_are_read_in_order() -> None:
    assert parse_counts("32,1, 8,8") == (1, 8, 32)
    for text in ("", "0,1", "x", "1;2"):
        with pytest.raises(BadRequestError):
            parse_counts(text)


def test_machine_without_a_driver_is_a_cpu() -> None:
    assert accelerator_of([]) == "cpu"
    assert machine_for("cpu", 0, []).gpus == ()
    with pytest.raises(UnavailableError, match="no NVIDIA driver answers"):
        machine_for("h200", 1, [])


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (FakeNvml(Device(), init=18), "code 18"),  # another version than the kernel's module
        (FakeNvml(Device(), Device(lost=True)), "code 15"),
    ],
    ids=["mismatch", "lost"],
)
def test_driver_that_does_not_serve_is_told_and_no_gpu_is_used(driver: FakeNvml, said: str) -> None:
    told: list[str] = []
    assert tune_machine.read_gpus(told.append, lambda: Nvml(driver)) == []
    (warning,) = told
    assert warning.startswith("warning: ")
    assert said in warning
    assert not driver.is_open


def test_machine_without_a_driver_is_no_reason_for_a_warning() -> None:
    told: list[str] = []
    assert tune_machine.read_gpus(told.append, lambda: None) == []
    found = tune_machine.read_gpus(told.append, lambda: Nvml(FakeNvml(Device())))
    assert [gpu.name for gpu in found] == ["NVIDIA H200"]
    assert told == []


def test_devices_are_known_by_their_names() -> None:
    assert accelerator_of([gpu(0)]) == "h200"
    assert accelerator_of([gpu(0, "NVIDIA GB200")]) == "gb200"
    assert accelerator_of([gpu(0, "NVIDIA H100 80GB HBM3")]) == "h100"
    assert accelerator_of([gpu(0, "Some Other")]) == "cpu"


def test_free_devices_are_chosen_and_taken_ones_named() -> None:
    both = [gpu(0, used_gib=40.0), gpu(1)]
    assert machine_for("h200", 1, both).gpus == ("1",)
    with pytest.raises(UnavailableError, match=r"on GPU 0 40\.0 GiB are taken"):
        machine_for("h200", 2, both)
    with pytest.raises(UnavailableError, match="1 x h100 are needed; this machine has 2 x NVIDIA"):
        machine_for("h100", 1, both)


def test_model_is_a_catalog_name_a_file_or_a_source(tmp_path: Path) -> None:
    assert manifest_of("guide", "cpu").engine.max_num_seqs == 32
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump({"name": "m", "source": "hf://a/b", "profile": "latency"}))
    assert manifest_of(str(path), "cpu").engine.max_num_seqs == 8
    assert manifest_of("hf://some/Body", "cpu").name == "body"
    with pytest.raises(BadRequestError, match="generates nothing"):
        manifest_of("bge-m3", "h200")
    elsewhere = {"name": "m", "endpoints": [{"url": "https://example.com", "model": "x"}]}
    path.write_text(yaml.safe_dump(elsewhere))
    with pytest.raises(BadRequestError, match="no engine to tune"):
        manifest_of(str(path), "cpu")


def test_prompts_alone_fit_the_context() -> None:
    wanted = Wanted("guide", "", 1.0)
    cpu = machine_for("cpu", 0, [])
    assert wanted.load(cpu, None) == CPU_LOAD
    assert wanted.load(cpu, 256).prefill_tokens == 256 - 64 - 16


def test_bad_flags_are_refused_before_anything_starts(run: Run) -> None:
    for flags in (("--budget", "soon"), ("--slo", "ttft=2"), ("--goal", "fast"),
                  ("--concurrency", "0"), ("--pairs", "-1")):  # fmt: skip
        assert run("tune", "guide", *flags).code == 2, flags
    assert run("tune", "nobody").code == 4


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        tune_machine.only_one(tmp_path),
        pytest.raises(ConflictError, match="another tuning run"),
        tune_machine.only_one(tmp_path),
    ):
        pass


def test_what_a_killed_run_left_is_removed_and_a_live_ones_stays(tmp_path: Path) -> None:
    left = {name: tune_machine._new_runtime(run_of(tmp_path, name)) for name in ("dead", "live")}
    (tmp_path / "dead" / "trials.jsonl").write_text("{}\n")
    with tune_machine.only_one(tmp_path / "live"):
        tune_machine.clear_up(tmp_path)
        assert not left["dead"].exists()
        assert left["live"].exists()
    assert (tmp_path / "dead" / "trials.jsonl").exists()
    tune_machine.clear_up(tmp_path)
    assert not left["live"].exists()


def test_the_next_run_of_the_same_kind_removes_what_was_left(tmp_path: Path) -> None:
    first = tune_machine._new_runtime(run_of(tmp_path, "a"))
    second = tune_machine._new_runtime(tmp_path / "a")
    assert not first.exists()
    assert second.exists()
    tune_machine.clear_up(tmp_path)
    assert not second.exists()


def test_nothing_else_is_removed_whatever_a_note_says(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (run_of(tmp_path, "a") / "runtime").write_text(str(other))
    tune_machine.clear_up(tmp_path)
    assert other.exists()


def run_of(runs: Path, name: str) -> Path:
    """A run's folder, as a run leaves it."""
    with tune_machine.only_one(runs / name):
        return runs / name


def test_answer_is_what_to_write_into_a_manifest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    profile = measured(settings={"max_num_seqs": 64, "stream_interval": 4})
    tune_run.show(profile, tmp_path / "p.yaml", output.stderr(), Format.TABLE)
    told = capsys.readouterr()
    fragment = yaml.safe_load(told.out.partition("tokens/s\n\n")[2])
    assert fragment == {"engine": {"max_num_seqs": 64, "args": {"stream_interval": 4}}}
    parse_manifest({"name": "m", "source": "hf://a/b", **fragment})
    assert "1.100 of the defaults, 95 % interval 1.050 to 1.150, 10 pairs" in told.err
    tune_run.show(profile, tmp_path / "p.yaml", output.stderr(), Format.JSON)
    assert json.loads(capsys.readouterr().out)["paired"]["ratio"] == 1.1
