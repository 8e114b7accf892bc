"""`penstock trace`: a start as a waterfall, and as JSON."""

import json

import pytest

from serving.protocol import ModelState, StartPhase
from serving.views import MarkView, StartView
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import THEN, FakePlatform

MARKS_S = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture(autouse=True)
def starts(platform: FakePlatform) -> None:
    platform.deploy("guide", ModelState.READY)
    phases = (
        StartPhase.DEMAND_SEEN, StartPhase.DECIDED, StartPhase.BOUND, StartPhase.FORKED,
        StartPhase.FIRST_TOKEN,
    )  # fmt: skip
    platform.starts = [
        StartView(
            start_id=f"start-{number}", model="guide", revision=1, engine_id=f"eng-{number}",
            host_id="cpu-1", node="here", began_at=THEN, waited_s=1.01,
            marks=[MarkView(phase=p, at_s=s) for p, s in zip(phases, MARKS_S, strict=True)],
        )
        for number in (1, 2)
    ]  # fmt: skip


def test_trace_draws_the_last_start(run: Run) -> None:
    done = run("trace", "guide")
    assert done.code == 0
    assert "start-2" in done.out
    lines = [line for line in done.out.splitlines() if "250.0 ms" in line]
    assert [line.split()[0] for line in lines] == ["decided", "bound", "forked", "first_token"]
    assert "1010 ms" in done.out


def test_trace_of_one_start_as_json(run: Run) -> None:
    done = run("trace", "guide", "--start", "start-1", "-o", "json")
    (item,) = json.loads(done.out)["items"]
    assert item["engine_id"] == "eng-1"
    assert item["marks"][-1] == {"phase": "first_token", "at_s": 1.0}


def test_trace_without_a_start_says_what_to_do(run: Run, platform: FakePlatform) -> None:
    platform.starts = []
    done = run("trace", "guide")
    assert done.code == 4
    assert "hint: `penstock chat guide` wakes" in done.err


def test_trace_of_a_failed_start_says_why(run: Run, platform: FakePlatform) -> None:
    last = platform.starts[-1]
    failure = {"failed_at_s": 0.75, "error": "its weights are broken", "hint": "fetch them again"}
    marks = last.marks[:3]
    platform.starts = [last.model_copy(update={"marks": marks, "waited_s": None, **failure})]
    done = run("trace", "guide")
    assert done.code == 0
    assert "failed: its weights are broken" in done.out
    assert "hint: fetch them again" in done.out
    (line,) = [line for line in done.out.splitlines() if line.startswith("failed  ")]
    assert "750.0 ms" in line
