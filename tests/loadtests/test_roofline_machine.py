"""What the machine gives: small arrays here, for the figures' sake they are larger."""

import json

import pytest

from loadtests import roofline_machine


def test_shortest_try_counts_and_the_first_does_not() -> None:
    # Beginning and end of each try: 3, 1, 2, 5 and 4 seconds.
    moments = iter([0.0, 3.0, 3.0, 4.0, 4.0, 6.0, 6.0, 11.0, 11.0, 15.0])
    done: list[int] = []
    assert roofline_machine.best_s(lambda: done.append(1), lambda: next(moments)) == 1.0
    assert len(done) == roofline_machine.REPEATS + 1


def test_cpu_is_measured_and_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert roofline_machine.main(["--mib", "1", "--size", "64"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == "cpu"
    assert found["bandwidth_gb_s"] > 0
    assert found["matmul_tflops"] > 0
    assert found["bandwidth_how"].startswith("measured: numpy triad")
    assert found["matmul_how"].startswith("measured: ")


def test_driver_that_does_not_serve_is_told_in_its_own_words() -> None:
    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system\n is too old (found version 12040).")

    said = roofline_machine._why_not(too_old)
    assert said == "The NVIDIA driver on your system is too old (found version 12040)."
    assert roofline_machine._why_not(lambda: None) == "it does not say why"
