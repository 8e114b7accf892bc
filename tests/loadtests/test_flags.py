import pytest

from loadtests.flags import parse, profile_from
from loadtests.profile import Closed, Open, Profile, ProfileError, Replay
from loadtests.summary import Slo
from loadtests.workload import Agent, Chat, Length


def profile(*flags: str) -> Profile:
    return profile_from(parse(["http://x", *flags]))


def test_flags_without_a_profile_make_a_closed_loop() -> None:
    assert profile().load == Closed(requests=20)
    assert profile("--concurrency", "8").load == Closed(concurrency=8, requests=160)
    assert profile("--concurrency", "8", "--duration", "3").load == Closed(
        concurrency=8, duration_s=3
    )


def test_rate_makes_an_open_loop() -> None:
    load = profile("--rate", "5", "--burstiness", "0.5", "--duration", "9").load
    assert load == Open(rate_rps=5, burstiness=0.5, duration_s=9)


def test_trace_makes_a_replay() -> None:
    load = profile("--trace", "mooncake_synthetic", "--trace-length", "0.03125").load
    assert isinstance(load, Replay)
    assert load.path().name == "mooncake_synthetic.jsonl.gz"


def test_flags_stand_over_the_profile() -> None:
    made = profile(
        "--profile", "noisy-neighbour", "--rate", "9", "--seed", "4", "--goodput", "e2e=3"
    )
    assert isinstance(made.load, Open)
    assert (made.load.rate_rps, made.load.burstiness, made.seed) == (9.0, 0.5, 4)
    assert made.promised() == Slo(e2e_s=3.0)
    assert profile("--profile", "chat", "--concurrency", "3").load == Closed(
        concurrency=3, requests=60
    )


def test_workload_flags() -> None:
    made = profile("--input-tokens", "100", "--output-tokens", "7", "--completion", "--ignore-eos")
    assert made.workload == Chat(Length(100), Length(7), completion=True)
    assert made.ignore_eos
    assert isinstance(profile("--workload", "agent").workload, Agent)


@pytest.mark.parametrize(
    "flags",
    [
        ("--concurrency", "0"), ("--requests", "0"), ("--rate", "0"), ("--duration", "0"),
        ("--goodput", "speed=3"), ("--fail-if", "x>1"), ("--workload", "agent", "--completion"),
        ("--burstiness", "2"),
    ],
)  # fmt: skip
def test_flags_that_make_no_sense_are_refused(flags: tuple[str, ...]) -> None:
    with pytest.raises(ProfileError):
        profile(*flags)
