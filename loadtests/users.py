"""Locust users that measure language models; which of them runs is said by the profile.

Statistics: the row `POST <kind>` is a whole request, E2E, and what Locust's totals count; the rows
`TTFT`, `TPOT` and `ITL` of the same name hold the other times and stay out of the totals. The event
`request` carries the whole `Outcome` in its context, as `outcome`.

A user runs its profile's sessions one after the other: so many users, so many at once (a closed
loop). Where the profile's load is open, each user is one of so many dispatchers, which together
send the profile's arrivals, whatever the server does: one for each Locust worker is enough.
"""

import time
from collections.abc import Iterator
from itertools import islice

import gevent
import gevent.pool
from locust import User, task
from locust.env import Environment
from locust.exception import StopUser

from loadtests.arrivals import open_loop
from loadtests.blocking import BlockingClient
from loadtests.measure import Failure, Outcome
from loadtests.profile import Closed, Open, Profile
from loadtests.prompts import Prompts
from loadtests.recordings import load, scale
from loadtests.tally import Tally
from loadtests.workload import Session, Target, replay


class RequestFailed(Exception):
    """What Locust shows of a request that failed."""


class Scene:
    """What all users of one Locust process share."""

    def __init__(
        self, profile: Profile, target: Target, prompts: Prompts, api_key: str | None, tally: Tally
    ) -> None:
        self.profile = profile
        self.target = target
        self.prompts = prompts
        self.api_key = api_key
        self.tally = tally

    def book(self, environment: Environment, outcome: Outcome) -> None:
        """Keeps an outcome, and tells Locust of it."""
        self.tally.add(outcome)
        error = None if outcome.ok else RequestFailed(f"{outcome.failure}: {outcome.detail}"[:200])
        ended_s = outcome.e2e_s if outcome.e2e_s is not None else 0.0
        environment.events.request.fire(
            request_type="POST",
            name=outcome.kind,
            response_time=ended_s * 1000,
            response_length=outcome.output_tokens or 0,
            exception=error,
            context={"outcome": outcome},
            start_time=time.time() - (time.monotonic() - outcome.sent_s),
        )
        if outcome.ok:
            rows = (("TTFT", outcome.ttft_s), ("TPOT", outcome.tpot_s))
            for name, value_s in rows:
                if value_s is not None:
                    environment.stats.entries[(outcome.kind, name)].log(value_s * 1000, 0)
            gaps = environment.stats.entries[(outcome.kind, "ITL")]
            for gap_s in outcome.gaps_s:
                gaps.log(gap_s * 1000, 0)


class ProfileUser(User):
    """Runs sessions of the profile's workload back to back."""

    abstract = True
    _number = 0  # of the users of this process, so that no two ask the same

    def on_start(self) -> None:
        """Opens this user's connection and its own endless line of sessions."""
        self.scene: Scene = self.environment.scene
        self.http = BlockingClient(str(self.host), self.scene.api_key, self.scene.profile.timeout_s)
        ProfileUser._number += 1
        worker = getattr(self.environment.runner, "worker_index", 0)
        seed = self.scene.profile.seed + 100_000 * worker + ProfileUser._number
        self.sessions = self.lines(seed)

    def on_stop(self) -> None:
        """Closes the connection."""
        self.http.close()

    def lines(self, seed: int) -> Iterator[Session]:
        """The sessions of this user."""
        workload = self.scene.profile.workload
        return workload.sessions(self.scene.target, self.scene.prompts, seed)

    @task
    def visit(self) -> None:
        """One session from its first request to its last."""
        self.run_session(next(self.sessions), self.http, None)

    def run_session(self, session: Session, http: BlockingClient, due_s: float | None) -> None:
        """Sends the requests of a session and books what comes of them."""
        last: Outcome | None = None
        while (ask := session.next(last)) is not None:
            if last is not None:
                due_s = time.monotonic() + ask.delay_s
                gevent.sleep(ask.delay_s)
            last = http.measure(ask, due_s)
            self.scene.book(self.environment, last)
            if last.failure is Failure.CONNECT:
                gevent.sleep(0.5)  # a server that is away is not asked thousands of times a second


class Dispatcher(ProfileUser):
    """Sends its share of an open load: the n-th of N dispatchers takes every N-th arrival."""

    abstract = True

    def on_start(self) -> None:
        """Lays out the arrivals, then waits for the task."""
        super().on_start()
        options = self.environment.parsed_options
        self.of = max(1, int(options.num_users or 1)) if options is not None else 1
        worker = getattr(self.environment.runner, "worker_index", None)
        self.turn = (ProfileUser._number - 1 if worker is None else worker) % self.of

    @task
    def visit(self) -> None:
        """All arrivals of this dispatcher, then no more."""
        times_s, sessions = self._arrivals()
        visits = gevent.pool.Group()
        idle: list[BlockingClient] = []
        start_s = time.monotonic()
        for at_s, session in zip(times_s, sessions, strict=False):
            gevent.sleep(max(0.0, start_s + at_s - time.monotonic()))
            visits.spawn(self._one, session, start_s + at_s, idle)
        visits.join()
        for http in idle:
            http.close()
        raise StopUser

    def _one(self, session: Session, due_s: float, idle: list[BlockingClient]) -> None:
        http = idle.pop() if idle else BlockingClient(
            str(self.host), self.scene.api_key, self.scene.profile.timeout_s
        )  # fmt: skip
        self.run_session(session, http, due_s)
        idle.append(http)

    def _arrivals(self) -> tuple[list[float], list[Session]]:
        profile = self.scene.profile
        if isinstance(profile.load, Open):
            all_s = open_loop(
                profile.load.curve(), burstiness=profile.load.burstiness, seed=profile.seed
            )
            times_s = list(islice(all_s, self.turn, None, self.of))
            made = profile.workload.sessions(
                self.scene.target, self.scene.prompts, profile.seed + self.turn
            )
            return times_s, list(islice(made, len(times_s)))
        assert not isinstance(profile.load, Closed)
        trace = scale(load(profile.load.path()), profile.load.scaling(profile.seed))
        sessions = replay(trace, self.scene.target, self.scene.prompts, profile.seed)
        times_s = [row.at_s for row in trace.rows]
        return times_s[self.turn :: self.of], sessions[self.turn :: self.of]
