"""What can be known of requests whose gateway died, by where it died."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway import replay
from serving.gateway.calls import Call
from serving.gateway.metering import settled
from serving.gateway.visits import Tokens, Visit
from serving.metered import UsageRow, UsageStatus

CALL = Call(model="demo", stream=True, body=b"{}", service_tier="flex")


def visit(**fields: object) -> Visit:
    made = Visit("tenants-own-id", "/v1/chat/completions", 100.0)
    made.org_id, made.project_id, made.key_id = "org-1", "proj-1", "key-1"
    made.model, made.engine_id, made.revision, made.attempts = "demo", "e2", 3, 2
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def life(one: Visit) -> list[bytes]:
    """All records of a request that went well."""
    one.tokens, one.first_byte_s, one.status, one.complete = Tokens(7, 5, 2), 100.5, 200, True
    return [
        replay.reserved(one, CALL, 1e9),
        replay.attempt(one),
        replay.opened(one.usage_id),
        settled(one, UsageStatus.COMPLETE, "flex", 1e9, 101.0),
    ]


def test_request_that_was_settled_is_taken_as_it_was() -> None:
    one = visit()
    found = replay.replay(life(one), machine_crashed=True)
    assert found.orphans == []
    (payload,) = found.settled
    row = UsageRow.model_validate_json(payload)
    assert (row.usage_id, row.org_id, row.key_id) == (one.usage_id, "org-1", "key-1")
    assert (row.prompt, row.cached, row.completion, row.known) == (7, 2, 5, True)
    assert (row.ttft_s, row.duration_s, row.tier) == (0.5, 1.0, "flex")


def test_request_of_which_no_byte_left_costs_nothing() -> None:
    one = visit()
    for records in (life(one)[:1], life(one)[:2]):
        (row,) = replay.replay(records, machine_crashed=False).orphans
        assert (row.status, row.known, row.prompt) == (UsageStatus.FAILED, True, 0)
        assert (row.org_id, row.model, row.at, row.tier) == ("org-1", "demo", 1e9, "flex")


def test_request_of_which_bytes_may_have_left_is_unknown() -> None:
    (row,) = replay.replay(life(visit())[:3], machine_crashed=False).orphans
    assert (row.status, row.known) == (UsageStatus.UNKNOWN, False)
    assert (row.attempts, row.engine_id, row.revision) == (2, "e2", 3)


def test_journal_of_a_version_that_noted_the_first_attempt_apart_is_understood() -> None:
    one = visit()
    fields = orjson.loads(replay.reserved(one, CALL, 1e9))
    before = orjson.dumps({name: v for name, v in fields.items() if name not in ("n", "e", "v")})
    for records, attempts in (([before], 0), ([before, replay.attempt(one)], 2)):
        (row,) = replay.replay(records, machine_crashed=False).orphans
        assert (row.status, row.attempts, row.org_id) == (UsageStatus.FAILED, attempts, "org-1")


def test_reservation_names_the_first_attempt() -> None:
    (row,) = replay.replay(life(visit())[:1], machine_crashed=False).orphans
    assert (row.attempts, row.engine_id, row.revision) == (2, "e2", 3)


def test_request_at_a_server_elsewhere_waits_for_no_recorder() -> None:
    records = life(visit(is_recorded=False, prompt_guess=9))
    for left, crashed in ((records[:3], False), (records[:2], True)):
        (row,) = replay.replay(left, machine_crashed=crashed).orphans
        assert (row.status, row.known) == (UsageStatus.UNKNOWN, True)
        assert (row.prompt, row.completion, row.estimated) == (9, 0, True)
    (row,) = replay.replay(records[:2], machine_crashed=False).orphans
    assert (row.status, row.known, row.prompt) == (UsageStatus.FAILED, True, 0)


def test_only_the_last_server_counts_where_a_request_had_several() -> None:
    before = visit(is_recorded=False, prompt_guess=9, attempts=1)
    records = life(visit(usage_id=before.usage_id))
    records.insert(1, replay.attempt(before))
    (row,) = replay.replay(records[:4], machine_crashed=False).orphans
    assert (row.attempts, row.known, row.prompt) == (2, False, 0)


def test_request_whose_last_records_the_machine_may_have_lost_is_unknown() -> None:
    (row,) = replay.replay(life(visit())[:1], machine_crashed=True).orphans
    assert (row.status, row.known) == (UsageStatus.UNKNOWN, False)


def test_request_whose_reservation_was_torn_is_not_forgotten() -> None:
    (row,) = replay.replay(life(visit())[1:3], machine_crashed=False).orphans
    assert (row.status, row.org_id) == (UsageStatus.UNKNOWN, "")


def test_records_that_make_no_sense_are_counted() -> None:
    strange = [b"not json", b"[]", b'{"k":"z","u":"1"}', b'{"k":"a","u":"1"}', b'{"u":"1"}']
    found = replay.replay([*strange, *life(visit())], machine_crashed=False)
    assert (found.unreadable, len(found.settled)) == (5, 1)


@given(cut=st.integers(0, 12), order=st.permutations(range(3)))
def test_no_request_is_told_twice_wherever_the_journal_ends(cut: int, order: list[int]) -> None:
    lives = [life(visit()) for _ in range(3)]
    records = [lives[which][step] for step in range(4) for which in order][:cut]
    found = replay.replay(records, machine_crashed=False)
    ids = [orjson.loads(payload)["usage_id"] for payload in found.settled]
    ids += [row.usage_id for row in found.orphans]
    assert len(ids) == len(set(ids)) == min(cut, 3)
