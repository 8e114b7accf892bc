"""The script that counts limits in Redis, what it is given, and what it answers. Pure.

A window is a hash: `b<bucket>` what was used in a bucket, `t` the sum, `o` the oldest bucket that
may be there. Time is Redis' own, so that gateways' clocks need not agree. One call corrects what
was reserved before, then lets requests in one after the other: each takes all that it wants of all
its windows, or nothing. What it is given are numbers in one string, for a string of an argument's
own for each costs the gateway more than all the rest of a call.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serving.gateway.limits_window import GRAIN_S, SPAN_S

WINDOWS = int(SPAN_S / GRAIN_S)
EXPIRES_S = 130
HOLD_BUCKETS = 2
"""What is taken ahead is counted in the bucket that is so many after the present one."""

PART = 64
"""One such part of what is left of a window is taken ahead at most: what a key that stays within
its limit needs in HOLD_BUCKETS, where half of it is left."""

CLAIM = 4
"""Numbers of a claim."""

SCRIPT = f"""
local clock = redis.call('TIME')
local now = math.floor((clock[1] * 1000 + math.floor(clock[2] / 1000)) / {int(GRAIN_S * 1000)})
local numbers, at = {{}}, 0
for number in string.gmatch(ARGV[1], '%S+') do numbers[#numbers + 1] = tonumber(number) end
local function take()
  at = at + 1
  return numbers[at]
end
local totals, taken, answer = {{}}, {{}}, {{now}}
local function total_of(window)
  if totals[window] then return totals[window] end
  local key = KEYS[window]
  local seen = redis.call('HMGET', key, 't', 'o')
  local total = tonumber(seen[1] or 0)
  local oldest = tonumber(seen[2] or now)
  local gone = now - {WINDOWS} - 1
  if gone - oldest > {2 * WINDOWS} then
    redis.call('DEL', key)
    total = 0
  elseif oldest <= gone then
    local fields = {{}}
    for bucket = oldest, gone do fields[#fields + 1] = 'b' .. bucket end
    local amounts = redis.call('HMGET', key, unpack(fields))
    for i = 1, #amounts do total = total - tonumber(amounts[i] or 0) end
    redis.call('HDEL', key, unpack(fields))
    redis.call('HSET', key, 't', total, 'o', gone + 1)
  end
  totals[window] = total
  return total
end
local function add(window, bucket, amount)
  if amount == 0 then return end
  local amounts = taken[window] or {{}}
  taken[window] = amounts
  amounts[bucket] = (amounts[bucket] or 0) + amount
end
for _ = 1, take() do
  local window, difference, bucket = take(), take(), take()
  local total = total_of(window)
  if redis.call('HEXISTS', KEYS[window], 'b' .. bucket) == 1 then
    redis.call('HINCRBY', KEYS[window], 'b' .. bucket, difference)
    redis.call('HINCRBY', KEYS[window], 't', difference)
    totals[window] = total + difference
  end
end
while at < #numbers do
  local wanted, first = take(), at + 1
  local failed, verdict = 0, #answer + 1
  answer[verdict] = 0
  for i = 1, wanted do
    local window, amount, limit, ahead = take(), take(), take(), take()
    local total = total_of(window)
    answer[#answer + 1] = string.format('%.0f', total)
    answer[#answer + 1] = 0
    if failed == 0 and total + amount > limit then failed = i end
  end
  answer[verdict] = failed
  for i = 0, wanted - 1 do
    if failed > 0 then break end
    local at_claim = first + {CLAIM} * i
    local window, amount, limit = numbers[at_claim], numbers[at_claim + 1], numbers[at_claim + 2]
    local ahead, left = numbers[at_claim + 3], limit - totals[window] - amount
    ahead = math.min(ahead, math.floor(left / {PART}))
    answer[verdict + 2 * i + 2] = ahead
    totals[window] = totals[window] + amount + ahead
    add(window, now, amount)
    add(window, now + {HOLD_BUCKETS}, ahead)
  end
end
for window, amounts in pairs(taken) do
  local key, sum = KEYS[window], 0
  for bucket, amount in pairs(amounts) do
    redis.call('HINCRBY', key, 'b' .. bucket, amount)
    sum = sum + amount
  end
  redis.call('HINCRBY', key, 't', sum)
  redis.call('HSETNX', key, 'o', now)
  redis.call('EXPIRE', key, {EXPIRES_S})
end
return table.concat(answer, ' ')
"""
"""KEYS: windows. ARGV[1]: how many corrections, of each its window, difference and bucket; then of
each request how many windows it wants, and of each of these the window, the amount, the limit, and
what is to be taken ahead. Answers the bucket of now, and of each request 0 or the first window that
it does not fit in, and of each window what was used before and what was taken ahead."""

DIGEST = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest().encode()


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request wants of one window."""

    window: bytes
    amount: int
    limit: int
    ahead: int = 0
    """What is to be taken for requests to come, if there is plenty."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a request."""

    failed: int
    """0, or the first of its windows that it does not fit in, counted from 1."""
    buckets: Sequence[int] = ()
    """That its uses are counted in, one for each window."""
    used: Sequence[int] = ()
    """Of each of its windows, before; nothing where Redis was not asked."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call's answer says of one of its requests."""

    verdict: Verdict
    ahead: Sequence[int]
    """What was taken of each window for requests to come."""
    ahead_bucket: int


Correction = tuple[bytes, int, int]
"""A window, a difference, and the bucket of the use that it is of."""


def arguments(
    corrections: Iterable[Correction], requests: Iterable[Sequence[Claim]]
) -> list[bytes]:
    """KEYS and ARGV of a call, after their number."""
    windows: dict[bytes, int] = {}
    numbers: list[int] = [0]
    for window, difference, bucket in corrections:
        numbers[0] += 1
        numbers += (windows.setdefault(window, len(windows) + 1), difference, bucket)
    for claims in requests:
        numbers.append(len(claims))
        for claim in claims:
            number = windows.setdefault(claim.window, len(windows) + 1)
            numbers += (number, claim.amount, claim.limit, claim.ahead)
    return [b"%d" % len(windows), *windows, " ".join(map(str, numbers)).encode()]


def outcomes(answer: bytes, requests: Iterable[Sequence[Claim]]) -> list[Outcome]:
    """What a call's answer says of each of its requests."""
    bucket, *numbers = map(int, answer.split())
    found, at = [], 0
    for claims in requests:
        after = at + 1 + 2 * len(claims)
        used, ahead = numbers[at + 1 : after : 2], numbers[at + 2 : after : 2]
        verdict = Verdict(numbers[at], [bucket] * len(claims), used)
        found.append(Outcome(verdict, ahead, bucket + HOLD_BUCKETS))
        at = after
    return found
