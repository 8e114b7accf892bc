"""The command and its script: what they refuse, what they hand on, what they leave behind."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pytest

import loadtests.gpu.check as check
from loadtests.gpu import smi
from loadtests.gpu.bars import bars
from loadtests.gpu.engines import BARE_PID, ENTRY_POINT
from loadtests.gpu.load import LoadError
from loadtests.gpu.part import Record
from loadtests.gpu.parts import PARTS
from loadtests.gpu.plan import from_json, on_cpu, on_gpu
from loadtests.gpu.runner import Result

FOLDER = Path(check.__file__).parent
H200 = "NVIDIA H200, 580.159.04, 143771, 12, 1980, 75.31"


def test_limits_of_all_parts_leave_none_without_time() -> None:
    assert next(iter(PARTS)) == "machine"
    assert all(limit_s <= check.BUDGET_S / 4 for _, limit_s in PARTS.values())


def test_plan_survives_the_way_to_its_part(tmp_path: Path) -> None:
    for plan in (on_cpu(tmp_path, "python", quick=True), on_gpu(tmp_path, "python", "h200")):
        assert from_json(plan.to_json()) == plan
        assert len(plan.concurrencies) == len(plan.requests)


def test_parts_are_run_in_their_order_whatever_is_asked(tmp_path: Path) -> None:
    plan = on_cpu(tmp_path, "python", quick=True)
    assert [task.name for task in check.tasks(plan, "sleep,bare")] == ["bare", "sleep"]
    assert [task.name for task in check.tasks(plan, None)] == list(PARTS)


def test_script_and_command_have_the_same_time_and_the_callers_stands() -> None:
    assert f"readonly BUDGET_S={check.BUDGET_S:.0f}\n" in (FOLDER / "check.sh").read_text()
    assert check.parse(["--budget-s", "1300", "--budget-s", "60"]).budget_s == 60


def test_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check.parse(["--parts", "bare,no-such"])
    assert "there is no part no-such" in capsys.readouterr().err


def test_gpu_is_read_as_nvidia_smi_tells_it() -> None:
    gpu = smi.parse(H200)
    assert (gpu.accelerator, gpu.total_mib, gpu.used_mib, gpu.power_w) == ("h200", 143771, 12, 75.3
                                                                           + 0.01)  # fmt: skip
    assert smi.parse(H200.replace("75.31", "[N/A]")).power_w == 0.0
    with pytest.raises(ValueError, match="values to unpack"):
        smi.parse("No devices were found")


@pytest.mark.parametrize(
    ("found", "said"),
    [(None, "--cpu"), (smi.parse(H200.replace("H200", "T4")), "does not know NVIDIA T4")],
)
def test_machine_that_cannot_be_checked_is_told(found: smi.Gpu | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check.make_plan(check.parse([]), found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "mismatch"),
        ("exit 9", "nvidia-smi says: nothing"),
    ],
)
def test_driver_that_does_not_serve_is_told_in_its_own_words(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{words}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert smi.gpu() is None
    with pytest.raises(ValueError, match=said):
        check.make_plan(check.parse([]), smi.gpu())


@pytest.mark.parametrize(
    ("used_mib", "holders", "said"),
    [(12, ["4711, 9000"], "in use by another process: 4711"), (40000, [], "40000 MiB of the GPU")],
)
def test_gpu_in_use_is_refused_also_where_nobody_is_seen(
    used_mib: int, holders: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = H200.replace(", 12,", f", {used_mib},")
    command = tmp_path / "nvidia-smi"
    told = " ".join(f"'{holder}'" for holder in holders)
    command.write_text(
        f"#!/bin/sh\ncase $1 in *compute-apps*) printf '%s\\n' {told};; *) echo '{line}';; esac\n"
        if holders
        else f"#!/bin/sh\ncase $1 in *compute-apps*) ;; *) echo '{line}';; esac\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    figures: dict[str, object] = {}
    with pytest.raises(LoadError, match=said):
        PARTS["machine"][0](on_gpu(tmp_path, "python", "h200"), figures.update)
    assert figures["others_on_the_gpu"] == holders


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_dry_run_without_engines_ends_with_a_table_and_a_file(tmp_path: Path) -> None:
    done = script(
        "--installed", "--python", sys.executable, "--work", str(tmp_path / "work"), "--cpu",
        "--quick", "--parts", "machine,hardware,models,sleep", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()[1:5]}
    assert rows == {"machine": "ok", "hardware": "ok", "models": "ok", "sleep": "skipped"}
    file = Path(done.stdout.splitlines()[-1])
    told = json.loads(file.read_text())
    assert [part["name"] for part in told["parts"]] == list(rows)
    assert told["parts"][1]["figures"]["device"] == "cpu"
    assert told["bars"] == []  # nothing was promised


def test_server_of_a_part_that_was_killed_is_ended_and_nobody_else(tmp_path: Path) -> None:
    plan = on_cpu(tmp_path, sys.executable, quick=True)
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    for command, code in (([*sleeper, ENTRY_POINT], -9), (sleeper, None)):
        with subprocess.Popen(command, start_new_session=True) as process:
            (tmp_path / BARE_PID).write_text(str(process.pid))
            while not Path(f"/proc/{process.pid}/cmdline").read_text():  # it is about to be there
                time.sleep(0.01)
            check.clean_up(plan, "bare")
            if code is None:
                assert process.poll() is None
                process.kill()
            else:
                assert process.wait(60) == code
            assert not (tmp_path / BARE_PID).exists()
    check.clean_up(plan, "bare")


def test_document_has_parts_and_bars_but_no_folders(tmp_path: Path) -> None:
    plan, results = on_gpu(tmp_path, "/somewhere/python", "h200"), [Result("machine", "ok")]
    text = check.document(plan, datetime(2026, 11, 22, tzinfo=UTC), results, bars(results))
    told = json.loads(text)
    assert told["parts"] == [json.loads(json.dumps(asdict(results[0])))]
    assert {bar["met"] for bar in told["bars"]} == {None}
    assert str(tmp_path) not in text
    assert "/somewhere" not in text


def test_record_is_whole_on_disk_after_each_figure(tmp_path: Path) -> None:
    file = tmp_path / "part.json"
    record = Record(file)
    record.note(a=1)
    record.note(b=2)
    assert json.loads(file.read_text()) == {
        "status": "running", "said": "", "figures": {"a": 1, "b": 2},
    }  # fmt: skip
    record.end("failed", "no")
    assert json.loads(file.read_text())["status"] == "failed"


def script(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FOLDER / "check.sh", *arguments], cwd=folder, capture_output=True, text=True, timeout=400,
        check=False, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cpu",), "no folder of wheels is named"),
        (("--wheels", "."), "has no wheels"),
        (("--python", "no-such-python"), "there is no no-such-python"),
        (("--wheels",), "--wheels needs a value"),
    ],
)
def test_script_says_what_it_misses(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = script(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "hint: " in done.stderr
