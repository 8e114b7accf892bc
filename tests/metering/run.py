"""`make test-metering`: kills everything at random moments, three times over, then counts.

    python -m tests.metering.run [--requests 2000] [--rounds 3] [--database sqlite|postgresql|both]
                                 [--real] [--seed N] [--keep]

Prints the seed of each round; exits 1 where something is not true. `--real` makes one of the two
engines vLLM.
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.metering import truth
from tests.metering.client import Tenants
from tests.metering.platform import MODEL, TENANT_KEY, Part, Platform
from tests.metering.postgres import obstacle, running

AWAY_S = (0.3, 1.2)
"""How long a part that was killed is away."""

BUSY_WITHIN_S = 3.0
"""How long we wait for an engine to have work, so that it dies with some."""

VICTIMS = ("gateway", "engine", "controller", "database")


@dataclass(frozen=True)
class Plan:
    """One round."""

    requests: int
    seed: int
    database: str
    concurrency: int = 16


async def play(plan: Plan, folder: Path, real: tuple[Path, Path] | None = None) -> list[str]:
    """Plays a round and returns what is not true."""
    if plan.database == "sqlite":
        return await _play(plan, Platform(folder, None, real))
    with running() as server:
        return await _play(plan, Platform(folder, server, real))


async def _play(plan: Plan, platform: Platform) -> list[str]:
    tenants = Tenants(platform.urls, TENANT_KEY, MODEL, plan.seed)
    began_s = time.monotonic()
    try:
        await platform.start()
        load = asyncio.create_task(tenants.run(plan.requests, plan.concurrency))
        at_deaths = await _kill_all(plan, platform, tenants, random.Random(plan.seed))
        await load
        loaded_s = time.monotonic() - began_s
        await platform.settle()
        stored = await truth.read(platform.database_url)
    finally:
        platform.close()
    tally = truth.tallies(platform.folder)
    _print_summary(plan, tenants, stored, at_deaths, loaded_s)
    return truth.faults(stored, tenants.tries, tally, at_deaths)


async def _kill_all(plan: Plan, platform: Platform, tenants: Tenants, chance: random.Random) -> int:
    """Kills each victim once, at random moments of the load; returns what the gateway that died
    may not have settled."""
    moments = chance.sample(range(plan.requests // 10, plan.requests * 9 // 10), len(VICTIMS))
    deaths = [
        _kill(victim, moment, chance.randrange(2), chance.uniform(*AWAY_S), platform, tenants)
        for victim, moment in zip(VICTIMS, moments, strict=True)
    ]
    return sum(await asyncio.gather(*deaths))


async def _kill(
    victim: str, moment: int, which: int, away_s: float, platform: Platform, tenants: Tenants
) -> int:
    while tenants.done < moment:  # noqa: ASYNC110, tenants set no event
        await asyncio.sleep(0.005)
    print(f"  after {tenants.done} requests: kill -9 of the {victim}", flush=True)
    if victim == "gateway":
        at_death = tenants.unsettled(which)
        await _restart(platform.gateways[which], away_s)
        return at_death
    if victim == "engine":
        ends_s = time.monotonic() + BUSY_WITHIN_S
        while not platform.is_busy(which) and time.monotonic() < ends_s:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        platform.kill_engine(which)
    elif victim == "database" and platform.postgres is not None:
        platform.postgres.kill()
        await asyncio.sleep(away_s)
        await asyncio.to_thread(platform.postgres.start)
    else:  # SQLite lives and dies with the controller
        await _restart(platform.controller, away_s)
    return 0


async def _restart(part: Part, away_s: float) -> None:
    part.kill()
    await asyncio.sleep(away_s)
    part.start()


def _print_summary(
    plan: Plan, tenants: Tenants, stored: truth.Stored, at_deaths: int, loaded_s: float
) -> None:
    tries = tenants.tries
    by_status: dict[str, int] = {}
    for row in stored.usage.values():
        by_status[row.status] = by_status.get(row.status, 0) + 1
    died = sum(row.outcome == "died" for row in stored.attempts.values())
    print(
        f"  {plan.database}: {plan.requests} requests in {loaded_s:.0f} s, {len(tries)} tries, "
        f"{sum(one.complete for one in tries)} complete, {sum(one.left for one in tries)} left; "
        f"{len(stored.usage)} rows {by_status}, {len(stored.attempts)} attempts, {died} died with "
        f"their engine; {at_deaths} unsettled at a gateway's death, at most",
        flush=True,
    )


@contextlib.contextmanager
def real_engine(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A launcher that is warm, and a model for it."""
    from tests.serving.engine.real import start_launcher
    from tests.serving.engine.tiny_model import write

    model = folder / "tiny"
    write(model)
    with start_launcher(folder) as launcher:
        yield launcher.socket, model


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.metering.run")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--seed", type=int, help="of the first round; the next ones count on")
    parser.add_argument("--real", action="store_true", help="one of the engines is vLLM")
    parser.add_argument("--keep", action="store_true", help="keep logs and databases")
    given = parser.parse_args()
    databases = ["sqlite", "postgresql"] if given.database == "both" else [given.database]
    if "postgresql" in databases and (reason := obstacle()) is not None:
        print(f"not on PostgreSQL: {reason}")
        databases.remove("postgresql")
    first = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="penstock-metering-"))
    wrong = 0
    with ExitStack() as stack:
        real = stack.enter_context(real_engine(folder)) if given.real else None
        for round_ in range(given.rounds):
            for database in databases:
                seed = first + round_
                print(
                    f"round {round_ + 1} of {given.rounds} on {database}, seed {seed}", flush=True
                )
                plan = Plan(given.requests, seed, database)
                own = folder / f"{database}-{seed}"
                own.mkdir()
                faults = asyncio.run(play(plan, own, real))
                for fault in faults[:20]:
                    print(f"  NOT TRUE: {fault}", flush=True)
                wrong += len(faults)
    if given.keep or wrong:
        print(f"logs and databases are in {folder}")
    else:
        shutil.rmtree(folder)
    print("all true" if not wrong else f"{wrong} things are not true")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
