"""Writes what the chart has from `chart_values.py`; `--check` only compares it.

`values.yaml`, `values.schema.json`, and the defaults of one worker group, which Helm cannot fill in
by itself because groups are items of a list.
"""

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml
from chart_values import Resources, Values, WorkerGroup
from pydantic import BaseModel

CHART = Path(__file__).parents[1] / "helm" / "penstock"
HEAD = "# Made by `make docs` from scripts/chart_values.py; do not edit.\n"
WIDTH = 100


def values_yaml() -> str:
    """All defaults, each below what it means."""
    return HEAD + "".join(entries(Values(), 0))


def entries(part: BaseModel, depth: int) -> list[str]:
    """The lines of one part; an empty line sets its groups apart at the top."""
    margin, lines = "  " * depth, []
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        about = " ".join((field.description or "").split())
        comment = textwrap.wrap(about, WIDTH - len(margin) - 2)
        lines += [] if depth else ["\n"]
        lines += [f"{margin}# {line}\n" for line in comment]
        if isinstance(value, BaseModel):
            lines += [f"{margin}{name}:\n", *entries(value, depth + 1)]
        else:
            lines.append(textwrap.indent(plain_yaml({name: plain(value)}), margin))
    return lines


def plain(value: Any) -> Any:
    """A value as plain data, without what is at its default."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    return value


def plain_yaml(value: dict[str, Any]) -> str:
    """Block style; empty lists and mappings stay on their line."""
    return yaml.safe_dump(value, sort_keys=False, width=WIDTH)


def schema_json() -> str:
    """JSON schema of the values."""
    schema = Values.model_json_schema(mode="validation")
    manifest = schema["$defs"]["Manifest"]
    # A model of other servers has their addresses in place of a source.
    manifest["required"].remove("source")
    manifest["anyOf"] = [{"required": ["source"]}, {"required": ["endpoints"]}]
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema,
                      indent=1, sort_keys=True) + "\n"  # fmt: skip


def group_defaults() -> str:
    """Defaults of a worker group."""
    group = WorkerGroup(name="x", pool="cpu", resources=Resources(cpu="1", memory="1Gi"))
    given = {"name", "pool", "resources"}
    return HEAD + plain_yaml(group.model_dump(mode="json", exclude=given))


FILES = {
    "values.yaml": values_yaml,
    "values.schema.json": schema_json,
    "files/worker-group.yaml": group_defaults,
}


def main() -> int:
    """Returns 0, or with `--check` 1 where a file is out of date."""
    stale = [
        name
        for name, make in FILES.items()
        if not (CHART / name).exists() or (CHART / name).read_text() != make()
    ]
    if "--check" in sys.argv[1:]:
        for name in stale:
            sys.stderr.write(f"helm/penstock/{name} is out of date; run `make docs`\n")
        return int(bool(stale))
    for name in stale:
        (CHART / name).write_text(FILES[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
