"""The command and its script: what they refuse, what they hand on, what they leave behind."""

import json
import os
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

import loadtests.gpu.check as check
from loadtests.gpu import smi
from loadtests.gpu.bars import bars
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
        [FOLDER / "check.sh", *arguments], cwd=folder, capture_output=True, text=True, timeout=120,
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
