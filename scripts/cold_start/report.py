"""What the benchmark says in the end: waterfalls, memory, and one line of JSON. Pure but for print.

All figures may be missing: a part was not asked for, failed, or was interrupted.
"""

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.cold_start.parts import End, say
from scripts.cold_start.wakes import Wake
from scripts.cold_start.weights import LARGE

MEDIAN_BAR_S, SPEEDUP_BAR = 1.0, 20
LAUNCHER_BAR_MIB, ENGINE_BAR_MIB = 667, 238
"""700 and 250 MB."""


@dataclass
class Found:
    """All that was found so far."""

    wakes: list[Wake] = field(default_factory=list)
    servers_s: dict[str, float] = field(default_factory=dict)
    """By part: what vLLM's own server took."""
    ends: list[End] = field(default_factory=list)
    left_out: tuple[str, ...] = ()
    """Parts that were not asked for."""

    @property
    def demo(self) -> list[Wake]:
        """Wakes of the five models."""
        return [one for one in self.wakes if one.model != LARGE]

    @property
    def large(self) -> list[Wake]:
        """Wakes of the model of 100M parameters."""
        return [one for one in self.wakes if one.model == LARGE]

    @property
    def is_well(self) -> bool:
        """Whether no part failed and no wake was lost."""
        failed = any(end.failure is not None for end in self.ends)
        return not failed and all(one.took_s is not None for one in self.wakes)


def tell(found: Found) -> None:
    """Prints the report; its last line is one JSON object."""
    for name, wakes in (("the five models", found.demo), (LARGE, found.large)):
        if (middle := median_wake(wakes)) is not None:
            for line in waterfall(middle, name):
                say(line)
    line = json_line(found)
    say("")
    for text in table(line):
        say(text)
    say(json.dumps(line))


def json_line(found: Found) -> dict[str, Any]:
    """The last line's content; None where something was not measured."""
    eager_s, default_s = found.servers_s.get("eager"), found.servers_s.get("default")
    line: dict[str, Any] = {"bench": "cold-start", **figures(found.demo, eager_s, default_s)}
    large = found.servers_s.get("large-eager"), found.servers_s.get("large-default")
    if found.large or any(large):
        line["large"] = figures(found.large, *large)
    launchers = [one.launcher_mib for one in found.wakes if one.launcher_mib is not None]
    engines = [one.private_mib for one in found.demo if one.private_mib is not None]
    loads = [one.load for one in found.wakes]
    return line | {
        "launcher_mib": round(max(launchers)) if launchers else None,
        "engine_private_mib": round(max(engines)) if engines else None,
        "checked_before": len(found.wakes),
        "mapped_before": sum(one.processes_that_map_weights for one in found.wakes),
        "hosts_taken_before": sum(one.hosts - one.hosts_free for one in found.wakes),
        "load": [round(min(loads), 1), round(max(loads), 1)] if loads else None,
        "parts_s": {end.part: round(end.took_s, 1) for end in found.ends},
        "left_out": list(found.left_out),
        "failed": {end.part: end.failure for end in found.ends if end.failure is not None},
    }


def figures(
    wakes: Sequence[Wake], eager_s: float | None, default_s: float | None
) -> dict[str, Any]:
    """What the JSON line says of some wakes, beside the ordinary server's start."""
    times = sorted(one.took_s for one in wakes if one.took_s is not None)
    median_s = statistics.median(times) if times else None
    return {
        "median_s": _rounded(median_s, 3),
        "p95_s": _rounded(times[min(len(times) - 1, int(0.95 * len(times)))], 3) if times else None,
        "max_s": _rounded(times[-1], 3) if times else None,
        "wakes": len(wakes),
        "lost": len(wakes) - len(times),
        "server_eager_s": _rounded(eager_s, 1),
        "server_default_s": _rounded(default_s, 1),
        "speedup": round(eager_s / median_s, 1) if eager_s and median_s else None,
    }


def median_wake(wakes: Sequence[Wake]) -> Wake | None:
    """The wake in the middle of those whose trace was told; None of none."""
    told = sorted(
        (one for one in wakes if one.took_s is not None and one.start is not None),
        key=lambda one: one.took_s or 0.0,
    )
    return told[len(told) // 2] if told else None


def waterfall(one: Wake, name: str) -> list[str]:
    """A wake's phases, a line each."""
    lines = [f"\nwaterfall of a median wake, {name}:"]
    before_s = 0.0
    for mark in (one.start or {}).get("marks", []):
        took_ms, at_ms = 1000 * (mark["at_s"] - before_s), 1000 * mark["at_s"]
        lines.append(f"  {mark['phase']:<13} {took_ms:7.1f} ms   at {at_ms:7.1f} ms")
        before_s = mark["at_s"]
    return lines


def table(line: dict[str, Any]) -> list[str]:
    """The JSON line's figures beside their bars."""
    rows = [
        ("median to the first token", line["median_s"], "s", f"bar {MEDIAN_BAR_S}"),
        ("p95", line["p95_s"], "s", ""),
        ("max", line["max_s"], "s", ""),
        ("wakes", line["wakes"], "", f"{line['lost']} lost"),
        ("vLLM's server, eager", line["server_eager_s"], "s", ""),
        ("vLLM's server, default", line["server_default_s"], "s", ""),
        ("speed-up against eager", line["speedup"], "", f"bar {SPEEDUP_BAR}"),
        ("launcher, resident", line["launcher_mib"], "MiB", f"bar {LAUNCHER_BAR_MIB}"),
        ("largest demo engine, private", line["engine_private_mib"], "MiB",
         f"bar {ENGINE_BAR_MIB}, its processes together"),
        ("wakes checked beforehand", line["checked_before"], "",
         f"{line['mapped_before']} processes mapped weights,"
         f" {line['hosts_taken_before']} hosts were taken"),
        *((f"part {part}", took_s, "s", line["failed"].get(part, ""))
          for part, took_s in line["parts_s"].items()),
    ]  # fmt: skip
    if line["load"] is not None:
        low, high = line["load"]
        rows.append(("load average", low, "", f"to {high} on {os.cpu_count()} CPUs"))
    return [
        f"{what:<30}{'not measured' if value is None else f'{value} {unit}':>14}  {note}".rstrip()
        for what, value, unit, note in rows
    ]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
