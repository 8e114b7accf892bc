"""`python -m loadtests.gpu.check`: all parts, one JSON file, and a short table last.

`check.sh` beside it makes an environment from a folder of wheels first. Exit codes: 0 all parts
went well; 1 a part did not; 2 bad arguments; 3 a bar was missed; 130 ended from outside. Progress
goes to stderr.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from loadtests.gpu import smi, strict
from loadtests.gpu.bars import Bar, bars, table
from loadtests.gpu.engines import PLATFORM, data_dir_of, end_left_server
from loadtests.gpu.parts import PARTS
from loadtests.gpu.plan import Plan, on_cpu, on_gpu
from loadtests.gpu.runner import Result, Task, run_all

OK, FAILED, USAGE, MISSED, INTERRUPTED = 0, 1, 2, 3, 130
BUDGET_S = 1500.0
"""25 minutes."""
FINE = ("ok", "skipped")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with a message where it is wrong."""
    parser = argparse.ArgumentParser("check", description=__doc__)
    add = parser.add_argument
    add("--cpu", action="store_true", help="tiny models on the CPU: proves the script, not speed")
    add("--quick", action="store_true", help="with --cpu: as little as shows that each part works")
    add("--work", type=Path, default=Path("gpu-check"), help="folder for models, logs and data")
    add("--out", type=Path, help="the JSON file; default: check.json in the work folder")
    add("--parts", help="comma-separated; default: " + ",".join(PARTS))
    add("--budget-s", type=float, default=BUDGET_S, help="for all parts; default: %(default).0f")
    parsed = parser.parse_args(argv)
    unknown = set(parsed.parts.split(",")) - PARTS.keys() if parsed.parts else set()
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    return parsed


def make_plan(parsed: argparse.Namespace, found: smi.Gpu | None) -> Plan:
    """What to measure.

    Raises:
        ValueError: If there is no GPU that the platform knows.
    """
    work = parsed.work.absolute()
    if parsed.cpu:
        return on_cpu(work, sys.executable, quick=parsed.quick)
    if found is None:
        raise ValueError(f"no GPU: {smi.trouble()}; --cpu runs the same in small without one")
    if found.accelerator is None:
        raise ValueError(f"the platform does not know {found.name}")
    return on_gpu(work, sys.executable, found.accelerator)


def tasks(plan: Plan, names: str | None) -> list[Task]:
    """The parts that are asked for, in order."""
    wanted = names.split(",") if names else list(PARTS)
    command = [plan.python, "-P", "-m", "loadtests.gpu.part"]
    return [
        Task(name, [*command, name, plan.to_json()], limit_s)
        for name, (_, limit_s) in PARTS.items()
        if name in wanted
    ]


def clean_up(plan: Plan, part: str) -> None:
    """Stops the server or platform that a part which was killed has left."""
    end_left_server(plan.folder)
    folder = data_dir_of(plan, part)
    if (folder / "platform.json").exists():
        command = [plan.python, "-P", "-m", PLATFORM, "down", "--data-dir", str(folder)]
        subprocess.run(command, stdout=sys.stderr, check=False)


def document(plan: Plan, began_at: datetime, results: list[Result], judged: list[Bar]) -> str:
    """The JSON file."""
    return strict.dumps(
        {
            "check": 1,
            "began_at": began_at.isoformat(timespec="seconds"),
            "plan": asdict(plan) | {"work": None, "python": None},
            "parts": [asdict(result) for result in results],
            # On a CPU nothing was promised.
            "bars": [] if plan.cpu else [asdict(bar) | {"met": bar.met} for bar in judged],
        },
        indent=1,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parsed = parse(argv)
    found = None if parsed.cpu else smi.gpu()
    try:
        plan = make_plan(parsed, found)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return USAGE
    plan.folder.mkdir(parents=True, exist_ok=True)
    out = parsed.out or plan.folder / "check.json"
    began_at = datetime.now(UTC)

    def begin(task: Task) -> None:
        sys.stderr.write(f"{task.name} (at most {task.limit_s:.0f} s)\n")

    def end(results: list[Result]) -> None:
        last = results[-1]
        sys.stderr.write(f"  {last.status} after {last.seconds:.1f} s {last.said}\n")
        out.write_text(document(plan, began_at, results, bars(results)))

    # As Ctrl-C: the part that runs is ended, with its platform.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results = _run(parsed, plan, begin, end)
    except KeyboardInterrupt:
        sys.stderr.write(f"ended from outside; what was measured is in {out}\n")
        return INTERRUPTED
    judged = bars(results)
    sys.stdout.write(table(results, judged, binding=not plan.cpu) + f"\n\n{out}\n")
    if any(result.status not in FINE for result in results):
        return FAILED
    return MISSED if not plan.cpu and any(bar.met is False for bar in judged) else OK


def _run(
    parsed: argparse.Namespace,
    plan: Plan,
    begin: Callable[[Task], None],
    end: Callable[[list[Result]], None],
) -> list[Result]:
    return run_all(
        tasks(plan, parsed.parts), plan.folder, parsed.budget_s,
        used_mib=smi.used_mib_after, clean_up=lambda part: clean_up(plan, part),
        on_begin=begin, on_end=end,
    )  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
