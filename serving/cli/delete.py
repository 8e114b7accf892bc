"""`penstock delete`."""

from typing import Annotated

import typer

from serving.cli import client, output


def delete(name: Annotated[str, typer.Argument(help="Name of the model.")]) -> None:
    """Delete a model; its engines drain and end."""
    with client.connect() as admin:
        admin.delete(name)
    output.stderr().print(f"model {name} deleted")
