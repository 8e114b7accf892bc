"""The version before this one: what it says, and how it reads; recorded by `protocol_samples`."""

import json
from typing import Any

import jsonschema

from tests.docs.protocol_samples import HERE

WORDS: dict[str, Any] = json.loads((HERE / "said.json").read_text())
SCHEMAS: dict[str, Any] = json.loads((HERE / "schemas.json").read_text())


def said(message: str) -> Any:
    """A message as the older version sends it."""
    return json.loads(json.dumps(WORDS[message]))


def reads(message: str, body: bytes | str) -> Any:
    """What the older version makes of a message of ours.

    Raises:
        jsonschema.ValidationError: If it would refuse it.
    """
    document = json.loads(body)
    jsonschema.Draft202012Validator(SCHEMAS[message]).validate(document)
    return document
