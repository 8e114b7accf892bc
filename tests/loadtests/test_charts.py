from xml.etree import ElementTree as ET

import pytest

from loadtests.charts import Axis, Mark, Row, Spot, area, curve, histogram, in_unit, intervals
from loadtests.compare import Interval


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 100.0, ["0", "20", "40", "60", "80", "100"]),
        (0.95, 1.02, ["0.96", "0.98", "1.00", "1.02"]),
        (0.0, 23_000.0, ["0", "5,000", "10,000", "15,000", "20,000"]),
    ],
)
def test_axis_has_round_ticks(low: float, high: float, labels: list[str]) -> None:
    assert [text for _, text in Axis.across("x", low, high).ticks()] == labels


def test_axis_upward_begins_at_nothing_and_ends_above_the_highest() -> None:
    axis = Axis.upward("y", 19.0)
    assert (axis.low, axis.high) == (0.0, 20.0)
    assert axis.at(0) > axis.at(20)
    assert Axis.upward("y", 0.0).high > 0


@pytest.mark.parametrize(
    "chart",
    [
        histogram("T & T", [0, 1, 2], [3, 0], "ms", [Mark("p50", 1), Mark("p99", 9)]),
        area("In flight", [(0, 0.0), (1, 2.0)], "s", "requests"),
        curve("R", [Spot(1, 5, True, "<b>"), Spot(2, 900, False, "b")], "1/s", "ms", (10, "<")),
        intervals("A", [Row("x", Interval(1.1, 1.0, 1.2), "no", "same")], "A / B"),
    ],
)
def test_chart_is_well_formed_and_stays_in_its_frame(chart: str) -> None:
    svg = ET.fromstring(chart)  # noqa: S314, our own
    _, _, width, height = (float(edge) for edge in svg.attrib["viewBox"].split())
    assert svg.attrib["aria-label"]
    for mark in svg.iter():
        for name, most in (("x", width), ("x1", width), ("x2", width), ("cx", width),
                           ("y", height), ("y1", height), ("cy", height)):  # fmt: skip
            assert 0 <= float(mark.attrib.get(name, 0)) <= most


def test_times_of_ten_seconds_are_shown_in_seconds() -> None:
    assert in_unit(9.9) == (1000.0, "ms")
    assert in_unit(10.0) == (1.0, "s")
