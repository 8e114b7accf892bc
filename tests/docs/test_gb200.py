"""The page on GB200: each row says how it is known, and estimates are what the planner says."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.calibration import POINTS, calibrated
from models.hardware import hardware_named
from models.sizing import Ask, plan
from serving.cli.plan import find_model

PAGE = Path(__file__).parents[2] / "docs/concepts/gb200.md"
MARKS = ("published: ", "estimated: ", "measured: ")
MODELS = {
    "Qwen3 8B": "qwen3-8b", "Llama 3.3 70B": "llama-3.3-70b", "gpt-oss-120b": "gpt-oss-120b",
    "DeepSeek R1": "deepseek-r1", "Llama 3.1 405B": "llama-3.1-405b",
}  # fmt: skip
NEAR = 0.03
"""The page rounds to two or three digits."""


def rows() -> Iterator[list[str]]:
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("| ") and not line.startswith(("| ---", "| what |", "| model |")):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def numbers(cell: str) -> list[float]:
    return [float(text.replace(",", "")) for text in re.findall(r"\d[\d,]*(?:\.\d+)?", cell)]


def test_each_row_says_how_its_numbers_are_known() -> None:
    found = list(rows())
    assert len(found) >= 16
    assert [row[0] for row in found if not row[-1].startswith(MARKS)] == []
    assert not [row[0] for row in found if row[-1].startswith("measured")]  # we had none


@pytest.mark.parametrize("hardware", ["h200", "gb200"])
def test_machine_is_the_one_of_the_hardware_table(hardware: str) -> None:
    known = hardware_named(hardware)
    column = {"h200": 1, "gb200": 2}[hardware]
    told = {row[0]: numbers(row[column])[:1] for row in rows()}
    fp4 = [] if known.fp4_tflops is None else [known.fp4_tflops]
    assert told["memory of a GPU"] == [round(known.memory_gib, 1)]
    assert told["memory bandwidth"] == [known.bandwidth_tb_s]
    assert told["dense FP8"] == [known.fp8_tflops]
    assert [n for n in told["dense FP4"] if n != 16] == fp4
    assert told["link to peers, both directions"] == [known.link_gb_s]
    assert told["host to GPU"] == [known.host_gb_s]
    assert told["GPUs of a host"] == [known.gpus_a_host]
    assert told["GPUs that reach each other over NVLink"] == [known.domain]


@pytest.mark.parametrize("title", MODELS)
@pytest.mark.parametrize("hardware", ["h200", "gb200"])
def test_estimates_are_what_the_planner_says(title: str, hardware: str) -> None:
    row = next(row for row in rows() if row[0] == f"{title}, 128 at once")
    cell = row[{"h200": 1, "gb200": 2}[hardware]]
    matched = re.search(r"([\d,]+) (?:tokens/s |a GPU |on one )?.*?\(([\d,]+) to ([\d,]+)\)",
                        re.sub(r"^\d GPUs, ", "", cell))  # fmt: skip
    assert matched is not None, cell
    device = hardware_named(hardware)
    found = find_model(MODELS[title], device)
    ask = Ask(found.name, found.architecture, device, found.weights, found.cache,
              context=1536, concurrency=128, prompt_tokens=1024, answer_tokens=512)  # fmt: skip
    answer = plan(ask)
    assert answer.throughput is not None
    devices = re.match(r"(\d) GPUs, ", cell)
    assert answer.devices == (int(devices[1]) if devices else 1)
    rates = (answer.throughput.expected, answer.throughput.low, answer.throughput.high)
    for text, rate in zip(matched.groups(), rates, strict=True):
        assert float(text.replace(",", "")) == pytest.approx(rate / answer.devices, rel=NEAR)


def test_published_point_is_the_one_that_the_planner_was_held_against() -> None:
    point = next(point for point in POINTS if point.deployment.hardware.name == "gb200")
    row = next(row for row in rows() if row[0] == "Llama 3.1 405B FP4 on 72 GPUs")
    beside = next(row for row in rows() if row[0] == "the same by the planner")
    assert [numbers(one[2])[0] for one in (row, beside)] == [
        point.tokens_s_a_device,
        round(point.predicted(calibrated())),
    ]
