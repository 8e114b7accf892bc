"""Writes `docs/reference/` from the code; `--check` only says whether it is up to date."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from planner_page import planner_page
from profiles_page import profiles_page
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined
from typer.cli import get_docs_for_click
from typer.main import get_command

from models import architectures
from models.manifest import EngineSpec, Manifest
from models.resources_spec import ResourcesSpec
from models.scaling_spec import ScalingSpec, SloSpec
from models.schedule import ScheduleSpec
from models.weights_spec import WeightsSpec
from serving import metrics, settings
from serving.cli import main as cli
from serving.cli.schema import schema_text
from serving.controller.access import ROLES, ROUTES, Permission, may
from serving.identities import Role

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
MADE = "<!-- Made by `make docs`; do not edit. -->\n"


def settings_page() -> str:
    """All `PENSTOCK_*` variables, by the process that reads them."""
    parts = [
        settings.UpSettings,
        settings.ClientSettings,
        settings.GatewaySettings,
        settings.ControllerSettings,
        settings.HostSettings,
        settings.LauncherSettings,
    ]
    lines = [
        "# Settings",
        MADE,
        "Where a process runs. Each is an environment variable; one that is not listed here is an "
        "error.",
    ]
    for part in parts:
        lines += ["", f"## {part.__name__}", "", part.__doc__ or "", ""]
        lines += table(
            ("variable", "default", "what"),
            (
                (f"`{settings.PREFIX}{name.upper()}`", default(field), field.description or "")
                for name, field in part.model_fields.items()
            ),
        )
    return "\n".join(lines) + "\n"


def manifest_page() -> str:
    """All fields of the manifest."""
    lines = ["# Manifest", MADE, "What a model is. Unknown fields are refused."]
    for prefix, part in (
        ("", Manifest),
        ("weights.", WeightsSpec),
        ("engine.", EngineSpec),
        ("resources.", ResourcesSpec),
        ("scaling.", ScalingSpec),
        ("scaling.slo.", SloSpec),
        ("scaling.schedule[].", ScheduleSpec),
    ):
        lines += ["", f"## {prefix.rstrip('.') or 'Model'}", "", part.__doc__ or "", ""]
        lines += table(
            ("field", "default", "what"),
            (
                (f"`{prefix}{name}`", default(field), field.description or "")
                for name, field in part.model_fields.items()
            ),
        )
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """All metrics."""
    lines = ["# Metrics", MADE]
    lines += table(
        ("metric", "type", "labels", "what"),
        (
            (f"`{metric.name}`", metric.kind, ", ".join(metric.labels), metric.help)
            for metric in metrics.ALL
        ),
    )
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """All commands with their options, and the exit codes."""
    command = get_command(cli.app)
    context = typer.Context(command, info_name="penstock")
    text = get_docs_for_click(obj=command, ctx=context, name="penstock", title="The command line")
    title, _, rest = text.partition("\n")
    codes = (cli.__doc__ or "").partition("Exit codes")[2].strip()
    body = [MADE, rest.strip(), "", "## Exit codes", "", "```text", f"Exit codes{codes}", "```"]
    return "\n".join([title, *body]) + "\n"


def architectures_page() -> str:
    """The architectures that vLLM knows."""
    lines = ["# Architectures", MADE, "What `architectures` in a model's config.json may name: "]
    lines += ["the list of the vLLM that this version goes with.", ""]
    lines += [f"- `{name}`" for name in sorted(architectures.known())]
    return "\n".join(lines) + "\n"


def access_page() -> str:
    """Which role may call which admin route, from the one table that the controller asks."""
    lines = [
        "# Access",
        MADE,
        "What a key of each role may do. Tenants' keys have the role `inference`: they call models "
        "(`/v1/...`) and nothing on this page. A test walks every route with every role and holds "
        "this table against what it finds. `penstock key create --role` makes keys.",
        "",
    ]
    roles = tuple(Role)
    lines += table(
        ("role", "permissions"),
        (
            (f"`{role}`", ", ".join(f"`{p}`" for p in Permission if p in ROLES[role]) or "none")
            for role in roles
        ),
    )
    lines += [""]
    lines += table(
        ("route", "permission", *(f"`{role}`" for role in roles)),
        (
            (
                f"`{method} {path}`",
                f"`{permission}`",
                *("yes" if may(role, method, path) else "403" for role in roles),
            )
            for (method, path), permission in sorted(
                ROUTES.items(), key=lambda item: (item[0][1], item[0][0])
            )
        ),
    )
    return "\n".join(lines) + "\n"


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    """A Markdown table."""
    cells = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(row) + " |" for row in cells]


def default(field: Any) -> str:
    """How a field's default reads on a page."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or isinstance(value, BaseModel | SecretStr):
        return ""
    return f"`{value}`"


PAGES = {
    "settings.md": settings_page,
    "manifest.md": manifest_page,
    "metrics.md": metrics_page,
    "cli.md": cli_page,
    "access.md": access_page,
    "planner.md": lambda: planner_page(MADE),
    "profiles.md": lambda: profiles_page(MADE),
    "architectures.md": architectures_page,
    "../../models/manifest.schema.json": schema_text,
}


def main() -> int:
    """Returns 0, or with `--check` 1 where a page is out of date."""
    stale = [
        name
        for name, page in PAGES.items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text() != page()
    ]
    if "--check" in sys.argv[1:]:
        for name in stale:
            sys.stderr.write(f"docs/reference/{name} is out of date; run `make docs`\n")
        return int(bool(stale))
    for name in stale:
        (FOLDER / name).write_text(PAGES[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
