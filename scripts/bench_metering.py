"""`make bench-metering`: what metering costs a gateway and the database, and that memory is flat.

    python scripts/bench_metering.py [--requests 200000] [--rows 20000] [--folder /tmp]

CPU time is the process' own, so that other load on the machine matters little; the disk does.
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil

from serving.controller.store import Store
from serving.controller.usage_store import UsageStore
from serving.gateway.calls import Call
from serving.gateway.journal import Journal
from serving.gateway.metering import Meter
from serving.gateway.shipping import Shipping
from serving.gateway.telemetry import GatewayMetrics
from serving.gateway.visits import Tokens, Visit
from serving.metered import UsageReceipt, UsageRow, UsageStatus

AT_ONCE = 64
ROWS_A_BATCH = 500


def say(line: str) -> None:
    """One line of the result."""
    sys.stdout.write(line + "\n")


class Nowhere:
    """A controller that takes everything."""

    def __init__(self) -> None:
        self.bytes = 0

    async def usage(self, body: bytes) -> UsageReceipt:
        self.bytes += len(body)
        return UsageReceipt(new=0)


def visit() -> Visit:
    made = Visit("request", "/v1/chat/completions", time.monotonic())
    made.model, made.key_id, made.org_id, made.project_id = "demo", "key-1", "org-1", "proj-1"
    made.engine_id, made.revision = "eng-1", 3
    return made


CALL = Call(model="demo", stream=True, body=b"{}")


def finish(one: Visit) -> None:
    one.first_byte_s, one.status, one.complete = time.monotonic(), 200, True
    one.tokens, one.delivered = Tokens(100, 20), 20


async def through(meter: Meter, requests: int) -> None:
    """Requests one after the other, `AT_ONCE` of them at a time."""

    async def one_after_the_other() -> None:
        for _ in range(requests // AT_ONCE):
            one = visit()
            passage = await meter.enter(one, CALL)
            one.attempts = 1
            passage.dispatched(one)
            await passage.cleared()
            finish(one)
            passage.settle(one)

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))


async def without(requests: int) -> None:
    """The same without a toll."""

    async def one_after_the_other() -> None:
        for _ in range(requests // AT_ONCE):
            one = visit()
            one.attempts = 1
            await asyncio.sleep(0)
            finish(one)

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))


async def toll(requests: int, folder: Path) -> None:
    journal = Journal(folder / "journal" / "gw-bench")
    journal.open()
    metrics, nowhere = GatewayMetrics(), Nowhere()
    meter = Meter(journal, "refuse", metrics)
    shipping = Shipping(journal, nowhere, metrics)
    shipped = asyncio.create_task(shipping.run())
    me = psutil.Process()
    await through(meter, requests // 20)  # warm
    resident = [me.memory_info().rss / 2**20]
    empty_s = time.process_time()
    await without(requests // 4)
    empty_s = (time.process_time() - empty_s) / (requests // 4)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    for _ in range(4):
        await through(meter, requests // 4)
        resident.append(me.memory_info().rss / 2**20)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    shipped.cancel()
    await asyncio.gather(shipped, return_exceptions=True)
    await shipping.finish(10)
    left = sum(path.stat().st_size for path in journal.folder.iterdir()) / 2**20
    await journal.close(delete=True)
    each_us = (cpu_s / requests - empty_s) * 1e6
    say(f"toll and shipping: {each_us:.1f} us of CPU a request, nothing for a chunk; "
        f"{requests / wall_s:.0f} requests/s at {AT_ONCE} at once")  # fmt: skip
    say(f"journal: {nowhere.bytes / requests:.0f} bytes of rows a request; {left:.0f} MiB left")
    shown = ", ".join(f"{one:.1f}" for one in resident)
    say(f"memory over {requests} requests: {shown} MiB; {resident[-1] - resident[1]:+.1f} MiB "
          "from the first quarter to the last")  # fmt: skip


async def latency(folder: Path) -> None:
    """How long the first byte waits for the disk where requests come one by one."""
    journal = Journal(folder / "journal" / "gw-latency")
    journal.open()
    meter = Meter(journal, "refuse", GatewayMetrics())
    for engine_s in (0.0, 0.02):
        waits = []
        for _ in range(200):
            one = visit()
            passage = await meter.enter(one, CALL)
            passage.dispatched(one)
            await asyncio.sleep(engine_s)
            began_s = time.perf_counter()
            await passage.cleared()
            waits.append(time.perf_counter() - began_s)
            finish(one)
            passage.settle(one)
        waits.sort()
        p50_ms, p99_ms = waits[100] * 1e3, waits[198] * 1e3
        say(f"first byte after {engine_s * 1e3:.0f} ms in the engine: waits for its reservation "
            f"{p50_ms:.2f} ms (p50), {p99_ms:.2f} ms (p99)")  # fmt: skip
    await journal.close(delete=True)


async def rows(number: int, folder: Path) -> None:
    store = await Store.open(f"sqlite+aiosqlite:///{folder / 'usage.db'}")
    usage = UsageStore(store, "bill")
    made = [
        UsageRow(usage_id=f"{n:032x}", org_id="org-1", project_id="proj-1", key_id=f"key-{n % 50}",
                 model=f"model-{n % 5}", status=UsageStatus.COMPLETE, at=1.7e9 + n, attempts=1,
                 engine_id="eng-1", prompt=100, completion=20)
        for n in range(number)
    ]  # fmt: skip
    began_s, cpu_s = time.perf_counter(), time.process_time()
    for start in range(0, number, ROWS_A_BATCH):
        await usage.add_usage(made[start : start + ROWS_A_BATCH], time.time())
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    await store.close()
    say(f"SQLite: {number / wall_s:.0f} settled rows/s, {cpu_s / number * 1e6:.0f} us of CPU a row")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    folder = given.folder / f"penstock-bench-{os.getpid()}"
    folder.mkdir()
    try:
        asyncio.run(toll(given.requests, folder))
        asyncio.run(latency(folder))
        asyncio.run(rows(given.rows, folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
