"""Logs of engines through the platform, of parts from the data directory."""

from pathlib import Path

from serving.protocol import ModelState
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import FakePlatform


def test_log_of_an_engine(run: Run, platform: FakePlatform) -> None:
    platform.start_engine("e-1", "guide")
    assert run("logs", "e-1", "--tail", "5").out == "log of e-1\n"
    assert platform.asked[-1][2] == {"tail": ["5"]}


def test_log_of_a_model_is_that_of_its_engine(run: Run, platform: FakePlatform) -> None:
    platform.start_engine("e-1", "guide")
    assert run("logs", "guide").out == "log of e-1\n"


def test_log_of_a_model_whose_engine_failed_is_found_by_the_events(
    run: Run, platform: FakePlatform
) -> None:
    platform.deploy("gone", ModelState.FAILED)
    assert run("logs", "gone").out == "log of e-old\n"


def test_log_of_a_part(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data" / "logs").mkdir(parents=True)
    (tmp_path / "data" / "logs" / "controller.log").write_text("one\ntwo\nthree\n")
    outcome = run("logs", "--part", "controller", "--tail", "2", "--data-dir", "data")
    assert outcome.out == "two\nthree\n"


def test_log_of_a_part_that_never_ran_is_not_found(run: Run) -> None:
    outcome = run("logs", "--part", "gateway")
    assert outcome.code == 4
    assert "--data-dir" in outcome.err
