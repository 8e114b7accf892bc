"""`locust -f loadtests/locustfile.py --host URL --load-profile chat`: load tests with Locust.

See `loadtests.users` for what its statistics mean. The profile decides which users run; with
several workers the master gathers their outcomes. At the end the profile's gates decide, and the
exit code is 1 where one trips or the run is not valid.
"""

import logging
import os
import sys
from collections.abc import Coroutine
from typing import TypeVar, cast

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests import webui
from loadtests.blocking import BlockingClient
from loadtests.client import ServerError
from loadtests.execute import learn_server, unix_time
from loadtests.profile import Closed, Profile, ProfileError, fields_of, read
from loadtests.report import Report, lines, tripped
from loadtests.summary import summarize
from loadtests.tally import Packed, Tally
from loadtests.users import Dispatcher, ProfileUser, Scene

log = logging.getLogger("penstock")

ResultT = TypeVar("ResultT")


class Visitors(ProfileUser):
    """Users of a closed load: so many at once."""


class Arrivals(Dispatcher):
    """Users of an open load: dispatchers of its arrivals."""


class _Calls:
    """A blocking client where an asynchronous one is asked for; it never suspends."""

    def __init__(self, client: BlockingClient) -> None:
        self._client = client

    async def call(self, path: str, body: object = None) -> tuple[int, bytes]:
        """See Caller."""
        return self._client.call(path, body)


def _finish(coroutine: Coroutine[None, None, ResultT]) -> ResultT:
    """Runs a coroutine that never suspends; an event loop has no place among greenlets."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return cast(ResultT, finished.value)
    raise RuntimeError("the coroutine waits for an event loop")


@events.init_command_line_parser.add_listener
def add_flags(parser: LocustArgumentParser) -> None:
    """Our flags, also shown in Locust's web UI."""
    parser.add_argument(
        "--load-profile", default="smoke", help="name of a shipped profile, or a file"
    )
    parser.add_argument("--model", default="", help="default: the first that the server lists")
    parser.add_argument(
        "--api-key",
        default=os.environ.get("PENSTOCK_API_KEY", os.environ.get("OPENAI_API_KEY", "")),
        is_secret=True,
        help="the tenant's key",
    )


def profile_of(environment: Environment) -> Profile:
    """The profile that the flags name.

    Raises:
        ProfileError: It makes no sense.
    """
    options = environment.parsed_options
    return read(fields_of(options.load_profile if options is not None else "smoke"))


def report_of(environment: Environment) -> Report:
    """What has been measured by now."""
    run = webui.run_of(list(environment.tally.outcomes))
    options = environment.parsed_options
    model = (options.model if options is not None else "") or "the first model"
    return Report(environment.host or "", model, profile_of(environment), run, unix_time(run))


@events.init.add_listener
def choose_users(environment: Environment, **_: object) -> None:
    """Lets only the users run that the profile's load asks for, and gathers what workers count."""
    environment.tally = Tally()
    try:
        closed = isinstance(profile_of(environment).load, Closed)
    except ProfileError as error:
        log.error("profile: %s", error)
        sys.exit(2)
    environment.user_classes = [Visitors if closed else Arrivals]

    def hand_over(client_id: str, data: dict[str, object]) -> None:
        del client_id
        data["penstock"] = environment.tally.hand_over()

    def take_over(client_id: str, data: dict[str, list[Packed]]) -> None:
        del client_id
        environment.tally.take_over(data.get("penstock", ()))

    webui.install(environment, lambda: report_of(environment))
    if isinstance(environment.runner, WorkerRunner):
        environment.events.report_to_master.add_listener(hand_over)
    elif isinstance(environment.runner, MasterRunner):
        environment.events.worker_report.add_listener(take_over)


@events.test_start.add_listener
def set_scene(environment: Environment, **_: object) -> None:
    """Learns the server's model and tokenizer, once in each process that has users."""
    environment.tally = Tally()
    if isinstance(environment.runner, MasterRunner):
        return
    options = environment.parsed_options
    profile = profile_of(environment)
    api_key = options.api_key or None
    client = BlockingClient(environment.host or "", api_key, profile.timeout_s)
    try:
        learned = _finish(learn_server(_Calls(client), options.model or None, profile))
    except ServerError as error:
        log.error("the server cannot be used: %s", error)
        sys.exit(6)
    finally:
        client.close()
    environment.scene = Scene(profile, *learned, api_key, environment.tally)


@events.quitting.add_listener
def judge(environment: Environment, **_: object) -> None:
    """Says how the run went, and fails it where it is not valid or a gate trips."""
    tally: Tally = environment.tally
    if isinstance(environment.runner, WorkerRunner) or not tally.outcomes:
        return
    profile = profile_of(environment)
    summary = summarize(tally.outcomes, tally.duration_s or 1.0, profile.promised())
    for line in lines(summary):
        log.info(line)
    # The gaps between tokens are in the statistics only: there are too many to send around.
    gates = [gate for gate in profile.gates() if not gate.name.startswith("itl_")]
    failed = tripped(summary, gates)
    for gate in failed:
        log.error("gate tripped: %s", gate)
    if environment.process_exit_code is None:
        environment.process_exit_code = 1 if failed or summary.complaints else 0
