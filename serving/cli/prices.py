"""`penstock prices`: what tokens are sold for, and what accelerators cost."""

from datetime import datetime
from typing import Annotated

import typer

from serving.cli import output
from serving.cli.inputs import checked
from serving.cli.output import Format, OutputOption
from serving.cli.tenant_client import tenants
from serving.identities import ANY
from serving.prices import Capacity, GpuPriceView, NewGpuPrice, NewTokenPrice, TokenPriceView

app = typer.Typer(
    help="The price book: tokens and accelerators, dated.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Since = Annotated[
    datetime | None,
    typer.Option(
        formats=["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M%z"],
        help="From when on, as 2027-01-01T00:00Z; else from now on.",
    ),
]


@app.command("list")
def list_(how: OutputOption = Format.TABLE) -> None:
    """List all prices, past and future ones too."""
    with tenants() as client:
        found = client.prices()
    if how is Format.JSON:
        output.print_json(found.model_dump(mode="json"))
        return
    show_tokens(found.tokens, how)
    show_gpus(found.gpus, how)


@app.command("set")
def set_(
    model: Annotated[str, typer.Argument(help="The model; `*`: all without a price of their own.")],
    input_: Annotated[str, typer.Option("--input", help="Dollars for a million prompt tokens.")],
    output_: Annotated[str, typer.Option("--output", help="Dollars for a million of the answer.")],
    cached: Annotated[
        str | None, typer.Option(help="Dollars for a million of the prompt from the cache.")
    ] = None,
    tier: Annotated[str, typer.Option(help="The service tier; `*`: all.")] = ANY,
    since: Since = None,
    how: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.TABLE,
) -> None:
    """Set the price of a model's tokens."""
    new = checked(
        NewTokenPrice, model=model, tier=tier, input=input_, cached=cached, output=output_,
        since=since,
    )  # fmt: skip
    with tenants() as client:
        show_tokens([client.add_token_price(new)], how)


@app.command("set-gpu")
def set_gpu(
    accelerator: Annotated[str, typer.Argument(help="Its name, as h100 or gb200.")],
    per_hour: Annotated[str, typer.Option(help="Dollars for one accelerator and hour.")],
    capacity: Annotated[Capacity, typer.Option(help="How it is rented.")] = Capacity.ON_DEMAND,
    since: Since = None,
    how: OutputOption = Format.TABLE,
) -> None:
    """Set what an accelerator costs."""
    new = checked(
        NewGpuPrice, accelerator=accelerator, capacity=capacity, per_hour=per_hour, since=since
    )
    with tenants() as client:
        show_gpus([client.add_gpu_price(new)], how)


@app.command("delete")
def delete(price_id: Annotated[str, typer.Argument(help="Id of the price.")]) -> None:
    """Take a price out of the book: the one before it holds again."""
    with tenants() as client:
        client.delete_price(price_id)
    output.stderr().print(f"price {price_id} deleted")


def show_tokens(prices: list[TokenPriceView], how: Format) -> None:
    """Prints prices of tokens."""
    columns = ("model", "tier", "input $/M", "cached $/M", "output $/M", "since", "id")
    rows = [
        (one.model, one.tier, one.input, one.cached, one.output, _day(one.since), one.price_id)
        for one in prices
    ]
    output.print_items(prices, columns, rows, how)


def show_gpus(prices: list[GpuPriceView], how: Format) -> None:
    """Prints prices of accelerators."""
    columns = ("accelerator", "capacity", "$/h", "since", "id")
    rows = [
        (one.accelerator, one.capacity.value, one.per_hour, _day(one.since), one.price_id)
        for one in prices
    ]
    output.print_items(prices, columns, rows, how)


def _day(when: datetime) -> str:
    return "always" if when.timestamp() == 0 else when.isoformat(timespec="minutes")
