"""Neighbouring versions understand each other: what a message may leave out, and ignores."""

import json
from pathlib import Path

import pytest

from serving import identities, metered, protocol, shares
from serving.messages import Message

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


if __name__ == "__main__":
    fields = {message.__name__: needed(message) for message in MESSAGES}
    NEEDED.write_text(json.dumps(fields, indent=1) + "\n")
