"""Renders a run: a table for terminals, JSON in the shape of `vllm bench serve`, JUnit for CI."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import orjson
from rich.table import Table

from loadtests.gauges import Watched
from loadtests.measure import Outcome
from loadtests.profile import Closed, Open, Profile
from loadtests.runner import Run
from loadtests.summary import Gate, Spread, Summary, figure, summarize


@dataclass(frozen=True, slots=True)
class Report:
    """One finished run and what is to be told of it."""

    url: str
    model: str
    profile: Profile
    run: Run
    started_at: float
    """Unix seconds."""
    watched: tuple[Watched, ...] = ()
    """Gauges of the server during the run, where they were asked for."""

    def summary(self) -> Summary:
        """The figures of the whole run."""
        return summarize(self.run.outcomes, self.run.duration_s, self.profile.promised())

    def kinds(self) -> dict[str, Summary]:
        """The figures of each kind of request; empty where there is one kind only."""
        names = sorted({outcome.kind for outcome in self.run.outcomes})
        if len(names) < 2:
            return {}
        return {
            name: summarize(
                [outcome for outcome in self.run.outcomes if outcome.kind == name],
                self.run.duration_s,
                self.profile.promised(),
            )
            for name in names
        }


def tripped(summary: Summary, gates: Sequence[Gate]) -> list[Gate]:
    """The gates that the run fails."""
    return [gate for gate in gates if gate.trips(summary)]


def to_json(report: Report, *, details: bool = False) -> bytes:
    """The keys of `vllm bench serve --save-result` on top, ours under `penstock`.

    `details` adds its lists: one entry for each request, in order of completion.
    """
    summary = report.summary()
    load = report.profile.load
    good = summary.good
    fields: dict[str, object] = {
        "date": datetime.fromtimestamp(report.started_at, UTC).strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": "penstock",
        "backend": "penstock",
        "label": None,
        "model_id": report.model,
        "tokenizer_id": None,
        "num_prompts": summary.requests,
        "request_rate": load.rate_rps if isinstance(load, Open) else "inf",
        "burstiness": load.burstiness if isinstance(load, Open) else 1.0,
        "max_concurrency": load.concurrency if isinstance(load, Closed) else None,
        "duration": summary.duration_s,
        "completed": summary.completed,
        "failed": summary.failed,
        "total_input_tokens": summary.prompt_tokens,
        "total_output_tokens": summary.output_tokens,
        "request_throughput": summary.request_rate_rps,
        "request_goodput": None if good is None else good / summary.duration_s,
        "output_throughput": summary.output_rate_tps,
        "total_token_throughput": (summary.prompt_tokens + summary.output_tokens)
        / summary.duration_s,
        "max_output_tokens_per_s": _peak_chunks_per_s(report.run),
        "max_concurrent_requests": summary.peak_in_flight,
    }
    for name, spread in (
        ("ttft", summary.ttft), ("tpot", summary.tpot), ("itl", summary.itl), ("e2el", summary.e2e),
    ):  # fmt: skip
        fields |= _vllm_spread(name, spread)
    if details:
        fields |= _details(report.run)
    fields["penstock"] = {
        "url": report.url,
        "profile": report.profile.model_dump(mode="json"),
        "started_at": datetime.fromtimestamp(report.started_at, UTC).isoformat(),
        **_ours(summary),
        "watched": {
            each.name: [(at_s - report.run.started_s, value) for at_s, value in each.points]
            for each in report.watched
        },
        "kinds": {name: _ours(part) for name, part in report.kinds().items()},
    }
    return orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _vllm_spread(name: str, spread: Spread | None) -> dict[str, float]:
    if spread is None:
        return {}
    marks = {
        f"p{mark:g}_{name}_ms": value_s * 1000 for mark, value_s in spread.percentiles_s.items()
    }
    return {
        f"mean_{name}_ms": spread.mean_s * 1000,
        f"median_{name}_ms": spread.percentiles_s[50.0] * 1000,
        f"std_{name}_ms": spread.std_s * 1000,
        **marks,
    }


def _details(run: Run) -> dict[str, object]:
    def each(value: object) -> object:
        return 0.0 if value is None else value

    return {
        "input_lens": [each(outcome.prompt_tokens) for outcome in run.outcomes],
        "output_lens": [each(outcome.output_tokens) for outcome in run.outcomes],
        "ttfts": [each(outcome.ttft_s) for outcome in run.outcomes],
        "itls": [list(outcome.gaps_s) for outcome in run.outcomes],
        "latencies": [each(outcome.e2e_s) for outcome in run.outcomes],
        "start_times": [outcome.sent_s for outcome in run.outcomes],
        "generated_texts": [outcome.text for outcome in run.outcomes],
        "errors": [_error(outcome) for outcome in run.outcomes],
    }


def _error(outcome: Outcome) -> str:
    return "" if outcome.failure is None else f"{outcome.failure}: {outcome.detail}"


def _peak_chunks_per_s(run: Run) -> float:
    """The most chunks with content in any whole second of the run."""
    seconds: dict[int, int] = {}
    for outcome in run.outcomes:
        if not outcome.ok or outcome.ttft_s is None:
            continue
        at_s = outcome.sent_s + outcome.ttft_s - run.started_s
        for gap_s in (0.0, *outcome.gaps_s):
            at_s += gap_s
            seconds[int(at_s)] = seconds.get(int(at_s), 0) + 1
    return float(max(seconds.values(), default=0))


def _ours(summary: Summary) -> dict[str, object]:
    lag = summary.lag
    return {
        "valid": not summary.complaints,
        "complaints": list(summary.complaints),
        "completed": summary.completed,
        "failed": summary.failed,
        "failures": dict(summary.failures),
        "attainment": summary.attainment,
        "cached_tokens": summary.cached_tokens,
        "usage_missing": summary.usage_missing,
        "text_missing": summary.text_missing,
        "prompts_off": summary.prompts_off,
        "lag_p99_ms": None if lag is None else lag.percentiles_s[99.0] * 1000,
        **{
            f"{name}_{mark}_s": figure(summary, f"{name}_{mark}")
            for name in ("ttft", "tpot", "itl", "e2e")
            for mark in ("p50", "p99")
        },
    }


def table(title: str, summary: Summary) -> Table:
    """The figures for a terminal."""
    rows = Table(title=title, title_justify="left", show_edge=False)
    rows.add_column("")
    for heading in ("mean", "p50", "p90", "p95", "p99"):
        rows.add_column(heading, justify="right")
    for name, spread in (
        ("TTFT ms", summary.ttft), ("TPOT ms", summary.tpot), ("ITL ms", summary.itl),
        ("E2E ms", summary.e2e), ("send lag ms", summary.lag),
    ):  # fmt: skip
        if spread is not None:
            marks = [spread.mean_s, *spread.percentiles_s.values()]
            rows.add_row(name, *(f"{mark_s * 1000:,.2f}" for mark_s in marks))
    return rows


def lines(summary: Summary) -> list[str]:
    """What the table does not hold, in sentences."""
    failures = ", ".join(f"{count} {name}" for name, count in sorted(summary.failures.items()))
    said = [
        f"{summary.completed} completed, {summary.failed} failed"
        + (f" ({failures})" if failures else "")
        + f" in {summary.duration_s:.1f} s; at most {summary.peak_in_flight} at once",
        f"{summary.request_rate_rps:.2f} requests/s, {summary.output_rate_tps:,.0f} output tokens/s"
        f" ({summary.prompt_tokens:,} tokens in, {summary.cached_tokens:,} of them cached,"
        f" {summary.output_tokens:,} out)",
    ]
    if summary.attainment is not None:
        said.append(f"SLO kept by {summary.attainment:.2%} of all requests")
    if summary.usage_missing:
        said.append(f"{summary.usage_missing} answers without usage: their chunks were counted")
    if summary.text_missing:
        said.append(f"{summary.text_missing} answers had tokens, but no text")
    if summary.prompts_off:
        said.append(f"{summary.prompts_off} prompts did not measure what they were made for")
    said += [f"NOT VALID: {complaint}" for complaint in summary.complaints]
    return said


def to_junit(report: Report) -> bytes:
    """One test case for the validity of the run and one for each gate."""
    summary = report.summary()
    gates = report.profile.gates()
    suite = ET.Element("testsuite", name="loadtest", time=f"{report.run.duration_s:.3f}")
    valid = ET.SubElement(suite, "testcase", classname="loadtest", name="valid")
    for complaint in summary.complaints:
        ET.SubElement(valid, "failure", message=complaint)
    failed = int(bool(summary.complaints))
    for gate in gates:
        case = ET.SubElement(suite, "testcase", classname="loadtest", name=str(gate))
        if gate.trips(summary):
            failed += 1
            value = figure(summary, gate.name)
            shown = "not measured" if value is None else f"{value:g}"
            ET.SubElement(case, "failure", message=f"{gate.name} is {shown}")
    suite.set("tests", str(len(gates) + 1))
    suite.set("failures", str(failed))
    return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True))
