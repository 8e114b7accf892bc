"""`penstock usage`: sums, exports and whether the counts agree."""

import json

import pytest

from models.errors import BadRequestError
from serving.cli.usage import moment
from serving.usage_views import DriftView, ReconcileView, UsageView
from serving.views import Items
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import THEN, FakePlatform

NOW = 1_700_000_000.0

AGREE = ReconcileView(
    since=THEN, requests=5, attempts=6, unresolved=0, unknown=0, usage_without_attempt=0,
    attempts_without_usage=0, lost_attempts=0,
    drifts=[DriftView(between="usage and attempts", kind="prompt", left=7, right=7)],
)  # fmt: skip


def test_usage_is_summed_up_by_what_is_asked(run: Run, platform: FakePlatform) -> None:
    view = UsageView(
        group="key-1", requests=2, unknown=0, prompt_tokens=30, cached_tokens=8,
        completion_tokens=12, reasoning_tokens=0, engine_s=1.5,
    )  # fmt: skip
    platform.resources["/usage"] = Items[UsageView](items=[view])
    done = run("usage", "--by", "key", "--since", "2026-01-01", "--until", "2026-01-02")
    assert (done.code, done.err) == (0, "")
    columns, line = done.out.splitlines()
    assert columns.split()[:2] == ["KEY", "REQUESTS"]
    assert line.split() == ["key-1", "2", "0", "30", "8", "12", "0"]
    asked = platform.asked[-1][2]
    assert asked == {"by": ["key"], "since": ["1767225600.0"], "until": ["1767312000.0"]}
    told = json.loads(run("usage", "--output", "json").out)
    assert told["items"][0]["completion_tokens"] == 12


def test_export_writes_the_rows_as_they_come(run: Run, platform: FakePlatform) -> None:
    platform.resources["/usage/export"] = "usage_id,at\nabc,1.0\n"
    assert run("usage", "export", "--format", "csv").out == "usage_id,at\nabc,1.0\n"
    assert platform.asked[-1][2]["format"] == ["csv"]


def test_reconcile_says_that_all_counts_agree(run: Run, platform: FakePlatform) -> None:
    platform.resources["/usage/reconcile"] = AGREE
    done = run("usage", "reconcile")
    assert (done.code, done.out.splitlines()[-1]) == (0, "all counts agree")


def test_reconcile_names_each_difference_and_exits_with_1(run: Run, platform: FakePlatform) -> None:
    drift = DriftView(between="attempts and recorders", kind="completion", left=5, right=9)
    platform.resources["/usage/reconcile"] = AGREE.model_copy(
        update={"drifts": [drift], "unresolved": 3}
    )
    done = run("usage", "reconcile")
    assert done.code == 1
    assert "3 requests wait for a recorder to tell their tokens" in done.out
    assert "attempts and recorders differ by -4 completion tokens: 5, 9" in done.out
    assert json.loads(run("usage", "reconcile", "-o", "json").out)["unresolved"] == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90m", NOW - 5400), ("7d", NOW - 604_800), ("2023-11-14T22:13:20", NOW),
     ("2023-11-14T23:13:20+01:00", NOW)],
)  # fmt: skip
def test_moment_takes_ages_and_dates(text: str, expected: float) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "-5h", "5", "1e9"])
def test_moment_refuses_anything_else(text: str) -> None:
    with pytest.raises(BadRequestError, match="is no time"):
        moment(text, NOW)
