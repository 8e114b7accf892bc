"""A whole gateway that meters: rows for every way in which a request can end."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from serving.gateway.app import create_app
from serving.gateway.journal import Journal
from serving.gateway.metering import FOLDER
from serving.gateway.replay import attempt, opened, reserved
from serving.metered import UsageRow, UsageStatus
from serving.settings import GatewaySettings
from tests.serving.gateway.conftest import Gateway, chat, until
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import (
    SSE_HEAD,
    FakeEngine,
    Seen,
    chunked,
    dies_at_once,
    dies_mid_event,
    refuses,
    stalls_mid_stream,
    waits,
)
from tests.serving.gateway.test_replay import CALL, visit

PATH = "/v1/chat/completions"


async def only_row(controller: FakeController) -> UsageRow:
    await until(lambda: bool(controller.usage))
    (row,) = controller.usage.values()
    return row


async def test_answer_is_billed_with_the_tokens_that_the_engine_counted(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    await gateway.http.post(PATH, json=chat(service_tier="flex"))
    row = await only_row(controller)
    assert (row.status, row.http_status, row.known) == (UsageStatus.COMPLETE, 200, True)
    assert (row.prompt, row.completion, row.tier, row.model) == (3, 6, "flex", "demo")
    assert (row.attempts, row.engine_id, row.key_id) == (1, "engine-1", "key-1")
    assert engine.seen[-1].headers["x-request-id"] == f"{row.usage_id}-1"


async def test_same_request_id_of_a_tenant_is_billed_each_time(
    gateway: Gateway, controller: FakeController
) -> None:
    for _ in range(5):
        await gateway.http.post(PATH, json=chat(), headers={"x-request-id": "always-the-same"})
    await until(lambda: len(controller.usage) == 5)


async def test_refused_request_costs_nothing(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    engine.script.append(refuses(400, "too long"))
    assert (await gateway.http.post(PATH, json=chat())).status_code == 400
    row = await only_row(controller)
    assert (row.status, row.http_status, row.prompt, row.known) == ("failed", 400, 0, True)


async def test_retried_request_is_one_row_of_two_attempts(
    make_gateway: Callable[[GatewaySettings], Gateway], settings: GatewaySettings,
    controller: FakeController, engine: FakeEngine, second_engine: FakeEngine,
) -> None:  # fmt: skip
    controller.set_routes(model("demo", engine.route, second_engine.route))
    engine.default = second_engine.default
    for one in (engine, second_engine):
        one.script.append(dies_at_once)
    gateway = make_gateway(settings)
    await gateway.start()
    engine.script.clear()
    answer = await gateway.http.post(PATH, json=chat())
    row = await only_row(controller)
    assert (answer.status_code, row.status) == (200, "complete")
    assert row.attempts in (1, 2)
    assert row.completion == 6


async def test_cut_stream_is_billed_by_what_was_delivered(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    engine.script.append(dies_mid_event)
    await gateway.http.post(PATH, json=chat(stream=True))
    row = await only_row(controller)
    assert (row.status, row.known, row.delivered) == (UsageStatus.CUT, False, 2)


async def dies_as_anthropic(engine: FakeEngine, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Breaks off a stream that told of its prompt at the beginning."""
    usage = {"input_tokens": 7, "output_tokens": 0}
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "A"}}
    events = [{"type": "message_start", "message": {"id": "m", "usage": usage}}, delta, delta]
    writer.write(SSE_HEAD)
    for one in events:
        writer.write(chunked(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode()))
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(("external", "prompt"), [(False, 0), (True, 7)])
async def test_usage_that_a_stream_tells_at_its_beginning_is_not_what_it_took(
    make_gateway: Callable[[GatewaySettings], Gateway], settings: GatewaySettings,
    controller: FakeController, engine: FakeEngine, external: bool, prompt: int,
) -> None:  # fmt: skip
    route = engine.route.model_copy(update={"external": external})
    controller.set_routes(model("demo", route))
    engine.script.append(dies_as_anthropic)
    gateway = make_gateway(settings)
    await gateway.start()
    asked = chat(stream=True, max_tokens=9)
    answer = await gateway.http.post("/v1/messages", json=asked)
    assert b'"error"' in answer.content
    row = await only_row(controller)
    assert (row.status, row.known, row.estimated) == (UsageStatus.CUT, external, external)
    assert row.prompt == prompt  # of an engine of ours the recorder tells it, too
    assert row.completion == row.delivered > 0


async def test_tenant_who_leaves_a_stream_pays_for_what_was_delivered(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    engine.script.append(stalls_mid_stream)
    async with gateway.http.stream("POST", PATH, json=chat(stream=True)) as answer:
        await anext(answer.aiter_lines())
        await until(lambda: engine.running == 1)
    row = await only_row(controller)
    assert (row.status, row.known) == (UsageStatus.CANCELLED, False)
    assert row.delivered in (1, 2)


async def test_tenant_who_leaves_before_the_first_byte_pays_nothing(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    engine.script.append(waits)
    with pytest.raises(httpx.ReadTimeout):
        await gateway.http.post(PATH, json=chat(), timeout=0.2)
    row = await only_row(controller)
    assert (row.status, row.known, row.delivered) == (UsageStatus.CANCELLED, True, 0)


async def test_database_that_is_away_costs_no_request_and_no_row(
    gateway: Gateway, controller: FakeController
) -> None:
    controller.database_down = True
    answers = await asyncio.gather(*(gateway.http.post(PATH, json=chat()) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    controller.database_down = False
    await until(lambda: len(controller.usage) == 20, timeout_s=10)


async def test_full_disk_refuses_requests_rather_than_serving_them_unmetered(
    gateway: Gateway, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(monkeypatch)
    answer = await gateway.http.post(PATH, json=chat())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "metering_unavailable")
    assert engine.seen == []


async def test_full_disk_serves_unmetered_where_the_operator_chose_that(
    make_gateway: Callable[[GatewaySettings], Gateway], settings: GatewaySettings,
    controller: FakeController, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    controller.set_routes(model("demo", engine.route))
    gateway = make_gateway(settings.model_copy(update={"unmetered": "serve"}))
    await gateway.start()
    fill(monkeypatch)
    assert (await gateway.http.post(PATH, json=chat())).status_code == 200
    assert await gateway.metric("penstock_unmetered_requests_total") == 1


def fill(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which no room is left, and no booking fits any more."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr("serving.gateway.journal.BOOKED_BYTES", 2**30)


async def test_gateway_that_ends_in_order_leaves_no_journal(
    gateway: Gateway, settings: GatewaySettings, controller: FakeController
) -> None:
    await gateway.http.post(PATH, json=chat())
    await gateway.stop()
    assert len(controller.usage) == 1
    assert [*(settings.gateway_state_dir / FOLDER).iterdir()] == []


async def test_gateway_that_ends_without_the_controller_leaves_its_journal_to_a_successor(
    make_gateway: Callable[[GatewaySettings], Gateway], gateway: Gateway,
    settings: GatewaySettings, controller: FakeController, engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("serving.gateway.metering.LAST_SHIPMENT_S", 0.1)
    controller.database_down = True
    await gateway.http.post(PATH, json=chat())
    await gateway.stop()
    (left,) = (settings.gateway_state_dir / FOLDER).iterdir()
    controller.database_down = False
    await make_gateway(settings).start()
    row = await only_row(controller)
    assert (row.status, row.completion) == (UsageStatus.COMPLETE, 6)
    await until(lambda: not left.exists())


def dead_journal(settings: GatewaySettings) -> Journal:
    """The open journal of a gateway beside ours."""
    journal = Journal(settings.gateway_state_dir / FOLDER / "gw-dead")
    journal.open()
    return journal


async def test_journal_of_a_gateway_that_was_killed_is_settled_by_a_successor(
    make_gateway: Callable[[GatewaySettings], Gateway], settings: GatewaySettings,
    controller: FakeController,
) -> None:  # fmt: skip
    dead = dead_journal(settings)
    waiting, answered = visit(), visit()
    for one in (waiting, answered):
        dead.append(reserved(one, CALL, 1e9))
        dead.append(attempt(one))
    dead.append(opened(answered.usage_id))
    gateway = make_gateway(settings)
    await gateway.start(ready=False)
    await asyncio.sleep(0)
    assert controller.usage == {}, "its owner seems to live"
    await dead.close(delete=False)
    await gateway.stop()
    await make_gateway(settings).start(ready=False)
    await until(lambda: len(controller.usage) == 2)
    assert controller.usage[waiting.usage_id].status is UsageStatus.FAILED
    assert controller.usage[answered.usage_id].status is UsageStatus.UNKNOWN
    await until(lambda: not dead.folder.exists())


async def test_journal_of_another_version_is_put_aside_and_the_rest_is_used(
    make_gateway: Callable[[GatewaySettings], Gateway], settings: GatewaySettings,
    controller: FakeController,
) -> None:  # fmt: skip
    dead = dead_journal(settings)
    dead.append(reserved(visit(), CALL, 1e9))
    await dead.close(delete=False)
    strange = dead.folder / "00000000.segment"
    strange.write_bytes(b"PENSTJNL\x09\x00" + b"whatever" * 20)
    gateway = make_gateway(settings)
    await gateway.start(ready=False)
    await until(lambda: len(controller.usage) == 1)
    await until(lambda: not (dead.folder / "lock").exists())
    assert [path.name for path in dead.folder.iterdir()] == ["00000000.segment.aside"]


async def test_torn_journal_counts_its_loss(
    make_gateway: Callable[[GatewaySettings], Gateway], settings: GatewaySettings,
    controller: FakeController,
) -> None:  # fmt: skip
    dead = dead_journal(settings)
    dead.append(reserved(visit(), CALL, 1e9))
    _, segment = dead.append(reserved(visit(), CALL, 1e9))
    os.pwrite(segment.fd, b"\0" * 9, segment.end - 9)
    await dead.close(delete=False)
    gateway = make_gateway(settings)
    await gateway.start()
    await until(lambda: len(controller.usage) == 1)
    assert await gateway.metric("penstock_journal_lost_records_total") == 1


def test_gateway_makes_nothing_before_it_runs(settings: GatewaySettings) -> None:
    create_app(settings)
    assert not Path(settings.gateway_state_dir, FOLDER).exists()
