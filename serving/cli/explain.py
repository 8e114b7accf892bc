"""`penstock explain`: why a model has as many engines as it has, in sentences with numbers."""

from typing import Annotated

import typer

from autoscaler.snapshot import Reason
from serving.cli import client, output
from serving.cli.output import Format, OutputOption
from serving.views import DecisionView


def explain(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    how: OutputOption = Format.TABLE,
) -> None:
    """Say why the model's number of engines changed, the last change at the end."""
    with client.connect() as admin:
        changes = admin.decisions(model)
    if how is Format.JSON:
        output.print_json({"items": [one.model_dump(mode="json") for one in changes]})
        return
    console = output.stdout()
    if not changes:
        console.print(f"{model} has had 0 engines since the controller started: nobody asked")
    for one in changes:
        at = one.at.isoformat(timespec="milliseconds")
        console.print(f"{at}  {sentence(one)}", soft_wrap=True)


def sentence(one: DecisionView) -> str:
    """One change of the target as a sentence."""
    engines = "1 engine" if one.target == 1 else f"{one.target} engines"
    return f"from {one.before} to {engines}, because {_cause(one)} ({one.reason})"


def _cause(one: DecisionView) -> str:
    load = f"{one.queued} request{'' if one.queued == 1 else 's'} waited and {one.in_flight} ran"
    match one.reason:
        case Reason.IDLE:
            return f"nobody had asked for {one.idle_s:.1f} s"
        case Reason.LINGER:
            return f"the manifest's bounds ask for it; the last request was {one.idle_s:.1f} s ago"
        case Reason.SIGNAL_MISSING:
            return "the manifest's bounds ask for it, though no gateway reported"
        case _:
            return f"{load}, with {one.ready} ready and {one.starting} starting"
