"""`penstock describe`: one model with its weights, its revisions, its last events."""

from itertools import pairwise

import typer

from models.manifest_files import to_yaml
from serving.cli import client, output
from serving.cli.deploy import diff
from serving.cli.inputs import ModelArgument
from serving.cli.output import Format, OutputOption
from serving.views import EventView, ModelView, RevisionView

EVENTS = 10
REVISIONS = 5


def describe(
    model: ModelArgument,
    how: OutputOption = Format.TABLE,
) -> None:
    """Show all of a model: state, weights on the nodes, manifest, revisions, events."""
    with client.connect() as admin:
        seen = admin.model(model)
        revisions = admin.revisions(model)
        events = admin.events(EVENTS, model)
    if how is Format.JSON:
        output.print_json(
            {
                "model": seen.model_dump(mode="json"),
                "revisions": [one.model_dump(mode="json") for one in revisions],
                "events": [one.model_dump(mode="json") for one in events],
            }
        )
        return
    typer.echo(_text(seen, revisions, events), nl=False)


def _text(model: ModelView, revisions: list[RevisionView], events: list[EventView]) -> str:
    lines = [
        f"{model.name}: {model.state}" + (f", {model.reason}" if model.reason else ""),
        f"revision {model.revision} of {output.age(revisions[-1].created_at)} ago"
        if revisions
        else f"revision {model.revision}",
        f"engines {model.engines_ready} of {model.engines_wanted} ready in pool {model.pool}, "
        f"{model.in_flight} requests run, {model.queued} wait",
    ]
    for fetch in model.fetches:
        if fetch.done:
            lines.append(f"weights are on {fetch.node}")
        elif fetch.error is not None:
            lines.append(f"weights are not on {fetch.node}: {fetch.error}")
        else:
            share = f"{fetch.done_bytes / fetch.total_bytes:.0%}" if fetch.total_bytes else "begun"
            lines.append(f"weights come to {fetch.node}: {share}")
    lines += ["", "manifest", *_indented(to_yaml(model.manifest))]
    for before, after in reversed(list(pairwise(revisions))[-REVISIONS:]):
        lines += ["", f"revision {after.revision}, {output.age(after.created_at)} ago"]
        changed = diff(before.manifest, after.manifest, before.revision).splitlines()[3:]
        lines += _indented("\n".join(line for line in changed if line[:1] in "+-") or "the same")
    if events:
        lines += ["", "events"]
        lines += [
            f"  {output.age(event.at)} ago  {event.kind}  {event.message}" for event in events
        ]
    return "\n".join(lines) + "\n"


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]
