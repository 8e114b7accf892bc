"""The gateway bench's line is complete whatever went wrong, and a stuck load is given up."""

import asyncio
import json
import os
import socket
import subprocess
import sys

import psutil
import pytest

from scripts import bench_gateway
from scripts.bench_gateway import Report
from scripts.peers.load import Plan
from scripts.peers.processes import Peer, PeerError, answers
from scripts.peers.rounds import Bench, Extent, RoundError, drive

NAMES = ("rust_router", "penstock", "litellm")


def report_of(costs: dict[str, list[float]]) -> Report:
    report = Report(NAMES, (32, 256))
    report.bench = Bench(Extent(1.0, 200, 1, (32, 256)), {}, "http://127.0.0.1:1", ())
    for name, values in costs.items():
        report.bench.series[name, 32].us_per_chunk += values
    return report


def test_line_has_all_its_keys_when_nothing_was_measured() -> None:
    line = json.loads(json.dumps(Report(NAMES, (32, 256), features=True).line()))
    assert line["us_per_chunk"] == dict.fromkeys(NAMES)
    assert line["over_rust_router"] == {"32": None, "256": None}
    assert line["chunk_delay_ms"]["256"]["direct"] == {"p50": None, "p99": None}
    assert line["ttft_added_ms"] == {"p50": None, "p99": None}
    assert line["streams_1000"] == {"errors": None, "rss_mib": None}
    assert line["features"]["more_cpu_a_chunk"] is None


def test_line_compares_gateways_within_rounds() -> None:
    costs = {"rust_router": [40.0, 80.0], "penstock": [60.0, 100.0], "litellm": [900.0, 1600.0]}
    line = report_of(costs).line()
    assert line["over_rust_router"] == {"32": 1.375, "256": None}
    assert line["litellm_over_ours"] == 15.5


def test_part_that_fails_is_named_and_does_not_end_the_others() -> None:
    report = Report(NAMES, (32,))
    with report.part("half_load"):
        raise RoundError("nobody knows what a chunk costs")
    with report.part("thousand"):
        pass
    assert report.line()["problems"] == ["half_load: nobody knows what a chunk costs"]
    assert set(report.parts_s) == {"half_load", "thousand"}


def test_parts_are_chosen_one_by_one() -> None:
    assert bench_gateway.parse([]).parts == list(bench_gateway.PARTS)
    assert bench_gateway.parse(["--parts", "thousand"]).parts == ["thousand"]


def test_what_a_load_found_is_whole_though_its_pipe_was_full() -> None:
    """Non-blocking, a full pipe takes a part, as it does of a process that is stopped amid it."""
    found = [1_000_000] * 60_000
    code = f"from scripts.peers import load; load.say({{'delays_us': {found[:1]} * {len(found)}}})"
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=theirs, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as child:
        os.close(theirs)
        with os.fdopen(ours, "rb") as read:
            line = read.read()
    assert child.returncode == 0
    assert len(line) > 2**18
    assert json.loads(line) == {"delays_us": found}


def test_load_that_does_not_end_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        plan = Plan(url, streams=1, seconds=60.0, ramp_s=0.0)
        with pytest.raises(RoundError, match="did not end"):
            asyncio.run(drive(plan, None, (), grace_s=-59.9))


def test_gateway_that_ended_is_not_waited_for() -> None:
    async def end() -> None:
        process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)
        peer = Peer("gone", "http://127.0.0.1:1", "", psutil.Process(process.pid))
        assert peer.serves
        await process.communicate(b"")
        await answers(peer.url, "none", lambda: peer.serves)

    with pytest.raises(PeerError, match="has ended"):
        asyncio.run(end())
