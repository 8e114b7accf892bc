"""Carries out a profile against a server: finds the model, learns its tokenizer, warms up, runs."""

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import orjson
from pydantic import BaseModel, ValidationError

from loadtests.arrivals import open_loop as arrival_times
from loadtests.client import Caller, Client, ServerError
from loadtests.embeddings import Embeddings
from loadtests.profile import Closed, Open, Profile
from loadtests.prompts import Prompts, counter, learn
from loadtests.recordings import Trace, load, scale
from loadtests.runner import OnOutcome, Run, closed_loop, open_loop
from loadtests.workload import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    Chat,
    Length,
    Session,
    Target,
    Workload,
    replay,
)


@dataclass(frozen=True, slots=True)
class Server:
    """Where to send requests, and for which model."""

    url: str
    api_key: str | None = None
    model: str | None = None
    """None takes the first that the server lists."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A server whose model and tokenizer are known."""

    client: Client
    target: Target
    prompts: Prompts


class _Listed(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Listed]


async def model_of(client: Caller) -> str:
    """The first model that the server lists.

    Raises:
        ServerError: It lists none.
    """
    status, body = await client.call("/v1/models")
    if status != 200:
        raise ServerError(f"/v1/models answered {status}: {body[:300].decode(errors='replace')}")
    try:
        models = _Models.model_validate_json(body).data
    except ValidationError as error:
        raise ServerError("/v1/models answered something else than a list of models") from error
    if not models:
        raise ServerError("the server lists no model: name one, or deploy one")
    return models[0].id


async def learn_server(
    client: Caller, model: str | None, profile: Profile
) -> tuple[Target, Prompts]:
    """Finds out what has to be known before requests can be made.

    Raises:
        ServerError: The server cannot be used.
    """
    name = model or await model_of(client)
    prompts = await learn(await counter(client, name, _path(profile)))
    return Target(name, profile.stream, profile.ignore_eos, profile.temperature), prompts


async def prepare(client: Client, model: str | None, profile: Profile) -> Prepared:
    """What `execute` needs.

    Raises:
        ServerError: The server cannot be used.
    """
    return Prepared(client, *await learn_server(client, model, profile))


async def execute(
    prepared: Prepared, profile: Profile, *, seed: int, on_outcome: OnOutcome | None = None
) -> Run:
    """Warms up and runs once. `seed` stands for the profile's, so that repeated runs differ.

    Raises:
        TraceError: The profile's trace cannot be used.
        ValueError: Nobody would arrive.
    """
    await _warm_up(prepared, profile, seed)
    load_ = profile.load
    # A collection of garbage over all that was prepared takes milliseconds, in the midst of a run.
    gc.collect()
    gc.freeze()
    try:
        if isinstance(load_, Closed):
            return await closed_loop(
                prepared.client.measure,
                _sessions(prepared, profile, seed),
                concurrency=load_.concurrency,
                requests=load_.requests,
                duration_s=load_.duration_s,
                on_outcome=on_outcome,
            )
        if isinstance(load_, Open):
            times_s = list(arrival_times(load_.curve(), burstiness=load_.burstiness, seed=seed))
            sessions = _sessions(prepared, profile, seed)
            return await open_loop(
                prepared.client.measure, sessions, times_s, on_outcome=on_outcome
            )
        trace = scaled_trace(profile, seed)
        return await open_loop(
            prepared.client.measure,
            replay(trace, prepared.target, prepared.prompts, seed),
            [row.at_s for row in trace.rows],
            on_outcome=on_outcome,
        )
    finally:
        gc.unfreeze()


def scaled_trace(profile: Profile, seed: int) -> Trace:
    """The part of the trace that the profile replays.

    Raises:
        TraceError: It cannot be read, or nothing is left of it.
        ValueError: The profile replays no trace.
    """
    if isinstance(profile.load, Closed | Open):
        raise ValueError("the profile replays no trace")
    return scale(load(profile.load.path()), profile.load.scaling(seed))


def _path(profile: Profile) -> str:
    """The route that the prompts go to; each has its own template and so its own count."""
    if not isinstance(profile.load, Closed | Open):
        return COMPLETIONS
    workload = profile.workload
    if isinstance(workload, Embeddings):
        return EMBEDDINGS
    return COMPLETIONS if isinstance(workload, Chat) and workload.completion else CHAT


def _sessions(prepared: Prepared, profile: Profile, seed: int) -> Iterator[Session]:
    return profile.workload.sessions(prepared.target, prepared.prompts, seed)


async def _warm_up(prepared: Prepared, profile: Profile, seed: int) -> None:
    """Sends requests that are not counted; their prompts do not come again in the run.

    Raises:
        ServerError: None of them was answered: the run could only fail.
    """
    if not profile.warmup:
        return
    # Short, so that they fit the context of any model.
    path = _path(profile)
    warm: Workload = (
        Embeddings(Length(32), kind="warmup") if path == EMBEDDINGS
        else Chat(Length(32), Length(8), completion=path == COMPLETIONS, kind="warmup")
    )  # fmt: skip
    sessions = warm.sessions(prepared.target, prepared.prompts, seed)
    run = await closed_loop(
        prepared.client.measure, islice(sessions, profile.warmup), concurrency=1,
        requests=profile.warmup,
    )  # fmt: skip
    if not any(outcome.ok for outcome in run.outcomes):
        last = run.outcomes[-1]
        raise ServerError(f"the first request failed: {last.failure}: {last.detail}")


def recording(run: Run) -> bytes:
    """The run as a trace of our own, which a profile can replay: JSON lines."""
    rows = sorted(run.outcomes, key=lambda outcome: outcome.due_s)
    return b"".join(
        orjson.dumps(
            {
                "at_s": row.due_s - run.started_s,
                "prompt_tokens": row.prompt_tokens,
                "output_tokens": row.output_tokens or 0,
            }
        )
        + b"\n"
        for row in rows
        if row.prompt_tokens
    )


def unix_time(run: Run) -> float:
    """When the run started, in Unix seconds."""
    return time.time() - (time.monotonic() - run.started_s)
