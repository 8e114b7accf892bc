"""`python -m loadtests.bench URL`: how much does this endpoint hold, and how fast is it?

Data go to stdout (a table, or the report with `--output json`), progress to stderr. Exit codes:
0 all well; 1 a gate tripped or the run is not valid; 2 bad arguments; 4 a report could not be
written; 6 the server cannot be used.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console

from loadtests.client import Client, ServerError
from loadtests.execute import execute, prepare, recording, unix_time
from loadtests.flags import parse, profile_from
from loadtests.measure import Outcome
from loadtests.profile import Profile, ProfileError
from loadtests.recordings import TraceError
from loadtests.report import Report, lines, table, to_json, to_junit, tripped

OK, FAILED, USAGE, UNWRITTEN, UNUSABLE = 0, 1, 2, 4, 6
PROGRESS_S = 2.0


class Progress:
    """Says every two seconds on stderr how a run is going."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._done = self._failed = self._tokens = 0
        self._started_s = self._told_s = time.monotonic()

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


async def measure(url: str, api_key: str | None, model: str | None, profile: Profile,
                  progress: Progress) -> Report:  # fmt: skip
    """Runs a profile once against a server.

    Raises:
        ServerError: The server cannot be used.
        TraceError: The trace cannot.
        ValueError: The URL is none, or nobody would arrive.
    """
    async with Client(url, api_key, profile.timeout_s) as client:
        prepared = await prepare(client, model, profile)
        run = await execute(prepared, profile, seed=profile.seed, on_outcome=progress)
    return Report(client.base_url, prepared.target.model, profile, run, unix_time(run))


def show(report: Report, console: Console) -> None:
    """Prints the figures."""
    summary = report.summary()
    console.print(table(f"{report.model} at {report.url}", summary))
    for line in lines(summary):
        console.print(line, highlight=False)
    for name, part in report.kinds().items():
        console.print(table(f"\n{name}", part))
        for line in lines(part):
            console.print(line, highlight=False)


def save(report: Report, parsed: argparse.Namespace, errors: Console) -> bool:
    """Writes the files that were asked for, as far as that works; true where all were written."""
    wanted: list[tuple[Path | None, bytes]] = [
        (parsed.save_json, to_json(report, details=parsed.details)),
        (parsed.save_junit, to_junit(report)),
        (parsed.save_trace, recording(report.run)),
    ]
    written = True
    for path, data in wanted:
        if path is None:
            continue
        try:
            path.write_bytes(data)
        except OSError as error:
            errors.print(f"cannot write {path}: {error.strerror}")
            written = False
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; gives back the exit code."""
    errors = Console(stderr=True)
    parsed = parse(argv)
    api_key = parsed.api_key or os.environ.get("PENSTOCK_API_KEY")
    api_key = api_key or os.environ.get("OPENAI_API_KEY")
    try:
        profile = profile_from(parsed)
        report = uvloop.run(measure(parsed.url, api_key, parsed.model, profile, Progress(errors)))
    except (ProfileError, TraceError, ValueError) as error:
        errors.print(f"error: {error}", highlight=False)
        return USAGE
    except ServerError as error:
        errors.print(f"error: {error}", highlight=False)
        return UNUSABLE
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    written = save(report, parsed, errors)
    if parsed.output == "json":
        sys.stdout.buffer.write(to_json(report))
        sys.stdout.flush()
    else:
        show(report, Console())
    summary = report.summary()
    failed = tripped(summary, profile.gates())
    for gate in failed:
        errors.print(f"gate tripped: {gate}", highlight=False)
    if failed or summary.complaints:
        return FAILED
    return OK if written else UNWRITTEN


if __name__ == "__main__":
    sys.exit(main())
