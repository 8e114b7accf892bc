"""Limits counted in a real Redis: exact over gateways, cheap, and clear about its absence."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from serving.gateway.limits import LimitStoreDownError, WhenDown
from serving.gateway.limits_meter import Demand, Meter, Shortage
from serving.gateway.limits_redis import RedisMeters
from serving.gateway.limits_rules import Rules
from serving.gateway.limits_shares import SharedMeters
from serving.gateway.redis_link import RedisAddress, connect
from serving.identities import LimitRecord
from serving.limits import limit_id
from serving.settings import GatewaySettings
from serving.shares import MeterKind, ShareReply, ShareReport
from tests.serving.gateway.conftest import Gateway, chat
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine
from tests.serving.gateway.redis_server import RedisServer
from tests.serving.gateway.test_limits import PATH, apply, limit


class NoController:
    """Hands out nothing."""

    async def shares(self, report: ShareReport) -> ShareReply:
        return ShareReply()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.kill()


def meters(url: str, when_down: WhenDown = WhenDown.ALLOW) -> RedisMeters:
    shared = SharedMeters(Rules((), ()), NoController(), "gw", when_down)
    # A machine that is busy with other tests is not a Redis that is away.
    return RedisMeters(url, shared, when_down, timeout_s=10.0)


def meter(kind: MeterKind, value: int, scope: str = "key-1") -> Meter:
    fields = {MeterKind.REQUESTS: "requests_per_min", MeterKind.OUTPUT: "output_tokens_per_min"}
    record = LimitRecord(limit_id=limit_id(scope, "*"), scope_id=scope, **{fields[kind]: value})
    return Meter(record, kind)


async def test_gateways_together_take_exactly_the_limit(redis: RedisServer) -> None:
    gateways = [(meters(redis.url), meter(MeterKind.REQUESTS, 50)) for _ in range(3)]
    outcomes = await asyncio.gather(
        *(source.take([Demand(mine, 1)]) for source, mine in gateways for _ in range(40))
    )
    assert sum(not isinstance(outcome, Shortage) for outcome in outcomes) == 50
    for source, _ in gateways:
        await source.close()


async def test_refund_of_one_gateway_is_usable_at_another_at_once(redis: RedisServer) -> None:
    one, two = meters(redis.url), meters(redis.url)
    theirs, ours = meter(MeterKind.OUTPUT, 100), meter(MeterKind.OUTPUT, 100)
    reserved = await one.take([Demand(theirs, 90)])
    assert not isinstance(reserved, Shortage)
    assert isinstance(await two.take([Demand(ours, 50)]), Shortage)
    one.settled([(reserved[0], 5)])
    async with asyncio.timeout(10):  # of a busy machine
        while isinstance(await two.take([Demand(ours, 50)]), Shortage):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    for source in (one, two):
        await source.close()


async def test_all_meters_are_taken_or_none(redis: RedisServer) -> None:
    source = meters(redis.url)
    wide, narrow = meter(MeterKind.REQUESTS, 100, "org-1"), meter(MeterKind.REQUESTS, 1)
    assert not isinstance(await source.take([Demand(wide, 1), Demand(narrow, 1)]), Shortage)
    shortage = await source.take([Demand(wide, 1), Demand(narrow, 1)])
    assert isinstance(shortage, Shortage)
    assert shortage.meter is narrow
    left = [await source.take([Demand(wide, 1)]) for _ in range(100)]
    assert sum(not isinstance(outcome, Shortage) for outcome in left) == 99
    await source.close()


async def test_killed_redis_is_what_the_operator_chose_and_comes_back(redis: RedisServer) -> None:
    allowing, denying = meters(redis.url), meters(redis.url, WhenDown.DENY)
    mine = meter(MeterKind.REQUESTS, 5)
    assert not isinstance(await allowing.take([Demand(mine, 1)]), Shortage)
    redis.kill()
    with pytest.raises(LimitStoreDownError):
        await denying.take([Demand(meter(MeterKind.REQUESTS, 5), 1)])
    outcomes = [await allowing.take([Demand(mine, 1)]) for _ in range(6)]
    assert [isinstance(outcome, Shortage) for outcome in outcomes] == [False] * 4 + [True] * 2
    redis.start()
    async with asyncio.timeout(5):
        while True:
            try:
                await denying.take([Demand(meter(MeterKind.REQUESTS, 5), 1)])
                break
            except LimitStoreDownError:
                await asyncio.sleep(0.05)
    for source in (allowing, denying):
        await source.close()


async def test_check_takes_little_of_the_gateways_time(redis: RedisServer) -> None:
    """CPU of this process for a check of three meters and its settlement; printed, and bounded
    generously: the machine of a test may be slow."""
    source = meters(redis.url)
    mine = [meter(MeterKind.REQUESTS, 10**9, f"key-{i}") for i in range(3)]
    wanted = [Demand(one, 1) for one in mine]
    await source.take(wanted)
    began = time.process_time()
    checks = 500
    for _ in range(checks):
        reserved = await source.take(wanted)
        assert isinstance(reserved, list)
        source.settled([(one, 0) for one in reserved])
    took_us = (time.process_time() - began) / checks * 1e6
    print(f"{took_us:.0f} us of CPU a check with its settlement")
    assert took_us < 3000
    await source.close()


async def test_busy_key_is_taken_ahead_never_beyond_its_limit(redis: RedisServer) -> None:
    sources = [meters(redis.url) for _ in range(2)]

    async def come(source: RedisMeters, mine: Meter) -> int:
        let_in = 0
        for _ in range(150):
            await asyncio.sleep(0.002)
            let_in += not isinstance(await source.take([Demand(mine, 1)]), Shortage)
        return let_in

    whole = [(source, meter(MeterKind.REQUESTS, 200)) for source in sources]
    let_in = sum(await asyncio.gather(*(come(*one) for one in whole)))
    assert 150 <= let_in <= 200  # where the machine stands still, what was taken ahead lapses
    for source in sources:
        await source.close()
    assert await total(redis, whole[0][1]) == let_in


async def test_what_was_taken_ahead_in_vain_is_given_back(redis: RedisServer) -> None:
    source, mine = meters(redis.url), meter(MeterKind.REQUESTS, 100_000)
    for _ in range(30):
        assert not isinstance(await source.take([Demand(mine, 1)]), Shortage)
        await asyncio.sleep(0.006)
    assert await total(redis, mine) >= 30
    async with asyncio.timeout(10):  # well within a second, where the machine is not busy
        while await total(redis, mine) != 30:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await source.close()


async def test_request_given_up_meanwhile_gives_its_share_back(redis: RedisServer) -> None:
    source, mine = meters(redis.url), meter(MeterKind.REQUESTS, 100)
    await source.take([Demand(mine, 1)])
    tasks = [asyncio.create_task(source.take([Demand(mine, 1)])) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await source.close()
    assert await total(redis, mine) == 1


async def test_script_that_redis_forgot_is_sent_again(redis: RedisServer) -> None:
    source, mine = meters(redis.url), meter(MeterKind.REQUESTS, 100)
    await source.take([Demand(mine, 1)])
    link = await connect(RedisAddress.of(redis.url))
    await link.call(b"SCRIPT", b"FLUSH")
    assert not isinstance(await source.take([Demand(mine, 1)]), Shortage)
    link.close()
    await source.close()
    assert await total(redis, mine) == 2


async def test_redis_that_wants_a_password_gets_it(redis: RedisServer) -> None:
    link = await connect(RedisAddress.of(redis.url))
    await link.call(b"CONFIG", b"SET", b"requirepass", b"s3cret/")
    link.close()
    without = meters(redis.url, WhenDown.DENY)
    having = meters(redis.url.replace("redis://", "redis://:s3cret%2F@"), WhenDown.DENY)
    with pytest.raises(LimitStoreDownError):
        await without.take([Demand(meter(MeterKind.REQUESTS, 5), 1)])
    assert not isinstance(await having.take([Demand(meter(MeterKind.REQUESTS, 5), 1)]), Shortage)
    for source in (without, having):
        await source.close()


async def total(redis: RedisServer, mine: Meter) -> int:
    """What Redis counts as used."""
    link = await connect(RedisAddress.of(redis.url))
    counted = await link.call(b"HGET", mine.name, b"t")
    link.close()
    return int(counted or 0)


@pytest.mark.parametrize("direction", ["allow", "deny"])
async def test_two_gateways_keep_a_limit_until_redis_dies(
    make_gateway: Callable[[GatewaySettings], Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
    redis: RedisServer,
    direction: str,
) -> None:
    """Short and real; ten minutes of fifty keys are simulated in `test_limits_together`."""
    controller.set_routes(model("demo", engine.route.model_copy(update={"slots": 256})))
    gateways = []
    for i in range(2):
        changed = {
            "gateway_state_dir": settings.gateway_state_dir / str(i),
            "redis_url": SecretStr(redis.url),
            "on_limit_store_down": direction,
        }
        gateways.append(make_gateway(settings.model_copy(update=changed)))
        await gateways[-1].start()
    for gateway in gateways:
        await apply(gateway, controller, limit(requests_per_min=30))
    rng = random.Random("redis")
    answers = []
    for _ in range(10):  # few at once: a machine that is busy is not a Redis that is away
        sent = (rng.choice(gateways).http.post(PATH, json=chat()) for _ in range(6))
        answers += await asyncio.gather(*sent)
    assert sum(answer.status_code == 200 for answer in answers) == 30
    assert sum(answer.status_code == 429 for answer in answers) == 30
    redis.kill()
    status = (await gateways[0].http.post(PATH, json=chat())).status_code
    # Allowed, the gateway counts alone, from what it last heard: the limit is used up.
    assert status == (429 if direction == "allow" else 503)
