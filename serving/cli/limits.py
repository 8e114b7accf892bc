"""`penstock limits`: how much organisations, projects and keys may use."""

from typing import Annotated

import typer

from serving.cli import output
from serving.cli.inputs import checked
from serving.cli.output import Format, OutputOption
from serving.cli.tenant_client import tenants
from serving.identities import ALL_MODELS
from serving.limits import LimitSpec, LimitView

app = typer.Typer(
    help="Limits on organisations, projects and keys.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Org = Annotated[str | None, typer.Option(help="The organisation that it is for.")]
Project = Annotated[str | None, typer.Option(help="The project that it is for.")]
Key = Annotated[str | None, typer.Option(help="The key that it is for.")]
Model = Annotated[str, typer.Option(help="The model that it is on; `*`: all together.")]


@app.command("set")
def set_(
    org: Org = None,
    project: Project = None,
    key: Key = None,
    model: Model = ALL_MODELS,
    requests_per_min: Annotated[int | None, typer.Option(help="Requests a minute.")] = None,
    input_tokens_per_min: Annotated[
        int | None, typer.Option(help="Prompt tokens a minute.")
    ] = None,
    output_tokens_per_min: Annotated[
        int | None, typer.Option(help="Completion tokens a minute.")
    ] = None,
    concurrent: Annotated[int | None, typer.Option(help="Requests at once.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    budget_day: Annotated[str | None, typer.Option(help="Dollars a day, UTC.")] = None,
    budget_month: Annotated[str | None, typer.Option(help="Dollars a month, UTC.")] = None,
    how: OutputOption = Format.TABLE,
) -> None:
    """Set what a scope may use, in the place of what was set for it and the model before."""
    spec = checked(
        LimitSpec,
        requests_per_min=requests_per_min,
        input_tokens_per_min=input_tokens_per_min,
        output_tokens_per_min=output_tokens_per_min,
        concurrent=concurrent,
        max_tokens=max_tokens,
        budget_day=budget_day,
        budget_month=budget_month,
    )
    with tenants() as client:
        show([client.put_limit(client.scope_id(org, project, key), model, spec)], how)


@app.command("list")
def list_(how: OutputOption = Format.TABLE) -> None:
    """List all limits."""
    with tenants() as client:
        show(client.limits(), how)


@app.command("delete")
def delete(
    org: Org = None, project: Project = None, key: Key = None, model: Model = ALL_MODELS
) -> None:
    """Lift a limit."""
    with tenants() as client:
        client.delete_limit(client.scope_id(org, project, key), model)
    output.stderr().print("limit lifted")


def show(limits: list[LimitView], how: Format) -> None:
    """Prints limits."""
    columns = ("scope", "model", "requests/min", "input/min", "output/min", "at once",
               "max tokens", "$/day", "$/month")  # fmt: skip
    rows = [
        (
            limit.scope_id,
            limit.model,
            _shown(limit.requests_per_min),
            _shown(limit.input_tokens_per_min),
            _shown(limit.output_tokens_per_min),
            _shown(limit.concurrent),
            _shown(limit.max_tokens),
            _shown(limit.budget_day),
            _shown(limit.budget_month),
        )
        for limit in limits
    ]
    output.print_items(limits, columns, rows, how)


def _shown(value: int | str | None) -> str:
    return "-" if value is None else str(value)
