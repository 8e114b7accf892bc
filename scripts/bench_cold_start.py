"""`make bench-cold-start`: from zero engines to the first streamed token, beside vLLM's own server.

Five models of the demo's size, all with different weights and in two shapes, and one of 100M
parameters sleep on a platform of their own. One of the five at random is called, and after them
the large one; before each call it is checked, and recorded with `--output`, that no engine is
bound, all hosts are free and no process maps any of the weights. The last line is one JSON object,
whose figures are those of the five; those of the large one stand under `large`.

Parts, and about what they take on two quiet cores: `wakes` (2.5 s a wake and 20 s once), `eager`
(70 s), `default` (130 s), `large-eager` (30 s), `large-default` (100 s). Any of them may be left
out. What was found is told, and the JSON line printed, also where a part fails or a signal ends the
run; `failed` names the parts then, and the exit code is 1.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from scripts.cold_start.parts import Interrupted, ignore_interrupts, interruptible, run_parts
from scripts.cold_start.report import Found, tell
from scripts.cold_start.servers import EAGER, Servers
from scripts.cold_start.wakes import Wake, bench_wakes, keep
from scripts.cold_start.weights import DEMOS, LARGE, Models

PARTS = ("wakes", "eager", "default", "large-eager", "large-default")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 where a part failed, a wake was lost, or a signal came."""
    options = parse(arguments)
    chosen = [part for part in PARTS if part in options.parts]
    found = Found(left_out=tuple(part for part in PARTS if part not in chosen))
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        work = parts(options, folder, found, cleanup)
        try:
            with interruptible():
                run_parts({part: work[part] for part in chosen}, found.ends)
        except Interrupted:
            pass  # its part says so
        ignore_interrupts()
        tell(found)  # before anything is taken down: who interrupts may not have patience for that
    return int(not found.is_well)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wakes", type=int, default=40, help="calls of a sleeping model")
    parser.add_argument("--large-wakes", type=int, default=10, help="calls of the 100M model")
    parser.add_argument("--output", type=Path, help="file for all wakes with their checks, as JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of models")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART",
        help=f"of {', '.join(PARTS)}; by default all",
    )  # fmt: skip
    return parser.parse_args(arguments)


def parts(
    options: argparse.Namespace, folder: Path, found: Found, cleanup: ExitStack
) -> dict[str, Callable[[], None]]:
    """What each part does; models are made by the first one that needs them."""
    models, servers = Models(folder), Servers()

    def tell_of(wake: Wake) -> None:
        found.wakes.append(wake)
        if options.output is not None:
            keep(found.wakes, options.output)

    def wakes() -> None:
        chance = random.Random(options.seed)  # noqa: S311, a choice that can be repeated
        calls = [f"demo-{chance.randrange(DEMOS)}" for _ in range(options.wakes)]
        calls += [LARGE] * options.large_wakes
        weights = [*models.demos, *([models.large] if options.large_wakes else [])]
        bench_wakes(calls, folder, weights, tell_of, cleanup)

    def server(part: str, model: Callable[[], Path], *more: str) -> None:
        found.servers_s[part] = servers.start_s(model(), *more)

    def demo() -> Path:
        return models.demos[0]

    def large() -> Path:
        return models.large

    return {
        "wakes": wakes,
        "eager": partial(server, "eager", demo, EAGER),
        "default": partial(server, "default", demo),
        "large-eager": partial(server, "large-eager", large, EAGER),
        "large-default": partial(server, "large-default", large),
    }


if __name__ == "__main__":
    sys.exit(main())
