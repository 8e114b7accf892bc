"""The pages' commands are told apart: those that are run, and those that cannot be."""

from tests.docs.commands import ELSEWHERE, Command, commands_in, pages, why_elsewhere

ALL = [command for page in pages() for command in commands_in(page)]


def test_commands_are_found_with_their_continued_lines() -> None:
    curl = next(c for c in ALL if c.page == "README.md" and c.text.startswith("curl"))
    assert curl.text.startswith("curl -N http") and curl.text.endswith("}]}'")
    assert Command("README.md", ".venv/bin/penstock get models") in ALL


def test_most_commands_are_run_and_the_others_say_why_not() -> None:
    run = [command for command in ALL if why_elsewhere(command) is None]
    assert len(run) >= 25, run
    for number, (page, beginning, why) in enumerate(ELSEWHERE):
        told = [c for c in ALL if why_elsewhere(c) == why and c.page == page]
        assert any(c.text.startswith(beginning) for c in told), f"entry {number} is about nothing"
