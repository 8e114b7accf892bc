"""`make test-outage`: a database that is away for ten minutes, under load, in real time.

    python -m tests.metering.outage [--away-s 600] [--seed N] [--keep]

Two gateways, a controller on PostgreSQL, two fake engines. Tenants ask all the time; the server is
killed, and comes back after `--away-s`. Exits 1 where a request was lost, a row is missing, or a
count differs.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.metering import truth
from tests.metering.client import Tenants
from tests.metering.engine import SOUND_VARIABLE
from tests.metering.platform import MODEL, TENANT_KEY, Platform
from tests.metering.postgres import obstacle, running
from tests.metering.verdict import tell

BEFORE_S = 5.0
AFTER_S = 10.0
CALLERS = 8
PAUSE_S = 0.4
"""On average between two requests of a caller: together about fifteen requests a second."""

TOLD_EACH_S = 60.0


async def play(away_s: float, seed: int, folder: Path) -> list[str]:
    """Plays it and returns what is not true."""
    with running() as server:
        platform = Platform(folder, server)
        for host in platform.hosts:
            host.environment[SOUND_VARIABLE] = "1"
        tenants = Tenants(platform.urls, TENANT_KEY, MODEL, seed)
        stop = asyncio.Event()
        try:
            await platform.start()
            load = asyncio.create_task(tenants.run_until(stop, CALLERS, PAUSE_S))
            await asyncio.sleep(BEFORE_S)
            server.kill()
            before = tenants.done
            await _wait(away_s, tenants)
            during = tenants.done - before
            await asyncio.to_thread(server.start)
            back_s = time.monotonic()
            await asyncio.sleep(AFTER_S)
            stop.set()
            await load
            await platform.settle()
            settled_s = time.monotonic() - back_s
            stored = await truth.read(platform.database_url)
        finally:
            platform.close()
    tries = tenants.tries
    lost = [one for one in tries if not one.complete and (one.waited or not one.left)]
    print(
        f"  {len(tries)} requests, {during} of them while the database was away for "
        f"{away_s:g} s; {len(lost)} lost; {len(stored.usage)} rows, "
        f"{len(stored.attempts)} attempts; all settled {settled_s:.0f} s after it was back",
        flush=True,
    )
    found = [f"a request was lost: {one}" for one in lost]
    if not during:
        found.append("nobody asked while the database was away")
    return found + truth.faults(stored, tries, truth.tallies(folder), at_deaths=0)


async def _wait(away_s: float, tenants: Tenants) -> None:
    ends_s = time.monotonic() + away_s
    while (left_s := ends_s - time.monotonic()) > 0:
        await asyncio.sleep(min(left_s, TOLD_EACH_S))
        print(f"  {tenants.done} requests answered or left", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.metering.outage")
    parser.add_argument("--away-s", type=float, default=600.0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--keep", action="store_true", help="keep logs")
    given = parser.parse_args()
    if (reason := obstacle()) is not None:
        print(f"not here: {reason}")
        return 0
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="penstock-outage-"))
    print(f"the database is away for {given.away_s:g} s, seed {seed}", flush=True)
    faults = asyncio.run(play(given.away_s, seed, folder))
    return tell(faults, folder, keep=given.keep, shown=20)


if __name__ == "__main__":
    sys.exit(main())
