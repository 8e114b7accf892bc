"""`penstock rollout`: how far a new revision has got, and the way back to an old one."""

import time
from itertools import pairwise
from typing import Annotated

import typer

from models.errors import PenstockError
from serving.cli import client, output
from serving.cli.inputs import ModelArgument
from serving.cli.output import Format, OutputOption, age
from serving.rollout import CanaryView, FiguresView, RolloutView
from serving.views import RevisionView

POLL_S = 0.25

app = typer.Typer(
    help="Follow, undo, pause or resume the rollout of a model's revision.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class NotRolledOutError(PenstockError):
    """The revision did not take over within the time that was given."""

    code = "not_rolled_out"
    exit_code = 1


@app.command("status")
def status(
    model: ModelArgument,
    wait: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait until the rollout is done.")
    ] = None,
    how: OutputOption = Format.TABLE,
) -> None:
    """Say how far the current revision has got.

    With --wait, the exit code is 1 if it is not done by then, or another one took its place.
    """
    with client.connect() as admin:
        view = admin.rollout(model)
        revision = view.revision
        deadline_s = time.monotonic() + (wait or 0.0)
        while wait is not None and not view.done and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
            view = admin.rollout(model)
            if view.revision != revision:
                break
    if how is Format.JSON:
        output.print_json(view.model_dump(mode="json"))
    else:
        for line in lines(view):
            output.stdout().print(line, soft_wrap=True)
    if view.revision != revision:
        raise NotRolledOutError(
            f"revision {revision} of {model} gave way to revision {view.revision}",
            hint=f"`penstock describe {model}` shows its events",
        )
    if wait is not None and not view.done:
        raise NotRolledOutError(
            f"revision {view.revision} of {model} has not taken over within {wait:g} s",
            hint=f"`penstock describe {model}` shows its engines and events",
        )


@app.command("history")
def history(model: ModelArgument, how: OutputOption = Format.TABLE) -> None:
    """List the revisions, who deployed them, and what changed in each."""
    with client.connect() as admin:
        found = admin.revisions(model)
    rows = [
        [str(one.revision), age(one.created_at), one.author or "-", what]
        for one, what in zip(found, changes(found), strict=True)
    ]
    output.print_items(found, ["REVISION", "AGE", "AUTHOR", "CHANGED"], rows, how)


@app.command("undo")
def undo(
    model: ModelArgument,
    to: Annotated[
        int | None, typer.Option(min=1, help="Revision to go back to; default: the one before.")
    ] = None,
) -> None:
    """Deploy an earlier revision's manifest again, at once and without a canary."""
    with client.connect() as admin:
        applied = admin.undo(model, to)
    said = f"goes back: revision {applied.revision}" if applied.changed else "is there already"
    output.stderr().print(f"model {model} {said}")


@app.command("pause")
def pause(model: ModelArgument) -> None:
    """Leave a canary at its share of the requests, and old engines where they are."""
    _hold(model, "pause")


@app.command("resume")
def resume(model: ModelArgument) -> None:
    """Let a rollout go on."""
    _hold(model, "resume")


def _hold(model: str, verb: str) -> None:
    with client.connect() as admin:
        view = admin.hold_rollout(model, verb)
    for line in lines(view):
        output.stderr().print(line, soft_wrap=True)


def lines(view: RolloutView) -> list[str]:
    """The state of a rollout in sentences."""
    what = "paused" if view.paused else "done" if view.done else "on its way"
    told = [
        f"{view.model} revision {view.revision}: {what}; {view.ready} of {view.engines_wanted} "
        f"engines ready, {view.starting} starting, {view.old} of other revisions"
    ]
    if view.reason:
        told.append(view.reason)
    if view.canary is not None:
        told += _canary(view.canary)
    return told


def _canary(canary: CanaryView) -> list[str]:
    state = "paused at" if canary.paused else "gets"
    return [
        f"canary, step {canary.step} of {canary.steps}: {state} {canary.share:.0%} of the "
        f"requests, revision {canary.stable} the rest; {canary.why}",
        f"  new: {_figures(canary.new)}",
        f"  old: {_figures(canary.old)}",
    ]


def _figures(figures: FiguresView) -> str:
    def shown(time_s: float | None) -> str:
        return "-" if time_s is None else f"{1000 * time_s:.1f} ms"

    return (
        f"{figures.answered} answered, {figures.failed} failed, "
        f"TTFT p95 {shown(figures.ttft_p95_s)}, TPOT p95 {shown(figures.tpot_p95_s)}"
    )


def changes(revisions: list[RevisionView]) -> list[str]:
    """What changed in each revision: the manifest's fields, as dotted names."""
    told = ["first"] if revisions else []
    for before, after in pairwise(revisions):
        old, new = (
            _flat(before.manifest.model_dump(mode="json")),
            _flat(after.manifest.model_dump(mode="json")),
        )
        names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        told.append(", ".join(names) or "nothing")
    return told


def _flat(value: object, path: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, object] = {}
    for name, inner in value.items():
        found |= _flat(inner, f"{path}.{name}" if path else str(name))
    return found
