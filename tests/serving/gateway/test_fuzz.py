"""Requests that nobody should send: every one is answered or cut, and nothing is left of it.

`make fuzz` sends 50,000 of them, of a new seed each time; `make test` 2,000.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable

import psutil
import pytest

from serving.gateway.surface import OPERATIONS
from serving.settings import GatewaySettings
from tests.serving.gateway.conftest import Gateway, chat, until
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine
from tests.serving.gateway.fuzz import Fuzzer
from tests.serving.gateway.test_connection import Hasty

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "2000"))
SEED = int(os.environ.get("FUZZ_SEED", "20250"))
AT_ONCE = 16
ANSWER_S = 10.0
GROWTH_MIB = 32
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
GOOD_STATUS = frozenset({100, 200, 400, 401, 403, 404, 405, 408, 411, 413, 415, 417, 429, 431})
OURS = {"cache_salt", "stream_options", "store"}


async def send(gateway: Gateway, request: bytes) -> list[int]:
    """The statuses of whatever comes back; the connection ends after one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    answer = b""
    try:
        writer.write(request)
        try:
            async with asyncio.timeout(ANSWER_S):
                with contextlib.suppress(ConnectionError):
                    answer = await reader.read()
        except TimeoutError:
            raise AssertionError(("hangs", SEED, request)) from None
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return [int(status) for status in STATUS.findall(answer)]


def assert_engine_saw_only_what_is_allowed(engine: FakeEngine) -> None:
    allowed = {operation.path: operation.allowed for operation in OPERATIONS}
    for seen in engine.seen:
        assert set(seen.body) - OURS <= allowed[seen.path], seen
        assert seen.body["model"] == "demo"
        if "cache_salt" in seen.body:
            assert re.fullmatch(r"[0-9a-f]{32}", seen.body["cache_salt"])
    engine.seen.clear()


def assert_nothing_failed_unseen(caplog: pytest.LogCaptureFixture) -> None:
    """What a connection's callback raises has no status: only the event loop tells of it."""
    assert not caplog.records, (SEED, caplog.text)


@pytest.mark.timeout(3000)
async def test_odd_requests_are_answered_or_cut_and_leave_nothing(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)  # what is less is kept for each request, and grows
    engine.slots = AT_ONCE
    controller.set_routes(model("demo", engine.route))
    gateway = make_gateway(settings, Hasty)
    await gateway.start()
    fuzzer = Fuzzer(SEED)
    statuses: Counter[int] = Counter()
    unanswered = 0
    began_s = time.monotonic()
    process = psutil.Process()
    before_mib = 0.0
    for sent in range(0, REQUESTS, AT_ONCE):
        requests = [fuzzer.request() for _ in range(AT_ONCE)]
        answers = await asyncio.gather(*(send(gateway, request) for request in requests))
        for request, found in zip(requests, answers, strict=True):
            assert set(found) <= GOOD_STATUS, (SEED, found, request)
            statuses.update(found)
            unanswered += not found
        assert_engine_saw_only_what_is_allowed(engine)
        assert_nothing_failed_unseen(caplog)
        for kept in (controller.reports, controller.usage):
            kept.clear()
        capsys.readouterr()  # else it would grow for the tests' sake, as those do
        if sent <= 1000:
            before_mib = process.memory_info().rss / 2**20
    await until(lambda: not engine.running)
    assert (await gateway.http.post("/v1/chat/completions", json=chat())).status_code == 200
    await gateway.shows(0, "penstock_requests_in_flight")
    grown_mib = process.memory_info().rss / 2**20 - before_mib
    told = {
        "requests": REQUESTS, "seed": SEED, "seconds": round(time.monotonic() - began_s),
        "answers": dict(sorted(statuses.items())), "cut": unanswered,
        "mib_at_first": round(before_mib), "grown_mib": round(grown_mib, 1),
    }  # fmt: skip
    if "FUZZ_REQUESTS" in os.environ:
        with capsys.disabled():
            sys.stdout.write(f"\n{json.dumps(told)}\n")
    assert grown_mib < GROWTH_MIB
    assert statuses[200] > REQUESTS / 50  # it is not all refused at the door
    assert statuses[400] > REQUESTS / 5
