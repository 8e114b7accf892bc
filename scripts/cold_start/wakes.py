"""Calls sleeping models, one at a time; what has to hold before each call is checked and kept."""

import http.client
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.cold_start.parts import say
from scripts.cold_start.platform_up import KEYS, Platform, first_token_s, platform, wait_until
from scripts.cold_start.processes import family, maps_any, parent, private_mib, processes
from scripts.cold_start.processes import resident_mib as resident

KV_CACHE_GIB = 0.03
STORY_WITHIN_S = 5.0
"""Within which a start's trace is whole; the gateway reports the first token afterwards."""


@dataclass(frozen=True)
class Wake:
    """One call of a sleeping model."""

    model: str
    took_s: float | None  # None: lost
    start: dict[str, Any] | None
    """Its trace; None: it was not told in time."""
    private_mib: float | None
    """Of all processes of the engine together; None: it was gone before it could be seen."""
    launcher_mib: float | None
    load: float
    processes_that_map_weights: int
    """Before the call; all processes of the machine were looked at."""
    hosts_free: int
    hosts: int


class Waker:
    """Wakes models of one platform.

    Args:
        running: The platform.
        folder: Below it lie all models' weights.
    """

    def __init__(self, running: Platform, folder: Path) -> None:
        self._running = running
        self._folder = folder
        self._launcher: int | None = None

    def wake(self, model: str) -> Wake:
        """Checks that all sleeps, calls a model and measures until its first token.

        Raises:
            RuntimeError: If not all is asleep.
        """
        running = self._running
        wait_until(running.is_all_asleep, "all models sleep")
        wait_until(lambda: not self._mapping(), "no process maps weights")
        time.sleep(0.3)  # what an engine's end leaves behind must not slow the next start down
        mapped, hosts = self._mapping(), running.admin("hosts")
        free = sum(host["engine_id"] is None for host in hosts)
        if mapped or free < len(hosts) or running.admin("engines"):
            raise RuntimeError(f"not all is asleep: {mapped} map weights")
        load = os.getloadavg()[0]
        took_s = private = start = None
        try:
            took_s = first_token_s(running.host, model, KEYS["PENSTOCK_API_KEY"])
            private, engine_id = self._look(model)
            start = self._story(model, engine_id)
        except (OSError, http.client.HTTPException, RuntimeError) as exc:
            say(f"{'lost' if took_s is None else 'not looked at'}: {exc!r}")
        launcher = (resident(self._launcher) if self._launcher else 0) or None
        return Wake(model, took_s, start, private, launcher, load, len(mapped), free, len(hosts))

    def _mapping(self) -> list[int]:
        return [pid for pid in processes() if maps_any(pid, self._folder)]

    def _look(self, model: str) -> tuple[float | None, str | None]:
        """Memory and id of the model's engine, while it is there."""
        for engine in self._running.admin("engines"):
            if engine["model"] == model and engine["pid"]:
                self._launcher = parent(engine["pid"]) or self._launcher
                private = sum(map(private_mib, family(engine["pid"])))
                return private or None, engine["engine_id"]
        return None, None

    def _story(self, model: str, engine_id: str | None) -> dict[str, Any] | None:
        """The trace of this start, once its first token is in it."""
        deadline_s = time.monotonic() + STORY_WITHIN_S
        while engine_id is not None and time.monotonic() < deadline_s:
            for start in self._running.admin(f"models/{model}/starts"):
                if start["engine_id"] == engine_id and start["waited_s"] is not None:
                    return start
            time.sleep(0.05)
        return None


def bench_wakes(
    calls: Sequence[str],
    folder: Path,
    weights: Sequence[Path],
    tell: Callable[[Wake], None],
    cleanup: ExitStack,
) -> None:
    """Wakes models in the order of the calls.

    Args:
        calls: Names of models.
        folder: Below it lie all models' weights, and the platform's data.
        weights: The models.
        tell: Takes each wake as it is done.
        cleanup: Takes the platform down where an interrupt leaves it up.

    Raises:
        RuntimeError: If not all is asleep before a call.
    """
    up = cleanup.enter_context(ExitStack())
    running = up.enter_context(platform(folder / "data"))
    try:
        for path in weights:
            manifest = {
                "name": path.name,
                "source": f"file://{path}",
                "engine": {"max_num_seqs": 8, "kv_cache_gib": KV_CACHE_GIB},
                "scaling": {"idle_timeout_s": 0.5},
            }
            running.admin("models", manifest)
        waker = Waker(running, folder)
        for count, model in enumerate(calls):
            one = waker.wake(model)
            tell(one)
            say(f"wake {count + 1}/{len(calls)}: {story(one)}")
    except Exception:
        up.close()
        raise
    up.close()


def story(one: Wake) -> str:
    """One wake in one line."""
    took = "lost" if one.took_s is None else f"{one.took_s:.3f} s"
    memory = "" if one.private_mib is None else f"; {one.private_mib:.0f} MiB private"
    return (
        f"{one.model} {took}; before it {one.processes_that_map_weights} processes mapped weights,"
        f" {one.hosts_free} of {one.hosts} hosts were free; load {one.load:.1f}{memory}"
    )


def keep(wakes: Sequence[Wake], path: Path) -> None:
    """Writes all wakes to a file, as JSON."""
    path.write_text(json.dumps([asdict(one) for one in wakes], indent=1) + "\n", "utf-8")
