"""Neighbouring versions understand each other: what a message may leave out, and ignores.

Played between real parts in `tests/serving/*/test_skew.py`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from models.catalog import entries
from serving import identities, metered, protocol, shares
from serving.messages import Message
from tests.docs.older import SCHEMAS, WORDS, reads, said
from tests.docs.protocol_samples import SAID

NEEDED = Path(__file__).parent / "needed_fields.json"
"""Fields that each message had to have in the version before this one; a field that is needed only
since would make an older peer's messages unreadable. Written anew at a release:
`python -m tests.docs.test_skew`."""

MESSAGES = sorted(
    {
        thing
        for module in (protocol, identities, metered, shares)
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, Message) and thing is not Message
    },
    key=lambda message: message.__name__,
)


def needed(message: type[Message]) -> list[str]:
    return sorted(name for name, field in message.model_fields.items() if field.is_required())


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.__name__)
def test_message_needs_no_field_that_an_older_peer_does_not_send(message: type[Message]) -> None:
    before = json.loads(NEEDED.read_text())
    if message.__name__ in before:
        assert set(needed(message)) <= set(before[message.__name__])


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.__name__)
def test_message_ignores_what_a_newer_peer_adds(message: type[Message]) -> None:
    assert message.model_config.get("extra") == "ignore"


def test_no_message_lost_a_field_that_an_older_peer_needs() -> None:
    before = json.loads(NEEDED.read_text())
    now = {message.__name__: set(message.model_fields) for message in MESSAGES}
    for name, fields in before.items():
        assert set(fields) <= now[name], name


def missing(kept: Any, whole: Any) -> list[str]:
    """Where `kept` has lost or changed something of `whole`."""
    if isinstance(whole, dict) and isinstance(kept, dict):
        return [
            f"{key}.{fault}" if fault else key
            for key, value in whole.items()
            for fault in ([""] if key not in kept else missing(kept[key], value))
        ]
    if isinstance(whole, list) and isinstance(kept, list) and len(kept) == len(whole):
        return [
            fault for one, other in zip(kept, whole, strict=True) for fault in missing(one, other)
        ]
    return [] if kept == whole else [f"= {kept!r}, not {whole!r}"]


@pytest.mark.parametrize("message", SAID, ids=lambda m: type(m).__name__)
def test_message_of_an_older_peer_loses_nothing(message: Message) -> None:
    name = type(message).__name__
    heard = type(message).model_validate(said(name))
    # As Python has it: what is sent leaves out what a manifest has by default.
    whole = json.loads(json.dumps(heard.model_dump(), default=str))
    assert missing(whole, said(name)) == []


@pytest.mark.parametrize("message", SAID, ids=lambda m: type(m).__name__)
def test_older_peer_reads_our_message(message: Message) -> None:
    name = type(message).__name__
    reads(name, message.model_dump_json())
    reads(name, json.dumps({**json.loads(message.model_dump_json()), "news": {"of": "ours"}}))


def test_all_that_an_older_peer_says_is_recorded() -> None:
    assert set(WORDS) == set(SCHEMAS) == {type(one).__name__ for one in SAID}


def test_defaults_of_manifests_are_those_of_an_older_host() -> None:
    """What a manifest has by default is not sent: both sides have to mean the same by it."""
    before = SCHEMAS["Assignment"]["$defs"]
    now = protocol.Assignment.model_json_schema()["$defs"]
    specs = [name for name in before if name == "Manifest" or name.endswith("Spec")]
    assert len(specs) > 5
    for name in specs:
        for field, schema in before[name]["properties"].items():
            if "default" in schema and isinstance(schema["default"], (str, int, float, bool)):
                assert now[name]["properties"][field].get("default") == schema["default"], field


def test_manifest_that_is_sent_comes_out_as_it_was() -> None:
    catalog = [entry.manifest(variant) for entry in entries() for variant in entry.variants]
    assert catalog
    for manifest in catalog:
        sent = protocol.Assignment(version=1, prefetch=(manifest,)).model_dump_json()
        heard = protocol.Assignment.model_validate_json(sent)
        assert heard.prefetch == (manifest,)


if __name__ == "__main__":
    fields = {message.__name__: needed(message) for message in MESSAGES}
    NEEDED.write_text(json.dumps(fields, indent=1) + "\n")
