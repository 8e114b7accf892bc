"""`penstock cost`."""

from collections.abc import Mapping
from typing import Annotated

import typer

from serving.cli import output
from serving.cli.client import connect
from serving.cli.output import Format, OutputOption
from serving.cli.tenant_client import tenants
from serving.costs import CostReport
from serving.money import picodollars, shown


def cost(
    hours: Annotated[float, typer.Option(min=1, max=9600, help="Of the last hours.")] = 24.0,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="Check recommendations: replay the last six hours' demand in the simulator.",
        ),
    ] = False,
    how: OutputOption = Format.TABLE,
) -> None:
    """Show revenue, GPU cost, what lies idle, and what would cost less."""
    with tenants() as client:
        report = client.costs(hours)
    checks: Mapping[int, str] = {}
    if replay:
        from serving.cli.cost_replay import replays  # the simulator: numpy and numba

        trials = sum(one.trial is not None for one in report.recommendations)
        output.stderr().print(f"replaying {trials} recommendations, some seconds each")
        with connect() as admin:
            checks = replays(admin, report.recommendations)
    if how is Format.JSON:
        document = report.model_dump(mode="json")
        for number, text in checks.items():
            document["recommendations"][number]["replayed"] = text
        output.print_json(document)
        return
    columns = ("model", "requests", "tokens", "revenue", "gpu hours", "busy", "gpu cost", "$/M")
    rows = [
        (
            one.model,
            str(one.requests),
            str(one.prompt_tokens + one.completion_tokens),
            _shown(one.revenue),
            one.accelerator_hours,
            "-" if one.busy_share is None else f"{one.busy_share:.0%}",
            _shown(one.gpu_cost),
            "-" if one.cost_per_million_tokens is None else _shown(one.cost_per_million_tokens),
        )
        for one in report.models
    ]
    output.print_items(report.models, columns, rows, how)
    _print_sums(report, checks)


def _print_sums(report: CostReport, checks: Mapping[int, str]) -> None:
    out = output.stdout()
    idle = "-" if report.idle_share is None else f"{report.idle_share:.0%}"
    out.print(
        f"\nrevenue {_shown(report.revenue)}, GPU cost {_shown(report.gpu_cost)}, of it hosts "
        f"without an engine {_shown(report.free_cost)} ({report.free_hours} h); idle {idle}"
    )
    if report.unpriced:
        out.print(f"without a price: {', '.join(report.unpriced)}; see `penstock prices`")
    for number, one in enumerate(report.recommendations):
        where = f"{one.model}: " if one.model else ""
        out.print(f"\n{where}saves {_shown(one.saves_per_day)} a day ({one.kind})")
        out.print(f"  {one.arithmetic}")
        if number in checks:
            out.print(f"  replayed: {checks[number]}")


def _shown(amount: str) -> str:
    return shown(picodollars(amount))
