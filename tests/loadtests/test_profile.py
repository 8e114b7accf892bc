from pathlib import Path

import pytest

from loadtests.arrivals import open_loop
from loadtests.mix import Mix
from loadtests.profile import PROFILES, Closed, Open, ProfileError, Replay, fields_of, read
from loadtests.workload import Chat, Length

SHIPPED = sorted(path.stem for path in PROFILES.glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_is_valid_and_says_what_it_is_for(name: str) -> None:
    profile = read(fields_of(name))
    assert profile.about
    assert profile.fail_if
    if isinstance(profile.load, Open):
        assert next(open_loop(profile.load.curve())) >= 0
    if isinstance(profile.load, Replay):
        assert profile.load.path().exists()


def test_profiles_are_those_that_the_guides_name() -> None:
    assert SHIPPED == [
        "agent", "chat", "code", "cold-start-storm", "noisy-neighbour", "smoke", "soak",
    ]  # fmt: skip


def test_profile_without_anything_is_a_short_closed_loop() -> None:
    profile = read({})
    assert profile.workload == Chat()
    assert profile.load == Closed(requests=20)
    assert profile.promised() is None


def test_nested_fields_are_read() -> None:
    part = {"weight": 2, "workload": {"type": "chat", "prompt": {"mean": 9, "spread": 0.5}}}
    profile = read({"workload": {"type": "mix", "parts": [part]}, "slo": {"ttft_s": 2}})
    assert isinstance(profile.workload, Mix)
    assert profile.workload.parts[0].workload.prompt == Length(9, 0.5)  # type: ignore[union-attr]
    assert profile.promised() is not None


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"lod": {}}, "lod"),
        ({"load": {"type": "opne"}}, "load"),
        ({"load": {"type": "closed", "rate_rps": 3}}, "load.closed.rate_rps"),
        ({"load": {"type": "closed", "concurrency": 0}}, "load.closed.concurrency"),
        ({"load": {"type": "open", "duration_s": 0}}, "load.open.duration_s"),
        ({"workload": {"type": "chat", "promt": {}}}, "workload.chat.promt"),
        ({"workload": {"type": "chat", "prompt": {"mean": 0}}}, "workload.chat.prompt"),
        ({"fail_if": ["speed>1"]}, "speed"),
    ],
)
def test_profile_that_makes_no_sense_is_refused_naming_the_field(
    fields: dict[str, object], place: str
) -> None:
    with pytest.raises(ProfileError, match=place):
        read(fields)


def test_profile_that_is_none_is_refused(tmp_path: Path) -> None:
    broken, plain = tmp_path / "broken.yaml", tmp_path / "plain.yaml"
    broken.write_text("a: [")
    plain.write_text("just words")
    for name, said in (("nothing", "shipped: agent"), (broken, "no YAML"), (plain, "no mapping")):
        with pytest.raises(ProfileError, match=said):
            fields_of(str(name))
