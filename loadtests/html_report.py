"""Renders a run, a comparison or a search for the capacity as one self-contained HTML page."""

from collections.abc import Sequence
from datetime import UTC, datetime

import yaml

from loadtests import page, series
from loadtests.charts import Mark, Row, Spot, area, curve, histogram, in_unit, intervals
from loadtests.compare import Compared, Comparison
from loadtests.gauges import Watched
from loadtests.measure import Outcome
from loadtests.profile import Profile
from loadtests.report import Report
from loadtests.search import Capacity, Objective
from loadtests.summary import PERCENTILES, Spread, Summary

KINDS = (("TTFT", "ttft"), ("TPOT", "tpot"), ("ITL", "itl"), ("E2E", "e2e"), ("send lag", "lag"))
SINCE = "s since the start"
ABOUT = {
    "TTFT": "Time to the first chunk with content.",
    "TPOT": "Time for each output token after the first.",
}


def to_html(report: Report, *, refresh_s: int | None = None) -> bytes:
    """The page of a run; one that still goes on is loaded anew each `refresh_s`."""
    summary = report.summary()
    run = report.run
    started = datetime.fromtimestamp(report.started_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    parts = [
        page.verdict("Valid: requests were sent when they were due.", summary.complaints),
        page.tiles(_tiles(summary)),
        page.section("Latency", _percentiles(summary)),
        page.section("Distributions", page.charts(*_histograms(run.outcomes))),
    ]
    if run.outcomes:
        flying = series.in_flight(run.outcomes, run.started_s, run.duration_s)
        rate = series.output_rate(run.outcomes, run.started_s, run.duration_s)
        seen = [_gauge(each, run.started_s) for each in report.watched]
        over_time = page.charts(
            page.figure(
                "Output", area("Output", rate, SINCE, "tokens/s"), "Tokens when they arrived."
            ),
            page.figure(
                "In flight", area("In flight", flying, SINCE, "requests"),
                "Requests at work: sent and not yet ended.",
            ),
            *seen,
        )  # fmt: skip
        parts.append(page.section("Over time", over_time))
    parts += [
        page.section("Errors", _errors(run.outcomes)),
        page.section("Kinds of requests", _kinds(report.kinds())),
        _profile(report.profile),
    ]
    about = f"{report.url}, {started}, {run.duration_s:.1f} s"
    return page.document(f"Load test of {report.model}", about, parts, refresh_s=refresh_s)


def _gauge(watched: Watched, started_s: float) -> str:
    title = "Engines" if watched.name.startswith("penstock_engines") else watched.name
    points = [(max(0.0, at_s - started_s), value) for at_s, value in watched.points]
    return page.figure(
        title, area(title, points, SINCE, ""), f"{watched.name}, by the server's own metrics."
    )


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    shown = [
        ("Output", f"{summary.output_rate_tps:,.0f}", "tokens/s"),
        ("Requests", f"{summary.request_rate_rps:,.2f}", "1/s"),
    ]
    for name, spread in (("TTFT", summary.ttft), ("TPOT", summary.tpot)):
        if spread is not None:
            for mark in (50.0, 99.0):
                scale, unit = in_unit(spread.percentiles_s[99.0])
                shown.append(
                    (f"{name} p{mark:g}", _short(spread.percentiles_s[mark] * scale), unit)
                )
    shown.append(("Completed", f"{summary.completed:,}", f"of {summary.requests:,}"))
    if summary.attainment is not None:
        shown.append(("SLO kept by", f"{summary.attainment:.2%}", "of all"))
    return shown


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _percentiles(summary: Summary) -> str:
    spreads: dict[str, Spread | None] = {
        "ttft": summary.ttft, "tpot": summary.tpot, "itl": summary.itl, "e2e": summary.e2e,
        "lag": summary.lag,
    }  # fmt: skip
    rows = []
    for name, key in KINDS:
        spread = spreads[key]
        if spread is not None:
            times = [spread.mean_s, *(spread.percentiles_s[mark] for mark in PERCENTILES)]
            rows.append([name, *(f"{time_s * 1000:,.2f}" for time_s in times), f"{spread.count:,}"])
    return page.table(["ms", "mean", *(f"p{mark:g}" for mark in PERCENTILES), "values"], rows)


def _histograms(outcomes: Sequence[Outcome]) -> list[str]:
    done = [outcome for outcome in outcomes if outcome.ok]
    values_s = {
        "TTFT": [outcome.ttft_s for outcome in done if outcome.ttft_s is not None],
        "TPOT": [tpot_s for outcome in done if (tpot_s := outcome.tpot_s) is not None],
    }
    shown = []
    for name, each_s in values_s.items():
        spread = Spread.of(each_s)
        if spread is None:
            continue
        scale, unit = in_unit(spread.percentiles_s[99.0])
        edges, counts, above = series.bins([value_s * scale for value_s in each_s])
        marks = [Mark(f"p{mark:g}", spread.percentiles_s[mark] * scale) for mark in (50.0, 99.0)]
        caption = ABOUT[name]
        if above:
            caption += f" {above} values lie above {edges[-1]:,.3g} {unit}, the longest is "
            caption += f"{max(each_s) * scale:,.4g} {unit}."
        shown.append(page.figure(name, histogram(name, edges, counts, unit, marks), caption))
    return shown


def _errors(outcomes: Sequence[Outcome]) -> str:
    named: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.failure is not None:
            named.setdefault(str(outcome.failure), []).append(outcome)
    return page.table(
        ["error", "requests", "share", "the first of them said"],
        [
            [name, f"{len(each):,}", f"{len(each) / len(outcomes):.2%}", each[0].detail[:300]]
            for name, each in sorted(named.items(), key=lambda item: -len(item[1]))
        ],
        words=1,
    )


def _kinds(kinds: dict[str, Summary]) -> str:
    def time(spread: Spread | None, mark: float) -> str:
        return "" if spread is None else f"{spread.percentiles_s[mark] * 1000:,.1f}"

    headings = ["kind", "completed", "failed", "tokens/s", "TTFT p50 ms", "TTFT p99 ms",
                "TPOT p50 ms", "TPOT p99 ms"]  # fmt: skip
    return page.table(
        headings,
        [
            [
                name, f"{part.completed:,}", f"{part.failed:,}", f"{part.output_rate_tps:,.0f}",
                time(part.ttft, 50.0), time(part.ttft, 99.0),
                time(part.tpot, 50.0), time(part.tpot, 99.0),
            ]
            for name, part in kinds.items()
        ],
    )  # fmt: skip


def _profile(profile: Profile) -> str:
    fields = profile.model_dump(mode="json", exclude_none=True)
    return page.folded("What was asked: the profile", yaml.safe_dump(fields, sort_keys=False))


def comparison_to_html(a_url: str, b_url: str, profile: Profile, compared: Comparison) -> bytes:
    """The page of a comparison of two servers."""
    rows = [_row(each) for each in compared.figures]
    chart = page.figure(
        "A over B", intervals("A over B", rows, "A over B, with its 95 % interval"),
        "Each point is the geometric mean over the pairs; where the interval holds 1, no "
        "difference was shown. Of rates more is better, of times less.",
    ) if rows else ""  # fmt: skip
    parts = [
        page.verdict(f"{compared.pairs} pairs, in turn.", compared.complaints),
        page.section("Ratios", chart),
        page.section("Figures", _compared(compared.figures)),
        _profile(profile),
    ]
    return page.document("Two servers compared", f"A: {a_url}, B: {b_url}", parts)


def _row(each: Compared) -> Row:
    if each.ratio.holds(1.0):
        return Row(_named(each.name), each.ratio, "no difference shown", "same")
    more = each.ratio.estimate > 1
    better = more == _is_rate(each.name)
    share = f"{abs(each.ratio.estimate - 1):.1%} {'more' if more else 'less'}"
    return Row(
        _named(each.name), each.ratio, f"A is {'better' if better else 'worse'}: {share}",
        "better" if better else "worse",
    )  # fmt: skip


def _is_rate(name: str) -> bool:
    return name.endswith("_rate")


def _named(name: str) -> str:
    names = {"output_rate": "tokens/s", "request_rate": "requests/s"}
    kind, _, mark = name.partition("_")
    return names.get(name, f"{kind.upper()} {mark}")


def _compared(figures: Sequence[Compared]) -> str:
    rows = []
    for each in figures:
        scale, unit = (1.0, "") if _is_rate(each.name) else (1000.0, " ms")
        added = each.added
        rows.append(
            [
                _named(each.name), f"{each.a * scale:,.2f}{unit}", f"{each.b * scale:,.2f}{unit}",
                f"{each.ratio.estimate:.3f}", f"{each.ratio.low:.3f} to {each.ratio.high:.3f}",
                f"{added.estimate * scale:,.2f}{unit}",
                f"{added.low * scale:,.2f} to {added.high * scale:,.2f}",
            ]
        )  # fmt: skip
    return page.table(["figure", "A", "B", "A / B", "95 %", "A - B", "95 %"], rows)


def capacity_to_html(
    url: str, profile: Profile, objectives: Sequence[Objective], found: Capacity
) -> bytes:
    """The page of a search for the capacity: latency over throughput, for each objective."""
    shown = []
    for place, objective in enumerate(objectives):
        scale, unit = in_unit(objective.most_s)
        name = f"{objective.kind.upper()} p{objective.percent:g}"
        spots = [
            Spot(
                probe.rate_rps, value_s * scale, probe.holds,
                f"{probe.rate_rps:.2f} requests/s: {name} {value_s * scale:,.4g} {unit}, the SLO "
                + ("holds" if probe.holds else "is broken"),
            )
            for probe in found.probes
            if (value_s := probe.figures_s[place]) is not None
        ]  # fmt: skip
        if spots:
            bound = (objective.most_s * scale, f"at most {objective.most_s * scale:g} {unit}")
            shown.append(
                page.figure(
                    f"{name} over rate", curve(name, spots, "requests/s", unit, bound),
                    "Filled points kept the whole SLO, hollow ones broke it; a point far above the "
                    "bound is drawn at the upper edge.",
                )
            )  # fmt: skip
    asked = ", ".join(f"{o.kind}_p{o.percent:g} ≤ {o.most_s:g} s" for o in objectives)
    complaints = [] if found.rate_rps else ["the SLO holds at no rate that was tried"]
    parts = [
        page.verdict(f"The SLO was {asked}.", complaints),
        page.tiles(
            [
                ("Capacity", f"{found.rate_rps:.2f}", "requests/s"),
                ("Highest that was tried and held", f"{found.held_rps:.2f}", "requests/s"),
            ]
        ),
        page.section("Latency over throughput", page.charts(*shown)),
        page.section("Rates that were tried", _probes(objectives, found)),
        _profile(profile),
    ]
    return page.document("Capacity", url, parts)


def _probes(objectives: Sequence[Objective], found: Capacity) -> str:
    names = [f"{o.kind.upper()} p{o.percent:g} ms" for o in objectives]
    return page.table(
        ["requests/s", *names, "runs", "the SLO"],
        [
            [
                f"{probe.rate_rps:.2f}",
                *("" if v is None else f"{v * 1000:,.1f}" for v in probe.figures_s),
                str(len(probe.scores)),
                "holds" if probe.holds else "is broken",
            ]
            for probe in found.probes
        ],
        words=1,
    )
