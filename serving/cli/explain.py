"""`penstock explain`: why a model has as many engines as it has, in sentences with numbers."""

from typing import Annotated

import typer

from autoscaler.snapshot import Reason
from serving.cli import client, output
from serving.cli.inputs import ModelArgument
from serving.cli.output import Format, OutputOption
from serving.views import DecisionView


def explain(
    model: ModelArgument,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=500, help="Newest changes to tell.")
    ] = 20,
    how: OutputOption = Format.TABLE,
) -> None:
    """Say why the model's number of engines changed, the last change at the end."""
    with client.connect() as admin:
        changes = admin.decisions(model, limit)
    if how is Format.JSON:
        output.print_json({"items": [one.model_dump(mode="json") for one in changes]})
        return
    console = output.stdout()
    if not changes:
        console.print(f"{model} never had an engine: nobody asked")
    for one in changes:
        at = one.at.isoformat(timespec="milliseconds")
        console.print(f"{at}  {sentence(one)}", soft_wrap=True)


def sentence(one: DecisionView) -> str:
    """One change of the target as a sentence."""
    return f"from {one.before} to {_engines(one.target)}, because {_cause(one)} ({one.reason})"


def _cause(one: DecisionView) -> str:
    match one.reason:
        case Reason.IDLE:
            limit = f", and the limit is {one.idle_limit_s:g} s" if one.idle_limit_s else ""
            return f"nobody had asked for {one.idle_s:.1f} s{limit}"
        case Reason.LINGER:
            return f"the manifest's bounds ask for it; the last request was {one.idle_s:.1f} s ago"
        case Reason.SIGNAL_MISSING:
            return "the manifest's bounds ask for it, though no gateway reported"
        case Reason.PAUSED:
            return "the autoscaler is paused and the manifest's bounds ask for it"
        case Reason.ARRIVALS:
            return f"what arrives keeps {one.by_arrivals:.2f} engines busy; {_load(one)}"
        case Reason.BACKLOG:
            return (
                f"what waits is late with fewer: it takes {one.by_backlog:.2f} engines to have it "
                f"through in time; {_load(one)}"
            )
        case Reason.SLOTS:
            return f"the requests fill the slots of {one.by_slots:.2f} engines; {_load(one)}"
        case Reason.HOLD:
            return (
                f"no more were needed within the last {one.window_s:.0f} s; the load of the moment "
                f"needs {one.needed}; {_load(one)}"
            )
        case Reason.NO_CAPACITY:
            room = "an unknown number" if one.available is None else str(one.available)
            return f"{one.needed} are needed, and the pool has room for {room} more; {_load(one)}"
        case _:
            return _load(one)


def _load(one: DecisionView) -> str:
    """What waited and ran, and what there was for it."""
    waited = f"{one.queued} request{'' if one.queued == 1 else 's'} waited"
    if one.queued_tokens:
        waited += f" with {one.queued_tokens} prompt tokens"
    if one.oldest_wait_s:
        waited += f", the oldest for {one.oldest_wait_s:.2f} s"
    there = f"with {one.ready} ready and {one.starting} starting"
    if one.draining:
        there += f" and {one.draining} draining"
    if one.cold_start_s is not None:
        there += f"; a start takes {one.cold_start_s:.2f} s"
    if one.prefill_tps is not None:
        there += f", an engine takes in {one.prefill_tps:.0f} prompt tokens/s"
    return f"{waited} and {one.in_flight} ran, {there}"


def _engines(number: int) -> str:
    return "1 engine" if number == 1 else f"{number} engines"
