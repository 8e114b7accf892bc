"""Runs a profile against two servers in turn, and tells how they compare."""

from collections.abc import Callable

import orjson
from rich.table import Table

from loadtests.client import Client
from loadtests.compare import Comparison, Interval, compare
from loadtests.execute import Prepared, Server, execute, prepare
from loadtests.profile import Profile
from loadtests.summary import Summary, summarize


async def versus(
    a: Server, b: Server, profile: Profile, pairs: int, tell: Callable[[str], None]
) -> Comparison:
    """Runs `pairs` pairs; each pair has a seed of its own, the same for both servers, and every
    other pair begins with B.

    Raises:
        ServerError: One of the servers cannot be used.
        TraceError: The trace cannot.
        ValueError: No pairs, or nobody would arrive.
    """
    if pairs < 1:
        raise ValueError("a comparison has at least one pair")
    async with (
        Client(a.url, a.api_key, profile.timeout_s) as client_a,
        Client(b.url, b.api_key, profile.timeout_s) as client_b,
    ):
        prepared_a = await prepare(client_a, a.model, profile)
        prepared_b = await prepare(client_b, b.model, profile)
        measured: list[tuple[Summary, Summary]] = []
        for number in range(pairs):
            seed = profile.seed + number
            if number % 2:
                second = await _run(prepared_b, profile, seed)
                first = await _run(prepared_a, profile, seed)
            else:
                first = await _run(prepared_a, profile, seed)
                second = await _run(prepared_b, profile, seed)
            measured.append((first, second))
            tell(
                f"pair {number + 1} of {pairs}: {first.output_rate_tps:,.0f} and "
                f"{second.output_rate_tps:,.0f} output tokens/s"
            )
    return compare(measured)


async def _run(prepared: Prepared, profile: Profile, seed: int) -> Summary:
    run = await execute(prepared, profile, seed=seed)
    return summarize(run.outcomes, run.duration_s, profile.promised())


def to_table(a: Server, b: Server, comparison: Comparison) -> Table:
    """The comparison for a terminal."""
    title = f"A: {a.url}\nB: {b.url}\n{comparison.pairs} pairs, 95 % intervals"
    rows = Table(title=title, title_justify="left", show_edge=False)
    for heading in ("", "A", "B", "A / B", "A - B"):
        rows.add_column(heading, justify="right" if heading else "left")
    for each in comparison.figures:
        is_time = not each.name.endswith("_rate")
        scale, unit = (1000.0, " ms") if is_time else (1.0, "")
        rows.add_row(
            each.name,
            f"{each.a * scale:,.2f}{unit}",
            f"{each.b * scale:,.2f}{unit}",
            _shown(each.ratio, 1.0, 3),
            _shown(each.added, scale, 2) + unit,
        )
    return rows


def _shown(interval: Interval, scale: float, digits: int) -> str:
    low, high = interval.low * scale, interval.high * scale
    return f"{interval.estimate * scale:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def to_json(a: Server, b: Server, comparison: Comparison) -> bytes:
    """The comparison for programs; times in seconds."""

    def listed(interval: Interval) -> dict[str, float]:
        return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}

    fields = {
        "a": a.url,
        "b": b.url,
        "pairs": comparison.pairs,
        "complaints": list(comparison.complaints),
        "figures": {
            each.name: {
                "a": each.a, "b": each.b, "ratio": listed(each.ratio), "added": listed(each.added),
            }
            for each in comparison.figures
        },
    }  # fmt: skip
    return orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
