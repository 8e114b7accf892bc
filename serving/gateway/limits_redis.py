"""Limits counted in Redis: one script for each request, over all meters that it touches.

Requests and tokens of a minute are counted there, exactly over all gateways. What is in use at
once, and budgets, stay with the controller's shares: a gateway that dies would leave the first
behind in Redis, and the second have to outlive Redis.

A window is a hash: `b<bucket>` what was used in a bucket, `t` the sum, `o` the oldest bucket that
may be there. Time is Redis' own, so that gateways' clocks need not agree.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import NoScriptError, RedisError

from serving.gateway.limits import LimitStoreDownError, WhenDown
from serving.gateway.limits_meter import Demand, Meter, Reserved, Shortage
from serving.gateway.limits_shares import SharedMeters
from serving.gateway.limits_window import GRAIN_S, SPAN_S
from serving.logs import get_logger
from serving.shares import MeterKind

TIMEOUT_S = 0.25
"""A Redis that takes longer is down."""

RETRY_S = 0.5
"""So long after a failure nobody asks again: a Redis that hangs must not hold each request up."""

CONNECTIONS = 16
COUNTED_THERE = frozenset({MeterKind.REQUESTS, MeterKind.INPUT, MeterKind.OUTPUT})
WINDOWS = int(SPAN_S / GRAIN_S)
EXPIRES_S = 130

COMMON = f"""
local clock = redis.call('TIME')
local now = math.floor((clock[1] * 1000 + math.floor(clock[2] / 1000)) / {int(GRAIN_S * 1000)})
local function total_of(key)
  local seen = redis.call('HMGET', key, 't', 'o')
  local total = tonumber(seen[1] or 0)
  local oldest = tonumber(seen[2] or now)
  local gone = now - {WINDOWS} - 1
  if oldest <= gone then
    if gone - oldest > {2 * WINDOWS} then
      redis.call('DEL', key)
      return 0
    end
    local fields = {{}}
    for bucket = oldest, gone do fields[#fields + 1] = 'b' .. bucket end
    local amounts = redis.call('HMGET', key, unpack(fields))
    for i = 1, #amounts do total = total - tonumber(amounts[i] or 0) end
    redis.call('HDEL', key, unpack(fields))
    redis.call('HSET', key, 't', total, 'o', gone + 1)
  end
  return total
end
"""

TAKE = (
    COMMON
    + f"""
local answer = {{0, now}}
for i = 1, #KEYS do
  local total = total_of(KEYS[i])
  answer[#answer + 1] = total
  if answer[1] == 0 and total + tonumber(ARGV[2 * i - 1]) > tonumber(ARGV[2 * i]) then
    answer[1] = i
  end
end
if answer[1] == 0 then
  for i = 1, #KEYS do
    local amount = ARGV[2 * i - 1]
    redis.call('HINCRBY', KEYS[i], 'b' .. now, amount)
    redis.call('HINCRBY', KEYS[i], 't', amount)
    redis.call('HSETNX', KEYS[i], 'o', now)
    redis.call('EXPIRE', KEYS[i], {EXPIRES_S})
  end
end
return answer
"""
)
"""KEYS: windows. ARGV: amount and limit of each. Answers 0 or the first that it does not fit in,
the bucket, and what was used of each before."""

SETTLE = (
    COMMON
    + """
for i = 1, #KEYS do
  total_of(KEYS[i])
  local field = 'b' .. ARGV[2 * i]
  if redis.call('HEXISTS', KEYS[i], field) == 1 then
    redis.call('HINCRBY', KEYS[i], field, ARGV[2 * i - 1])
    redis.call('HINCRBY', KEYS[i], 't', ARGV[2 * i - 1])
  end
end
"""
)
"""KEYS: windows. ARGV: difference and bucket of each."""

log = get_logger(__name__)


class RedisMeters:
    """Counts in Redis what can be counted there, and leaves the rest to the shares."""

    def __init__(
        self,
        url: str,
        shared: SharedMeters,
        when_down: WhenDown,
        clock: Callable[[], float] = time.time,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        pool: ConnectionPool = ConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
        )
        self._redis: Redis = Redis.from_pool(pool)
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._shared = shared
        self._when_down = when_down
        self._clock = clock
        self._timeout_s = timeout_s
        self._scripts: dict[str, str] = {}
        self._down_until = 0.0
        self._was_down = False
        self._settling: set[asyncio.Task[None]] = set()
        self._corrections: list[tuple[Meter, int, str | int]] = []

    async def close(self) -> None:
        """Ends what is under way, and closes the connections."""
        await asyncio.gather(*self._settling, return_exceptions=True)
        await self._redis.aclose()

    async def take(self, wanted: Sequence[Demand]) -> list[Reserved] | Shortage:
        """As Source."""
        there = [demand for demand in wanted if demand.meter.kind in COUNTED_THERE]
        here = [demand for demand in wanted if demand.meter.kind not in COUNTED_THERE]
        outcome = await self._take(there) if there else []
        if isinstance(outcome, Shortage) or not here:
            return outcome
        try:
            rest = await self._shared.take(here)
        except BaseException:
            self._give_back(outcome)
            raise
        if isinstance(rest, Shortage):
            self._give_back(outcome)
            return rest
        return outcome + rest

    def settled(self, reserved: Reserved, amount: int) -> None:
        """As Source."""
        if reserved.meter.kind not in COUNTED_THERE:
            self._shared.settled(reserved, amount)
            return
        difference = amount - reserved.amount
        if difference:
            mark = reserved.mark
            reserved.meter.book.correct(_own_mark(mark), difference, self._clock())
            if isinstance(mark, str):
                self._correct(reserved.meter, difference, mark)
            reserved.amount = amount

    async def _take(self, wanted: list[Demand]) -> list[Reserved] | Shortage:
        at = self._clock()
        arguments = [n for demand in wanted for n in (demand.amount, demand.meter.limit)]
        answer = await self._run(TAKE, [_key(d.meter) for d in wanted], arguments)
        if answer is None:
            return self._take_alone(wanted, at)
        failed, bucket, *used = answer
        for demand, total in zip(wanted, used, strict=True):
            _mirror(demand.meter, total, at)
        if failed:
            demand = wanted[failed - 1]
            return Shortage(demand.meter, demand.amount, demand.meter.limit, unknown=False)
        return [
            Reserved(d.meter, d.amount, f"{bucket}:{d.meter.book.add(at, d.amount)}")
            for d in wanted
        ]

    def _take_alone(self, wanted: list[Demand], at: float) -> list[Reserved] | Shortage:
        """Redis is down: refuse, or count for this gateway alone."""
        if self._when_down is WhenDown.DENY:
            raise LimitStoreDownError("limits cannot be checked at the moment")
        for d in wanted:
            if d.meter.book.used(at) + d.amount > d.meter.limit:
                return Shortage(d.meter, d.amount, d.meter.limit, unknown=False)
        return [Reserved(d.meter, d.amount, d.meter.book.add(at, d.amount)) for d in wanted]

    def _give_back(self, reserved: list[Reserved]) -> None:
        for one in reserved:
            self.settled(one, 0)

    def _correct(self, meter: Meter, difference: int, mark: str | int) -> None:
        """Sends a correction, with all others of this moment."""
        self._corrections.append((meter, difference, mark))
        if len(self._corrections) == 1:
            task = asyncio.get_running_loop().create_task(self._send_corrections())
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def _send_corrections(self) -> None:
        await asyncio.sleep(0)
        corrections, self._corrections = self._corrections, []
        keys = [_key(meter) for meter, _, _ in corrections]
        arguments = [
            value for _, diff, mark in corrections for value in (diff, str(mark).partition(":")[0])
        ]
        await self._run(SETTLE, keys, arguments)

    async def _run(
        self, script: str, keys: list[str], arguments: Sequence[int | str]
    ) -> list[int] | None:
        """A script's answer; None while Redis is down."""
        if time.monotonic() < self._down_until:
            return None
        try:
            async with asyncio.timeout(2 * self._timeout_s), self._room:
                answer = await self._evaluate(script, keys, arguments)
        except (RedisError, OSError, TimeoutError) as exc:
            self._down_until = time.monotonic() + RETRY_S
            if not self._was_down:
                then = self._when_down.value
                log.error("limit_store_away", reason=type(exc).__name__, then=then)
            self._was_down = True
            return None
        if self._was_down:
            self._was_down = False
            log.info("limit_store_back")
        return answer

    async def _evaluate(
        self, script: str, keys: list[str], arguments: Sequence[int | str]
    ) -> list[int]:
        digest = self._scripts.get(script)
        if digest is None:
            digest = self._scripts[script] = await self._redis.script_load(script)
        try:
            answer = await self._redis.evalsha(digest, len(keys), *keys, *arguments)
        except NoScriptError:  # it was restarted
            answer = await self._redis.eval(script, len(keys), *keys, *arguments)
        return list(answer or ())


def _key(meter: Meter) -> str:
    return f"penstock:{meter.limit_id}:{meter.kind}"


def _own_mark(mark: str | int) -> str | int:
    return int(mark.partition(":")[2]) if isinstance(mark, str) else mark


def _mirror(meter: Meter, total: int, at: float) -> None:
    """Has the gateway's own book say what Redis says, for the headers and for a fall-back."""
    difference = total - meter.book.used(at)
    if difference:
        meter.book.add(at, difference)
