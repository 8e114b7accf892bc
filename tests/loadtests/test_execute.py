"""Whole runs against a fake engine in the same loop: small loads, real profiles."""

import pytest

from loadtests.client import Client, ServerError
from loadtests.execute import execute, prepare, recording, scaled_trace
from loadtests.fake.batching import Shape
from loadtests.measure import Failure
from loadtests.profile import Closed, Open, Profile, Replay, fields_of, read
from loadtests.recordings import implied_hit_rate, parse
from loadtests.runner import Run
from loadtests.summary import summarize
from tests.loadtests.test_profile import SHIPPED

FAST = Shape(step_s=0.0005, step_per_seq_s=0.0, prefill_tps=1e8, kv_tokens=4_000_000)


async def run_profile(url: str, profile: Profile) -> Run:
    async with Client(url, timeout_s=30) as client:
        return await execute(await prepare(client, None, profile), profile, seed=1)


def shortened(profile: Profile) -> Profile:
    """The same run in about a second, without pauses."""
    load: Closed | Open | Replay = profile.load
    if isinstance(load, Closed):
        load = load.model_copy(update={"requests": 8, "duration_s": None})
    elif isinstance(load, Open):
        load = load.model_copy(update={"rate_rps": 40.0, "duration_s": 0.5})
    else:
        load = load.model_copy(update={"duration_s": 60.0, "speed": 100.0})
    return profile.model_copy(update={"load": load})


@pytest.mark.parametrize("name", SHIPPED)
async def test_shipped_profile_runs(start, name: str) -> None:
    fields = fields_of(name)
    text = str(fields)
    if "pause_s" in text:  # nobody reads in a test
        fields = _without_pauses(fields)
    url = await start(FAST)
    run = await run_profile(url, shortened(read(fields)))
    summary = summarize(run.outcomes, run.duration_s)
    assert summary.completed >= 8
    assert (summary.failed, summary.usage_missing, summary.prompts_off) == (0, 0, 0)


def _without_pauses(value: object) -> dict[str, object]:
    def strip(part: object) -> object:
        if isinstance(part, dict):
            return {key: strip(each) for key, each in part.items() if key != "pause_s"}
        return [strip(each) for each in part] if isinstance(part, list) else part

    stripped = strip(value)
    assert isinstance(stripped, dict)
    return stripped


async def test_trace_gives_the_prefix_cache_the_hit_rate_that_it_implies(start) -> None:
    replay = {"type": "replay", "trace": "mooncake_synthetic", "length": 1 / 32, "share": 0.1}
    profile = read({"load": replay | {"speed": 500, "max_output_tokens": 2}, "warmup": 0})
    trace = scaled_trace(profile, seed=1)
    url = await start(FAST)
    async with Client(url) as client:
        prepared = await prepare(client, None, profile)
        _status, before = await client.call("/metrics")
        run = await execute(prepared, profile, seed=1)
        _status, after = await client.call("/metrics")
    summary = summarize(run.outcomes, run.duration_s)
    implied = implied_hit_rate(trace.rows, trace.block_tokens)
    assert summary.prompt_tokens == sum(row.prompt_tokens for row in trace.rows)
    assert implied > 0.15
    assert summary.cached_tokens / summary.prompt_tokens == pytest.approx(implied, abs=0.02)
    assert before != after


async def test_recording_of_a_run_is_a_trace(start) -> None:
    profile = read({"load": {"type": "open", "rate_rps": 50, "duration_s": 0.3}})
    run = await run_profile(await start(FAST), profile)
    trace = parse(recording(run).decode().splitlines())
    assert len(trace.rows) == len(run.outcomes)
    assert {row.prompt_tokens for row in trace.rows} == {256}


async def test_bad_answers_are_counted_and_the_run_goes_on(start) -> None:
    faults = (
        "429:request=1", "500:request=2", "reset:request=3,token=3", "malformed:request=4,token=1",
        "no-usage:request=5", "empty:request=6", "reset:request=7", "truncate:request=8,token=1",
    )  # fmt: skip
    profile = read({"load": {"type": "closed", "requests": 12}, "warmup": 0})
    run = await run_profile(await start(FAST, faults=faults), profile)
    summary = summarize(run.outcomes, run.duration_s)
    failures = (
        Failure.RATE_LIMITED, Failure.SERVER_ERROR, Failure.RESET, Failure.MALFORMED,
        Failure.EMPTY, Failure.RESET_EARLY, Failure.TRUNCATED,
    )  # fmt: skip
    assert summary.failures == dict.fromkeys(failures, 1)
    assert (summary.completed, summary.usage_missing) == (5, 1)


async def test_server_that_only_fails_is_named_before_the_run(start) -> None:
    url = await start(FAST, faults=("500",))
    with pytest.raises(ServerError, match="http_5xx"):
        await run_profile(url, Profile())


async def test_wrong_model_is_named_before_the_run(start) -> None:
    url = await start(FAST)
    async with Client(url) as client:
        with pytest.raises(ServerError, match="does not exist"):
            prepared = await prepare(client, "other", Profile())
            await execute(prepared, Profile(), seed=0)
