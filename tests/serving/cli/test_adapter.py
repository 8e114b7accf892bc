"""`penstock adapter`: what is sent, and what is told of the engines."""

import pytest

from serving.adapters import AdapterView
from serving.protocol import ModelState
from serving.views import Items
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import FakePlatform

SOURCE = "file:///adapters/pirate"
PATH = "/models/guide/adapters"


def view(loaded: int, engines: int, error: str | None = None) -> Items[AdapterView]:
    one = AdapterView(
        name="pirate", served="guide:pirate", source=SOURCE, loaded=loaded, engines=engines,
        error=error, hint="lower it" if error else None,
    )  # fmt: skip
    return Items(items=[one])


@pytest.fixture(autouse=True)
def deployed(platform: FakePlatform) -> None:
    platform.deploy("guide", ModelState.READY)
    platform.resources[PATH] = view(1, 1)


def test_added_adapter_is_loaded_when_the_command_ends(run: Run, platform: FakePlatform) -> None:
    done = run("adapter", "add", "guide", "pirate", SOURCE)
    assert done.code == 0, done.err
    assert "loaded in 1 of 1 engines" in done.err
    assert any(method == "PUT" and SOURCE in body for method, _, _, body in platform.asked)


def test_adapter_that_cannot_be_loaded_says_why(run: Run, platform: FakePlatform) -> None:
    platform.resources[PATH] = view(0, 1, "the adapter has rank 64")
    done = run("adapter", "add", "guide", "pirate", SOURCE)
    assert (done.code, "rank 64" in done.err, "hint: lower it" in done.err) == (1, True, True)


def test_wait_ends_with_how_far_the_engines_are(run: Run, platform: FakePlatform) -> None:
    platform.resources[PATH] = view(0, 2)
    done = run("adapter", "add", "guide", "pirate", SOURCE, "--wait", "0")
    assert (done.code, "0 of 2 engines" in done.err) == (1, True)


def test_adapters_are_listed_and_removed(run: Run, platform: FakePlatform) -> None:
    listed = run("adapter", "list", "guide")
    assert (listed.code, "guide:pirate" in listed.out, "1/1" in listed.out) == (0, True, True)
    assert '"served": "guide:pirate"' in run("adapter", "list", "guide", "--output", "json").out
    assert run("adapter", "rm", "guide", "pirate").code == 0
    assert any(method == "DELETE" for method, _, _, _ in platform.asked)


def test_bad_source_is_refused_before_anything_is_asked(run: Run, platform: FakePlatform) -> None:
    done = run("adapter", "add", "guide", "pirate", "somewhere")
    assert done.code == 2
    assert not platform.asked
