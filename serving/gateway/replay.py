"""What the records of a journal say of each request; pure.

    reserved   before a request is sent to an engine the first time: who pays, and for what, and the
               attempt
    attempt    before it is sent again
    opened     before the first byte of its answer leaves
    settled    when it is over                 the whole row of usage

Of a request that its gateway did not live to settle, this much can be known: where nothing was
opened no byte has left, and it costs nothing. Else nobody knows how much of it the tenant got: at
most what its engine's recorder counted. A server elsewhere has no recorder: no more than the
prompt is certain, as it was guessed, and nobody will tell more. After a crash of the whole machine
the last records may be missing: nothing is known then.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from serving.gateway.calls import Call
from serving.gateway.visits import Visit
from serving.metered import UsageRow, UsageStatus

SETTLED = b'{"k":"s"'
"""How the payload of a settled record begins; the rest is a UsageRow."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a dead gateway left behind."""

    settled: list[bytes]  # payloads of rows, as they were written
    orphans: list[UsageRow]  # of the requests that were open at its death
    unreadable: int  # records with a good checksum that make no sense


@dataclass(slots=True)
class _Open:
    reserved: dict[str, object] = field(default_factory=dict)
    attempts: int = 0
    engine_id: str = ""
    revision: int = 0
    opened: bool = False
    guess: int | None = None  # tokens of the prompt; None where its engine has a recorder


def reserved(visit: Visit, call: Call, at: float) -> bytes:
    """The record of a request that is about to be sent to an engine for the first time, which came
    `at` Unix seconds."""
    return orjson.dumps({
        "k": "r", "u": visit.usage_id, "org_id": visit.org_id, "project_id": visit.project_id,
        "key_id": visit.key_id, "model": call.model, "route": visit.route, "at": at,
        "tier": call.service_tier or "", **_attempt(visit),
    })  # fmt: skip


def attempt(visit: Visit) -> bytes:
    """The record of a request that is about to be sent to an engine once more."""
    return orjson.dumps({"k": "a", "u": visit.usage_id, **_attempt(visit)})


def _attempt(visit: Visit) -> dict[str, object]:
    attempt: dict[str, object] = {
        "n": visit.attempts, "e": visit.engine_id, "v": visit.revision,
    }  # fmt: skip
    if not visit.is_recorded:
        attempt["p"] = visit.prompt_guess
    return attempt


def opened(usage_id: str) -> bytes:
    """The record of an answer whose first byte is about to leave."""
    return b'{"k":"o","u":"%s"}' % usage_id.encode()


def replay(records: Iterable[bytes], *, machine_crashed: bool) -> Replayed:
    """Sorts out the records of a dead gateway, in the order in which they were written."""
    settled: dict[str, bytes] = {}
    open_: dict[str, _Open] = {}
    unreadable = 0
    for payload in records:
        try:
            fields = orjson.loads(payload)
            usage_id = str(fields["usage_id"] if fields["k"] == "s" else fields["u"])
            _take(fields, usage_id, payload, settled, open_)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            unreadable += 1
    orphans = [
        _orphan(usage_id, one, machine_crashed=machine_crashed)
        for usage_id, one in open_.items()
        if usage_id not in settled
    ]
    return Replayed(list(settled.values()), orphans, unreadable)


def _take(
    fields: dict[str, object],
    usage_id: str,
    payload: bytes,
    settled: dict[str, bytes],
    open_: dict[str, _Open],
) -> None:
    match fields["k"]:
        case "s":
            settled.setdefault(usage_id, payload)
        case "r" | "a" as kind:
            one = open_.setdefault(usage_id, _Open())
            if kind == "r":
                one.reserved = fields
                if "n" not in fields:  # of a version that noted the first attempt apart
                    return
            one.attempts, one.revision = int(str(fields["n"])), int(str(fields["v"]))
            one.engine_id = str(fields["e"])
            one.guess = int(str(fields["p"])) if "p" in fields else None
        case "o":
            open_.setdefault(usage_id, _Open()).opened = True
        case other:
            raise ValueError(f"a record of kind {other}")


def _orphan(usage_id: str, one: _Open, *, machine_crashed: bool) -> UsageRow:
    # A reservation that is missing was torn: what is left of the request must be seen.
    unknown = one.opened or machine_crashed or not one.reserved
    known_fields = {name: value for name, value in one.reserved.items() if len(name) > 1}
    return UsageRow.model_validate({
        "at": 0.0,
        **known_fields,
        "usage_id": usage_id,
        "status": UsageStatus.UNKNOWN if unknown else UsageStatus.FAILED,
        "attempts": one.attempts,
        "engine_id": one.engine_id,
        "revision": one.revision,
        "prompt": one.guess or 0 if unknown else 0,
        "known": not unknown or one.guess is not None,
        "estimated": unknown and one.guess is not None,
    })  # fmt: skip
