"""`python -m loadtests.bench URL`: how much does this endpoint hold, and how fast is it?

Data go to stdout (a table, or the report with `--output json`), progress to stderr. Exit codes:
0 all well; 1 a gate tripped or the run is not valid; 2 bad arguments; 4 a report could not be
written; 6 the server cannot be used; 130 interrupted.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console

from loadtests import capacity, versus
from loadtests.client import Client, ServerError
from loadtests.execute import Server, execute, prepare, recording, unix_time
from loadtests.flags import parse, profile_from
from loadtests.gauges import DEFAULT, Watch
from loadtests.html_report import capacity_to_html, comparison_to_html, to_html
from loadtests.measure import Outcome
from loadtests.profile import Profile, ProfileError
from loadtests.recordings import TraceError
from loadtests.report import Report, lines, table, to_json, to_junit, tripped
from loadtests.search import SearchError, parse_objectives

OK, FAILED, USAGE, UNWRITTEN, UNUSABLE, INTERRUPTED = 0, 1, 2, 4, 6, 130
PROGRESS_S = 2.0


class Progress:
    """Says every two seconds on stderr how a run is going."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._done = self._failed = self._tokens = 0
        self._started_s = self._told_s = time.monotonic()

    def warn(self, said: str) -> None:
        """Says something that does not spoil the run."""
        self._console.print(f"warning: {said}")

    def __call__(self, outcome: Outcome) -> None:
        """Counts one more outcome."""
        self._done += outcome.ok
        self._failed += not outcome.ok
        self._tokens += outcome.output_tokens or 0
        now_s = time.monotonic()
        if now_s - self._told_s >= PROGRESS_S:
            self._told_s = now_s
            since_s = now_s - self._started_s
            self._console.print(
                f"{since_s:6.0f} s  {self._done} completed  {self._failed} failed  "
                f"{self._tokens / since_s:,.0f} output tokens/s"
            )


async def measure(
    server: Server, profile: Profile, progress: Progress, parsed: argparse.Namespace
) -> Report:
    """Runs a profile once against a server.

    Raises:
        ServerError: The server cannot be used.
        TraceError: The trace cannot.
        ValueError: The URL is none, or nobody would arrive.
    """
    async with Client(server.url, server.api_key, profile.timeout_s) as client:
        prepared = await prepare(client, server.model, profile)
        model = prepared.target.model
        with Watch(parsed.watch, parsed.watch_metric or DEFAULT, model) as watch:
            run = await execute(prepared, profile, seed=profile.seed, on_outcome=progress)
    if watch.complaint is not None:
        progress.warn(watch.complaint)
    return Report(client.base_url, model, profile, run, unix_time(run), watch.watched())


def show(report: Report, console: Console) -> None:
    """Prints the figures."""
    summary = report.summary()
    console.print(table(f"{report.model} at {report.url}", summary))
    for line in lines(summary):
        console.print(line)
    for name, part in report.kinds().items():
        console.print(table(f"\n{name}", part))
        for line in lines(part):
            console.print(line)


def save(files: Sequence[tuple[Path | None, bytes]], errors: Console) -> bool:
    """Writes the files that were asked for, as far as that works; true where all were written."""
    written = True
    for path, data in files:
        if path is None:
            continue
        try:
            path.write_bytes(data)
        except OSError as error:
            errors.print(f"cannot write {path}: {error.strerror}")
            written = False
    return written


def emit(data: bytes) -> None:
    """Writes a report to stdout."""
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def bench(server: Server, profile: Profile, parsed: argparse.Namespace, errors: Console) -> int:
    """One run, its reports and its verdict."""
    report = uvloop.run(measure(server, profile, Progress(errors), parsed))
    files = [
        (parsed.save_json, to_json(report, details=parsed.details)),
        (parsed.save_html, to_html(report)),
        (parsed.save_junit, to_junit(report)),
        (parsed.save_trace, recording(report.run)),
    ]
    written = save(files, errors)
    if parsed.output == "json":
        emit(to_json(report))
    else:
        show(report, Console(highlight=False, soft_wrap=True))
    summary = report.summary()
    failed = tripped(summary, profile.gates())
    for gate in failed:
        errors.print(f"gate tripped: {gate}")
    if failed or summary.complaints:
        return FAILED
    return OK if written else UNWRITTEN


def bench_versus(
    server: Server, profile: Profile, parsed: argparse.Namespace, errors: Console
) -> int:
    """Pairs of runs against two servers."""
    other = Server(parsed.versus, parsed.versus_api_key or server.api_key, parsed.versus_model)
    comparison = uvloop.run(
        versus.versus(server, other, profile, parsed.pairs, lambda said: errors.print(said))
    )
    data = versus.to_json(server, other, comparison)
    drawn = comparison_to_html(server.url, other.url, profile, comparison)
    written = save([(parsed.save_json, data), (parsed.save_html, drawn)], errors)
    if parsed.output == "json":
        emit(data)
    else:
        Console().print(versus.to_table(server, other, comparison))
    for complaint in comparison.complaints:
        errors.print(f"NOT VALID: {complaint}")
    if comparison.complaints:
        return FAILED
    return OK if written else UNWRITTEN


def bench_capacity(
    server: Server, profile: Profile, parsed: argparse.Namespace, errors: Console
) -> int:
    """A search for the highest rate at which the SLO holds."""
    objectives = parse_objectives(parsed.slo)
    found = uvloop.run(
        capacity.search(
            server, profile, objectives, duration_s=parsed.duration or capacity.DURATION_S,
            start_rps=parsed.start_rate, tell=errors.print,
        )
    )  # fmt: skip
    data = capacity.to_json(server, objectives, found)
    drawn = capacity_to_html(server.url, profile, objectives, found)
    written = save([(parsed.save_json, data), (parsed.save_html, drawn)], errors)
    if parsed.output == "json":
        emit(data)
    else:
        capacity.show(objectives, found, Console(highlight=False, soft_wrap=True))
    if not found.rate_rps:
        errors.print("NOT VALID: the SLO holds at no rate that was tried")
        return FAILED
    return OK if written else UNWRITTEN


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; gives back the exit code."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    parsed = parse(argv)
    if parsed.roofline:
        errors.print("error: --roofline needs `penstock bench`: this program knows no hardware")
        return USAGE
    if parsed.of or parsed.hardware:
        errors.print("error: --of and --hardware go with --roofline")
        return USAGE
    environment = os.environ.get("PENSTOCK_API_KEY") or os.environ.get("OPENAI_API_KEY")
    server = Server(parsed.url, parsed.api_key or environment, parsed.model)
    try:
        profile = profile_from(parsed)
        run = (
            bench_capacity if parsed.find_capacity
            else bench if parsed.versus is None
            else bench_versus
        )  # fmt: skip
        return run(server, profile, parsed, errors)
    except (ProfileError, TraceError, ValueError) as error:
        errors.print(f"error: {error}")
        return USAGE
    except SearchError as error:
        errors.print(f"NOT VALID: {error}")
        return FAILED
    except ServerError as error:
        errors.print(f"error: {error}")
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
