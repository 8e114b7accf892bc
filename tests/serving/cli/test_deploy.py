"""Deploying: manifests and sources in, states followed, and never a hang."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from models.errors import BadRequestError, ManifestError, UnavailableError
from serving.cli.client import AdminClient
from serving.cli.follow import Bars, Follower
from serving.cli.wanted import name_of
from serving.protocol import EnginePhase, ModelState, StartPhase
from serving.rollout import CanaryView, FiguresView, RolloutView
from serving.views import Applied, EventView, FetchView, MarkView
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import ADMIN_KEY, THEN, FakePlatform


def write_manifest(folder: Path, text: str) -> str:
    path = folder / "model.yaml"
    path.write_text(text)
    return str(path)


MINIMAL = "name: mine\nsource: builtin://guide\n"


def test_manifest_is_sent_as_it_was_written(
    run: Run, platform: FakePlatform, tmp_path: Path
) -> None:
    outcome = run("deploy", "-f", write_manifest(tmp_path, MINIMAL))
    assert outcome.code == 0
    assert "model mine deployed, revision 1" in outcome.err
    assert "mine is ready" in outcome.err
    method, path, _, body = next(call for call in platform.asked if call[0] == "POST")
    assert (method, path) == ("POST", "/admin/v1/models")
    assert json.loads(body) == {"name": "mine", "source": "builtin://guide"}


def test_source_becomes_a_manifest(run: Run, platform: FakePlatform) -> None:
    assert run("deploy", "hf://Qwen/Qwen3-0.6B@main").code == 0
    assert list(platform.models) == ["qwen3-0.6b"]
    assert run("deploy", "hf://Qwen/Qwen3-0.6B", "--name", "small").code == 0
    assert list(platform.models) == ["qwen3-0.6b", "small"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf://Qwen/Qwen3-0.6B@refs/pr/1", "qwen3-0.6b"),
        ("builtin://guide", "guide"),
        ("file:///srv/My Model (2)/", "my-model-2"),
        ("file:///srv/__x__", "x"),
    ],
)
def test_name_follows_from_the_source(source: str, name: str) -> None:
    assert name_of(source) == name


def test_source_without_a_usable_name_asks_for_one() -> None:
    with pytest.raises(BadRequestError) as caught:
        name_of("file:///")
    assert "--name" in (caught.value.hint or "")


def test_bad_manifest_is_refused_before_anything_is_sent(
    run: Run, platform: FakePlatform, tmp_path: Path
) -> None:
    outcome = run("deploy", "-f", write_manifest(tmp_path, MINIMAL + "colour: red\n"))
    assert outcome.code == 2
    assert "colour" in outcome.err
    assert not platform.asked


def test_missing_file_is_bad_input(run: Run, platform: FakePlatform) -> None:
    outcome = run("deploy", "-f", "nowhere.yaml")
    assert outcome.code == 2
    assert "nowhere.yaml" in outcome.err


def test_manifest_that_the_platform_refuses_names_the_field(
    run: Run, platform: FakePlatform
) -> None:
    platform.failure = ManifestError("there is no pool h200x1", param="resources.accelerator")
    outcome = run("deploy", "builtin://guide")
    assert outcome.code == 2
    assert "resources.accelerator: there is no pool h200x1" in outcome.err
    assert "hint: " in outcome.err


def test_wait_follows_the_states_until_ready(run: Run, platform: FakePlatform) -> None:
    platform.states = [ModelState.WAKING, ModelState.WAKING, ModelState.READY]
    outcome = run("deploy", "builtin://guide")
    assert outcome.code == 0
    assert "guide is waking: because" in outcome.err
    assert "guide is ready" in outcome.err


def test_wait_outlasts_a_controllers_restart(platform: FakePlatform) -> None:
    platform.deploy("guide", ModelState.READY)
    applied = [Applied(model="guide", revision=1, changed=True)]
    console = Console(file=io.StringIO())
    with AdminClient(platform.url, ADMIN_KEY) as admin:
        patient = Follower(admin, console, 60.0, sleep=lambda _: None)
        platform.away = 2
        assert patient.wait(applied)[0].state is ModelState.READY
        platform.away = 2
        with pytest.raises(UnavailableError, match="the controller does not answer"):
            Follower(admin, console, 60.0, away_s=0.0).wait(applied)


def test_wait_follows_the_phases_of_a_start(run: Run, platform: FakePlatform) -> None:
    marks = [
        MarkView(phase=phase, at_s=at_s)
        for phase, at_s in (
            (StartPhase.DECIDED, 0.0), (StartPhase.BOUND, 0.1), (StartPhase.FORKED, 0.25)
        )
    ]  # fmt: skip
    platform.start_engine("e1", "guide")
    starting = {"phase": EnginePhase.STARTING, "marks": marks}
    platform.engines = [platform.engines[0].model_copy(update=starting)]
    platform.states = [ModelState.WAKING, ModelState.WAKING, ModelState.READY]
    told = run("deploy", "builtin://guide").err
    assert told.count("guide on cpu-1: bound after 0.1 s") == 1
    assert told.count("guide on cpu-1: forked after 0.2 s") == 1
    assert "decided" not in told


def test_bars_show_fetches_and_starts_on_a_terminal(platform: FakePlatform) -> None:
    platform.start_engine("e1", "guide")
    marks = [MarkView(phase=StartPhase.ENGINE_READY, at_s=0.5)]
    engine = platform.engines[0].model_copy(update={"marks": marks})
    shown = io.StringIO()
    with Bars(Console(file=shown, force_terminal=True, width=100)) as bars:
        bars.show("guide on n1", 3 << 20, 4 << 20)
        bars.start(engine)
    assert "3.0/4.0 MiB" in shown.getvalue()
    assert "engine ready" in shown.getvalue()


def test_wait_ends_where_a_model_may_sleep(run: Run, platform: FakePlatform) -> None:
    platform.states = [ModelState.ASLEEP]
    outcome = run("deploy", "builtin://guide")
    assert outcome.code == 0
    assert "the first request wakes it" in outcome.err


def test_wait_takes_sleep_for_a_start_where_an_engine_is_wanted(
    run: Run, platform: FakePlatform, tmp_path: Path
) -> None:
    platform.states = [ModelState.ASLEEP, ModelState.WAKING, ModelState.READY]
    outcome = run("deploy", "-f", write_manifest(tmp_path, MINIMAL + "scaling: {min: 1}\n"))
    assert outcome.code == 0
    assert "mine is ready" in outcome.err


def test_wait_ends_with_the_reason_of_a_failure(run: Run, platform: FakePlatform) -> None:
    platform.states = [ModelState.WAKING, ModelState.FAILED, ModelState.FAILED]
    outcome = run("deploy", "builtin://guide")
    assert outcome.code == 6
    assert "guide failed: because" in outcome.err
    assert "hint: `penstock logs guide`" in outcome.err


def test_wait_ends_at_its_timeout(run: Run, platform: FakePlatform) -> None:
    platform.states = [ModelState.WAKING]
    outcome = run("deploy", "builtin://guide", "--timeout-s", "1")
    assert outcome.code == 6
    assert "waking after 1 s" in outcome.err


def rolled(revision: int, ready: int, *, failed: bool = False, **fields: Any) -> RolloutView:
    values: dict[str, Any] = {
        "model": "guide", "revision": revision, "done": ready == 1, "engines_wanted": 1,
        "ready": ready, "starting": 1 - ready, "old": 1 - ready, "failed": failed,
        "reason": "an older revision serves", **fields,
    }  # fmt: skip
    return RolloutView(**values)


def test_wait_is_for_the_new_revision_where_an_old_one_serves(
    run: Run, platform: FakePlatform
) -> None:
    platform.rollouts = [rolled(1, 0), rolled(1, 0), rolled(1, 1)]
    platform.states = [ModelState.READY] * 3
    outcome = run("deploy", "builtin://guide")
    assert outcome.code == 0
    assert len([call for call in platform.asked if call[1].endswith("/rollout")]) == 3


def test_wait_ends_where_the_new_revision_does_not_start(run: Run, platform: FakePlatform) -> None:
    reason = "an older revision serves until the current one is ready; the last start failed: no"
    platform.rollouts = [rolled(1, 0), rolled(1, 0, failed=True, reason=reason)]
    platform.states = [ModelState.READY, ModelState.DEGRADED]
    outcome = run("deploy", "builtin://guide")
    assert outcome.code == 6
    assert "revision 1 of guide does not start" in outcome.err
    assert "the last start failed: no" in outcome.err


FIGURES = FiguresView(answered=0, failed=0, ttft_p95_s=None, tpot_p95_s=None)


def test_wait_ends_with_a_canarys_first_share(run: Run, platform: FakePlatform) -> None:
    canary = CanaryView(
        stable=1, share=0.05, step=1, steps=4, paused=False, why="", old=FIGURES, new=FIGURES
    )
    on_its_way = rolled(1, 1, done=False, canary=canary)
    platform.rollouts = [
        rolled(1, 0, canary=canary),
        on_its_way.model_copy(update={"canary": canary.model_copy(update={"share": 0.0})}),
        on_its_way,
    ]
    outcome = run("deploy", "builtin://guide")
    assert outcome.code == 0
    assert "revision 1 gets 5% of the requests, revision 1 the rest" in " ".join(
        outcome.err.split()
    )


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        ("revision 1 gives way to revision 0: it is slow", 6, "it is slow"),
        ("revision 9 gives way to revision 8: it is slow", 5, "was deployed meanwhile"),
    ],
)
def test_wait_ends_where_another_revision_takes_the_place(
    run: Run, platform: FakePlatform, message: str, code: int, says: str
) -> None:
    platform.events = [
        EventView(
            at=THEN, kind="rollout_rolled_back", model="guide", engine_id=None, message=message
        )
    ]
    platform.replaced_by = 2
    outcome = run("deploy", "builtin://guide")
    assert outcome.code == code
    assert says in outcome.err


def test_wait_tells_of_a_failure_while_another_model_still_starts(
    run: Run, platform: FakePlatform, tmp_path: Path
) -> None:
    text = MINIMAL + "---\n" + MINIMAL.replace("mine", "yours")
    # One state for each read: deployed, deployed; then a look at each.
    platform.states = [ModelState.WAKING] * 3 + [ModelState.FAILED] * 2
    outcome = run("deploy", "-f", write_manifest(tmp_path, text))
    assert outcome.code == 6
    assert "mine is waking" in outcome.err
    assert "model yours failed: because" in outcome.err


def test_no_wait_returns_at_once(run: Run, platform: FakePlatform) -> None:
    platform.states = [ModelState.WAKING]
    assert run("deploy", "builtin://guide", "--no-wait").code == 0
    assert [call[0] for call in platform.asked] == ["GET", "POST"]


def test_delete_removes_a_model(run: Run, platform: FakePlatform) -> None:
    platform.deploy("guide", ModelState.READY)
    assert run("delete", "guide").code == 0
    assert not platform.models
    again = run("delete", "guide")
    assert again.code == 4
    assert "hint: " in again.err


def test_folder_of_manifests_is_deployed_in_order(
    run: Run, platform: FakePlatform, tmp_path: Path
) -> None:
    folder = tmp_path / "models.d"
    folder.mkdir()
    (folder / "1.yaml").write_text(MINIMAL)
    (folder / "2.yaml").write_text(MINIMAL.replace("mine", "yours"))
    assert run("deploy", "-f", str(folder)).code == 0
    assert list(platform.models) == ["mine", "yours"]


def test_dry_run_prints_a_diff_and_changes_nothing(
    run: Run, platform: FakePlatform, tmp_path: Path
) -> None:
    path = write_manifest(tmp_path, MINIMAL)
    fresh = run("deploy", "-f", path, "--dry-run")
    assert (fresh.code, "+name: mine" in fresh.out) == (0, True)
    assert not platform.models
    run("deploy", "-f", path)
    same = run("deploy", "-f", path, "--dry-run")
    assert (same.out, "nothing would change" in same.err) == ("", True)
    write_manifest(tmp_path, MINIMAL + "scaling: {max: 2}\n")
    changed = run("deploy", "-f", path, "--dry-run")
    assert "--- mine revision 1" in changed.out
    assert "+  max: 2" in changed.out
    assert platform.models["mine"].manifest.scaling.max == 1


def test_second_deploy_of_the_same_changes_nothing(
    run: Run, platform: FakePlatform, tmp_path: Path
) -> None:
    path = write_manifest(tmp_path, MINIMAL)
    run("deploy", "-f", path)
    again = run("deploy", "-f", path)
    assert (again.code, "is deployed like that already, revision 1" in again.err) == (0, True)


def test_warnings_of_the_platform_are_shown(run: Run, platform: FakePlatform) -> None:
    platform.warnings = ["it may be slow"]
    assert "warning: it may be slow" in run("deploy", "builtin://guide").err


def fetch(done: int, *, error: str | None = None) -> list[FetchView]:
    return [
        FetchView(
            node="n1", done_bytes=done, total_bytes=100 << 20, done=done == 100 << 20, error=error
        )
    ]


def test_wait_follows_the_weights_of_a_sleeper(run: Run, platform: FakePlatform) -> None:
    platform.states = [ModelState.ASLEEP]
    platform.fetches = [fetch(10 << 20), fetch(60 << 20), fetch(100 << 20)]
    outcome = run("deploy", "hf://acme/tiny")
    assert outcome.code == 0
    for share in ("10%", "60%", "100%"):
        assert f"MiB, {share}" in outcome.err


def test_wait_ends_where_weights_cannot_be_fetched(run: Run, platform: FakePlatform) -> None:
    platform.states = [ModelState.ASLEEP]
    platform.fetches = [fetch(0, error="hf://acme/tiny is gated")]
    outcome = run("deploy", "hf://acme/tiny")
    assert outcome.code == 6
    assert "could not be fetched on n1: hf://acme/tiny is gated" in outcome.err


def test_entry_of_the_catalog_as_a_file_is_told(run: Run, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, "kind: CatalogEntry\nname: qwen3-8b\n")
    outcome = run("deploy", "-f", path)
    assert (outcome.code, "penstock deploy qwen3-8b" in outcome.err) == (2, True)
