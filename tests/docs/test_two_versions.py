"""Two installed versions side by side: an upgrade in both orders, while tenants ask.

Real processes of both: controllers, gateways, and hosts that speak by their version's own client
and run an engine that is played, with their version's own guard and recorder.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.parts import Platform
from tests.docs.versions import NOW, Version, obstacle, older

pytestmark = pytest.mark.engine  # no vLLM, but real processes of two versions


@contextlib.contextmanager
def asked_meanwhile(platform: Platform) -> Iterator[None]:
    """A tenant asks all the time, and every answer is a good one."""
    stop, seen = threading.Event(), list[int]()

    def ask() -> None:
        while not stop.wait(0.05):
            seen.append(platform.ask())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert seen and set(seen) == {200}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Version:
    if (why := obstacle()) is not None:
        pytest.skip(why)
    return older(tmp_path_factory.mktemp("older"))


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = Platform(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_upgrade_that_begins_with_the_controller(before: Version, platform: Platform) -> None:
    platform.start(controller=before, gateway=before, host=before)
    engine = platform.engine_pid()
    with asked_meanwhile(platform):
        platform.controller.replace(NOW)  # migrates the database
        platform.until(lambda: platform.engines_ready() == 1, "the engine was adopted")
    assert platform.engine_pid() == engine  # and not started anew
    platform.gateway.replace(NOW)  # finds its predecessor's journal
    platform.until_served()
    assert platform.engine_pid() == engine
    platform.host.replace(NOW)
    platform.until(lambda: platform.engine_pid() != engine, "the host starts an engine")
    platform.until_served()
    platform.until(lambda: platform.counted() == platform.asked, "all requests are in the books")


def test_upgrade_that_begins_with_the_hosts(before: Version, platform: Platform) -> None:
    platform.start(controller=before, gateway=before, host=NOW)
    platform.gateway.replace(NOW)
    platform.until_served()
    platform.until(lambda: platform.counted() == platform.asked, "all requests are in the books")
