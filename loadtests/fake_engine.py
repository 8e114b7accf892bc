"""`python -m loadtests.fake_engine`: an OpenAI server of ours whose tokens cost nothing but time.

It stands where a test needs many engines, a known speed or a fault on demand; it is never the
proof that the platform works. It prints one JSON line when it listens: `{"port": ..., "pid": ...}`.
Words between white space are its tokens; a reply is exactly `max_tokens` long.
"""

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson
import uvloop

from loadtests.fake.batching import BatchingTimeline, Shape
from loadtests.fake.faults import FaultKind, parse_fault
from loadtests.fake.ledger import Ledger
from loadtests.fake.server import FakeEngine, Identity
from loadtests.fake.timeline import Schedule, ScheduledTimeline, Timeline


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with a message where it is wrong."""
    shape, identity = Shape(), Identity()
    parser = argparse.ArgumentParser("loadtests.fake_engine", description=__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0, help="0 takes a free one (default)")
    add("--model", default=identity.model)
    add("--token", help="bearer token that every route asks for")
    add("--max-model-len", type=int, help="default: as much as the KV cache holds, at most 131072")
    add("--default-tokens", type=int, default=identity.default_tokens,
        help="length of a reply whose request names none")  # fmt: skip
    add("--seed", type=int, default=0, help="of replies, schedules and faults")

    speed = parser.add_argument_group("continuous batching")
    add = speed.add_argument
    add("--slots", type=int, default=shape.slots)
    add("--step-ms", type=float, default=shape.step_s * 1000)
    add("--step-ms-per-seq", type=float, default=shape.step_per_seq_s * 1000)
    add("--prefill-tps", type=float, default=shape.prefill_tps, help="prompt tokens a second")
    add("--step-tokens", type=int, default=shape.step_tokens, help="most tokens in one step")
    add("--kv-tokens", type=int, default=shape.kv_tokens)
    add("--block-tokens", type=int, default=shape.block_tokens)
    add("--prefix-cache", action=argparse.BooleanOptionalAction, default=shape.prefix_cache)

    fixed = parser.add_argument_group("a fixed schedule instead, the same for each request")
    add = fixed.add_argument
    add("--schedule-ttft-ms", type=float, help="first token, since the request arrived")
    add("--schedule-gap-ms", type=float, default=20.0)
    add("--schedule-spread", type=float, default=0.0,
        help="vary both by this share, by the request's `seed`")  # fmt: skip
    add("--report-due", action="store_true",
        help="each chunk says in penstock_due_s when it was due (CLOCK_MONOTONIC)")  # fmt: skip

    fixed.add_argument("--ledger", type=Path, metavar="FILE",
        help="write down when each token was due and when it was written")  # fmt: skip

    faults = parser.add_argument_group("faults")
    add = faults.add_argument
    add("--fault", action="append", default=[], metavar="KIND[:KEY=VALUE,...]",
        help=f"kinds: {', '.join(FaultKind)}; keys: request, every, share, token, "
             "seconds; may be given several times; PUT /fake/faults replaces them")  # fmt: skip
    add("--crash-after", type=float, metavar="SECONDS", help="die as by kill -9 after this time")
    add("--load-s", type=float, default=0.0, help="wait this long before listening")

    parsed = parser.parse_args(argv)
    try:
        parsed.fault = tuple(parse_fault(text) for text in parsed.fault)
    except ValueError as error:
        parser.error(str(error))
    if parsed.max_model_len is None:
        parsed.max_model_len = min(identity.max_model_len, parsed.kv_tokens)
    whole_blocks = parsed.kv_tokens // parsed.block_tokens * parsed.block_tokens
    if parsed.schedule_ttft_ms is None and parsed.max_model_len > whole_blocks:
        parser.error("--max-model-len does not fit --kv-tokens in whole blocks")
    for name in ("slots", "step_tokens", "kv_tokens", "block_tokens", "max_model_len",
                 "prefill_tps", "default_tokens"):  # fmt: skip
        if getattr(parsed, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    return parsed


def build(parsed: argparse.Namespace) -> FakeEngine:
    """The engine that the command line asks for; it does not listen yet."""
    timeline: Timeline
    if parsed.schedule_ttft_ms is not None:
        timeline = ScheduledTimeline(
            Schedule(
                ttft_s=parsed.schedule_ttft_ms / 1000,
                gap_s=parsed.schedule_gap_ms / 1000,
                spread=parsed.schedule_spread,
            )
        )
    else:
        timeline = BatchingTimeline(
            Shape(
                slots=parsed.slots,
                step_s=parsed.step_ms / 1000,
                step_per_seq_s=parsed.step_ms_per_seq / 1000,
                prefill_tps=parsed.prefill_tps,
                step_tokens=parsed.step_tokens,
                kv_tokens=parsed.kv_tokens,
                block_tokens=parsed.block_tokens,
                prefix_cache=parsed.prefix_cache,
            )
        )
    identity = Identity(
        model=parsed.model,
        token=parsed.token,
        max_model_len=parsed.max_model_len,
        default_tokens=parsed.default_tokens,
        seed=parsed.seed,
        report_due=parsed.report_due,
    )
    ledger = None if parsed.ledger is None else Ledger(parsed.ledger)
    return FakeEngine(identity, timeline, parsed.fault, ledger)


async def serve(parsed: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if parsed.crash_after is not None:
        loop.call_later(parsed.crash_after, os.kill, os.getpid(), signal.SIGKILL)
    await asyncio.sleep(parsed.load_s)
    engine = build(parsed)
    try:
        port = await engine.listen(parsed.host, parsed.port)
    except OSError as error:
        sys.exit(f"fake engine: cannot listen on {parsed.host}:{parsed.port}: {error.strerror}")
    gc.collect()
    gc.freeze()  # else full collections walk over all that was imported, some 20 ms each
    sys.stdout.buffer.write(orjson.dumps({"port": port, "pid": os.getpid()}) + b"\n")
    sys.stdout.flush()
    await stopped.wait()
    await engine.close()


if __name__ == "__main__":
    uvloop.run(serve(arguments()))
