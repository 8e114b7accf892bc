"""`penstock delete`."""

from serving.cli import client, output
from serving.cli.inputs import ModelArgument


def delete(name: ModelArgument) -> None:
    """Delete a model; its engines drain and end."""
    with client.connect() as admin:
        admin.delete(name)
    output.stderr().print(f"model {name} deleted")
