"""`penstock schema`: the manifest's JSON Schema, for editors and for checks in a pipeline."""

import json

import typer

from models.manifest import Manifest

SCHEMA_ID = "https://penstock.dev/schema/v1/model.json"
"""Names the schema; nothing is fetched from there."""


def manifest_schema() -> dict[str, object]:
    """The JSON Schema (draft 2020-12) of a manifest; what the code accepts, it accepts."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID}
    return head | Manifest.model_json_schema()


def schema_text() -> str:
    """The schema as it is shipped in `models/manifest.schema.json`."""
    return json.dumps(manifest_schema(), indent=2, ensure_ascii=False) + "\n"


def schema() -> None:
    """Print the JSON Schema of the manifest."""
    typer.echo(schema_text(), nl=False)
