"""`penstock doctor`: what is wrong with this machine."""

from pathlib import Path
from typing import Annotated

import typer

from serving.cli import checks, output
from serving.cli.checks import Verdict
from serving.cli.output import Format, OutputOption
from serving.cli.platform import Layout
from serving.settings import ClientSettings, UpSettings

DEFAULT_PORT = 8000


def doctor(
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the platform; PENSTOCK_DATA_DIR or .penstock.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port that a platform shall have.")] = DEFAULT_PORT,
    how: OutputOption = Format.TABLE,
) -> int:
    """Say what is wrong with this machine, each with a hint; exit code 1 on a fault."""
    layout = Layout.of(data_dir or UpSettings.load().data_dir)
    findings = checks.examine(layout, port, ClientSettings.load().url)
    rows = [(found.verdict.value, found.check, found.message, found.hint) for found in findings]
    output.print_items(findings, ("verdict", "check", "message", "hint"), rows, how)
    return 1 if any(found.verdict is Verdict.FAULT for found in findings) else 0
