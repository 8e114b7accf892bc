"""Draws charts as inline SVG: strings from numbers, coloured by the page's style sheet. Pure.

Every chart bears a title and a description for those who hear it, and each mark a tooltip; colour
never means anything by itself.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from loadtests.compare import Interval

WIDTH, HEIGHT = 480, 230
LEFT, RIGHT, TOP, BOTTOM = 54, 16, 28, 42
ROW = 30
"""Height of a row of `intervals`."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale from `low` to `high`, drawn from `start` to `end` (SVG units)."""

    label: str
    low: float
    high: float
    start: float
    end: float

    @classmethod
    def across(cls, label: str, low: float, high: float, left: float = LEFT) -> "Axis":
        """From left to right."""
        return cls(label, low, high if high > low else low + 1, left, WIDTH - RIGHT)

    @classmethod
    def upward(cls, label: str, high: float) -> "Axis":
        """From 0 upward, to a round number that is not below `high`."""
        step = _step(0, high if high > 0 else 1, 4)
        top = step * math.ceil(round((high or step) / step, 9))
        return cls(label, 0.0, top, HEIGHT - BOTTOM, TOP)

    def at(self, value: float) -> float:
        """Where a value is drawn."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values within the scale, as numbers and as text."""
        step = _step(self.low, self.high, 5)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(n * step, f"{n * step:,.{digits}f}") for n in range(first, last + 1)]


def _step(low: float, high: float, count: int) -> float:
    """The round number (1, 2, 5 times a power of ten) that divides a range about `count` times."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


@dataclass(frozen=True, slots=True)
class Mark:
    """A value of the x axis to point out."""

    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Spot:
    """A measured point; hollow where it did not hold what was asked."""

    x: float
    y: float
    filled: bool
    tip: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of `intervals`: a name, an estimate with its interval and what that means."""

    name: str
    interval: Interval
    verdict: str
    tone: str
    """`better`, `worse` or `same`."""


def histogram(
    title: str, edges: Sequence[float], counts: Sequence[int], label: str, marks: Iterable[Mark]
) -> str:
    """Bars between each two edges, and dashed lines at the marks."""
    x = Axis.across(label, edges[0], edges[-1])
    y = Axis.upward("requests", max(counts))
    parts = []
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            left, right, top = x.at(low), x.at(high), y.at(count)
            gap = min(1.0, (right - left) / 4)
            parts.append(
                f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" rx="1" '
                f'width="{right - left - gap:.1f}" height="{y.start - top:.1f}">'
                f"<title>{low:.4g} to {high:.4g} {escape(label)}: {count}</title></rect>"
            )
    free = 0.0
    for mark in marks:
        if not x.low <= mark.value <= x.high:
            continue
        at = x.at(mark.value)
        parts.append(_line("mark", at, y.start, at, y.end - 4))
        place = min(max(at, free), WIDTH - 24)
        parts.append(_text("mark-label", place, TOP - 11, mark.label))
        free = place + 30
    return _chart(title, x, y, parts, f"{sum(counts)} values")


def area(title: str, points: Sequence[tuple[float, float]], x_label: str, y_label: str) -> str:
    """A line through the points with its area filled; each point stands until the next."""
    x = Axis.across(x_label, 0.0, max(at for at, _ in points))
    highest = max(value for _, value in points)
    y = Axis.upward(y_label, highest)
    path = "".join(
        f"{'L' if number else 'M'}{x.at(at):.1f} {y.at(value):.1f}"
        for number, (at, value) in enumerate(points)
    )
    first, last = x.at(points[0][0]), x.at(points[-1][0])
    parts = [
        f'<path class="area" d="{path}L{last:.1f} {y.start:.1f}L{first:.1f} {y.start:.1f}Z"/>',
        f'<path class="curve" d="{path}"/>',
    ]
    return _chart(title, x, y, parts, f"at most {highest:,.4g} {y_label}")


def curve(
    title: str, spots: Sequence[Spot], x_label: str, y_label: str, bound: tuple[float, str]
) -> str:
    """A line through measured points, and the bound that they are held against. A point far above
    the bound is drawn at the upper edge."""
    most = bound[0] * 2.5
    x = Axis.across(x_label, 0.0, max(spot.x for spot in spots) * 1.04)
    y = Axis.upward(y_label, max(bound[0] * 1.25, *(min(spot.y, most) for spot in spots)))
    placed = [(x.at(spot.x), y.at(min(spot.y, y.high)), spot) for spot in spots]
    path = "".join(f"{'L' if n else 'M'}{at:.1f} {up:.1f}" for n, (at, up, _) in enumerate(placed))
    level = y.at(bound[0])
    parts = [
        _line("bound", x.start, level, x.end, level),
        _text("bound-label", x.start + 4, level - 5, bound[1], "start"),
        f'<path class="curve" d="{path}"/>',
        *(
            f'<circle class="{"spot" if spot.filled else "spot hollow"}" cx="{at:.1f}" '
            f'cy="{up:.1f}" r="4"><title>{escape(spot.tip)}</title></circle>'
            for at, up, spot in placed
        ),
    ]
    return _chart(title, x, y, parts, f"{len(spots)} rates")


def intervals(title: str, rows: Sequence[Row], label: str) -> str:
    """Estimates and their intervals about 1, which means no difference."""
    low = min(1.0, *(row.interval.low for row in rows))
    high = max(1.0, *(row.interval.high for row in rows))
    edge = max((high - low) * 0.06, 0.002)
    left, wide = 110.0, WIDTH + 150
    x = Axis(label, low - edge, high + edge, left, WIDTH - RIGHT)
    height = TOP + ROW * len(rows) + BOTTOM
    floor = height - BOTTOM
    parts = [_tick(x, value, text, floor) for value, text in x.ticks()]
    parts.append(_line("neutral", x.at(1), TOP - 8, x.at(1), floor))
    for number, row in enumerate(rows):
        level = TOP + ROW * (number + 0.5)
        begin, end, middle = (
            x.at(v) for v in (row.interval.low, row.interval.high, row.interval.estimate)
        )
        shown = f"{row.interval.estimate:.3f} [{row.interval.low:.3f}, {row.interval.high:.3f}]"
        parts += [
            _text("row-name", left - 12, level + 4, row.name, "end"),
            f'<g class="{row.tone}"><title>{escape(row.name)}: {shown}, {escape(row.verdict)}'
            f"</title>{_line('span', begin, level, end, level)}"
            f'<circle cx="{middle:.1f}" cy="{level:.1f}" r="4.5"/></g>',
            _text("row-verdict", WIDTH, level + 4, row.verdict, "start"),
        ]
    parts.append(_text("axis", (x.start + x.end) / 2, height - 6, label))
    told = "; ".join(f"{row.name} {row.interval.estimate:.3f}, {row.verdict}" for row in rows)
    return _svg(title, told, wide, height, parts, "chart wide")


def _chart(title: str, x: Axis, y: Axis, parts: Iterable[str], told: str) -> str:
    grid = []
    for value, text in y.ticks():
        level = y.at(value)
        grid.append(_line("grid", x.start, level, x.end, level))
        grid.append(_text("tick", x.start - 7, level + 4, text, "end"))
    grid += [_tick(x, value, text, y.start) for value, text in x.ticks()]
    grid.append(_text("axis", (x.start + x.end) / 2, HEIGHT - 6, x.label))
    grid.append(_text("axis", 4, 11, y.label, "start"))
    return _svg(title, told, WIDTH, HEIGHT, [*grid, *parts])


def _tick(x: Axis, value: float, text: str, floor: float) -> str:
    at = x.at(value)
    return _line("notch", at, floor, at, floor + 4) + _text("tick", at, floor + 17, text)


def _svg(
    title: str, told: str, width: float, height: float, parts: Iterable[str], style: str = "chart"
) -> str:
    return (
        f'<svg class="{style}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(title)}: {escape(told)}">{"".join(parts)}</svg>'
    )


def _line(style: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(style: str, x: float, y: float, text: str, anchor: str = "middle") -> str:
    return (
        f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def in_unit(longest_s: float) -> tuple[float, str]:
    """The unit for times of up to so many seconds: its factor and its name."""
    return (1.0, "s") if longest_s >= 10 else (1000.0, "ms")
