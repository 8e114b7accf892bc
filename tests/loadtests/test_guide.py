"""The guide names what there is: profiles, failures, flags."""

import re
from pathlib import Path

import yaml

import loadtests
from loadtests.flags import parse
from loadtests.measure import Failure
from loadtests.profile import PROFILES, read
from loadtests.summary import parse_gate

ROOT = Path(loadtests.__file__).parents[1]
GUIDE = (ROOT / "docs" / "guides" / "load-tests.md").read_text()


def test_guide_names_all_profiles_and_failures() -> None:
    for profile in PROFILES.glob("*.yaml"):
        assert f"| `{profile.stem}` |" in GUIDE
    for failure in Failure:
        assert f"`{failure}`" in GUIDE


def test_commands_of_the_guide_can_be_read() -> None:
    commands = re.findall(r"^penstock bench(.*?)(?:#.*)?$", GUIDE, re.MULTILINE)
    assert len(commands) >= 6
    for command in commands:
        parsed = parse(command.replace("'", "").split())
        for gate in parsed.fail_if or ():
            parse_gate(gate)


def test_profile_of_the_guide_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    assert read(yaml.safe_load(text)).about
