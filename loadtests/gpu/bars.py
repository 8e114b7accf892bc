"""What the figures of a check come to: bars met or missed, and the short table. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.gpu.runner import Result

PLATFORM_SHARE = 0.98
ROOFLINE_SHARE = 0.6
WAKE_S = 2.0
COLD_START_S = 10.0
LEFT_MIB = 64

NONE = "-"


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise and what was measured."""

    what: str
    value: float | None
    """None: it was not measured."""
    bar: float
    at_most: bool = False
    """Whether less is better."""
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """None where it was not measured."""
        if self.value is None or not math.isfinite(self.value):
            return None
        return self.value <= self.bar if self.at_most else self.value >= self.bar


def bars(results: Iterable[Result]) -> list[Bar]:
    """The promises for one H200, with what the parts measured of them."""
    by_name = {result.name: result for result in results}

    def figure(part: str, *path: str) -> Any:
        found: Any = by_name[part].figures if part in by_name else None
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    found = []
    loads = [name for name in (figure("bare") or {}) if name.startswith("c")]
    for load in loads or ["c1"]:
        ours = figure("platform", load, "tokens_s")
        its = figure("bare", load, "tokens_s")
        share = ours / its if ours is not None and its else None
        found.append(Bar(f"platform over bare engine, {load[1:]} at once", share, PLATFORM_SHARE))
    found += [
        Bar("decode over its roofline", figure("roofline", "decode_share"), ROOFLINE_SHARE),
        Bar("wake from sleep level 1", _middle(figure("sleep", "level_1", "first_token_s")),
            WAKE_S, at_most=True, unit="s"),
        Bar("cold start of the platform", _middle(figure("cold_start", "first_token_s")),
            COLD_START_S, at_most=True, unit="s"),
        Bar("GPU memory left behind", _left_mib(by_name.values()), LEFT_MIB, at_most=True,
            unit="MiB"),
    ]  # fmt: skip
    return found


def _middle(values: Sequence[float] | None) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _left_mib(results: Iterable[Result]) -> float | None:
    left = [after - before for before, after in (r.gpu_mib for r in results)
            if before is not None and after is not None]  # fmt: skip
    return float(max(left)) if left else None


def table(results: Iterable[Result], judged: Sequence[Bar], *, binding: bool) -> str:
    """The short table; with `binding` the bars are those of this machine, else for show."""
    lines = ["part         status      seconds  GPU MiB before, after"]
    for result in results:
        before, after = (NONE if mib is None else str(mib) for mib in result.gpu_mib)
        lines.append(f"{result.name:<12} {result.status:<11} {result.seconds:7.1f}  {before}, "
                     f"{after}{'   ' + result.said if result.said else ''}")  # fmt: skip
    lines += ["", "figure                                    measured       bar"]
    for bar in judged:
        value = NONE if bar.value is None else f"{bar.value:.3g} {bar.unit}".strip()
        sign = "at most" if bar.at_most else "at least"
        word = {True: "met", False: "MISSED", None: "not measured"}[bar.met]
        stated = f"{sign} {bar.bar:g}   {word}" if binding else "none on a CPU"
        lines.append(f"{bar.what:<40} {value:>10}  {stated}")
    return "\n".join(lines)
