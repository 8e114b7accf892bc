"""A measured run beside its limits."""

from dataclasses import replace

import pytest

from models.catalog import entry_named
from models.errors import BadRequestError
from models.hardware import hardware_named
from models.precision import Precision
from models.reached import Load, formulas, reached
from models.roofline import Deployment

H200 = Deployment(
    entry_named("llama-3.1-8b").architecture, hardware_named("h200"), Precision.BF16, Precision.BF16
)
DECODE = Load(batch=128, prompt_tokens=1024, answer_tokens=1e-9, tokens_s=11_000, tpot_s=0.0115)


def test_decode_of_an_8b_on_an_h200_is_limited_to_what_its_memory_gives() -> None:
    # Weights and 128 x 1,024 tokens of cache read once a step at 4.8 TB/s: about 18,500 tokens/s.
    found = reached(H200, DECODE)
    assert found.bound == "memory"
    assert found.memory_limit == pytest.approx(18_500, rel=0.02)
    assert found.decode_limit == found.memory_limit
    assert found.decode_tokens_s == pytest.approx(128 / 0.0115)
    assert found.decode_share == pytest.approx(0.60, abs=0.01)


def test_prompts_share_the_steps_and_lower_the_limit_of_a_run() -> None:
    found = reached(H200, replace(DECODE, answer_tokens=128))
    assert found.run_limit < found.decode_limit
    assert found.share == pytest.approx(11_000 / found.run_limit)


def test_large_batches_of_short_contexts_are_limited_by_arithmetic() -> None:
    found = reached(H200, Load(1024, 16, 16, 1000.0))
    assert found.bound == "compute"
    assert found.decode_limit == found.compute_limit
    assert found.decode_tokens_s is None
    assert found.decode_share is None


def test_ranks_that_exchange_take_their_time_of_each_step() -> None:
    found = reached(replace(H200, tensor_parallel=2), DECODE)
    assert found.decode_limit < min(found.memory_limit, found.compute_limit)
    assert any("exchange" in line for line in formulas(found))


def test_formulas_bear_the_numbers_and_come_out_as_the_limits() -> None:
    found = reached(H200, replace(DECODE, answer_tokens=128))
    memory, compute, run = formulas(found)
    assert "128 x 1 x 4800 GB/s" in memory
    assert f"{found.memory_limit:,.4g} tokens/s" in memory
    assert f"{found.compute_limit:,.4g} tokens/s" in compute
    assert f"{found.run_limit:,.4g} tokens/s" in run


@pytest.mark.parametrize(
    "load",
    [
        replace(DECODE, tokens_s=float("nan")),
        replace(DECODE, tpot_s=float("inf")),
        replace(DECODE, batch=0),
        replace(DECODE, answer_tokens=0),
        replace(DECODE, prompt_tokens=-1),
    ],
)
def test_figures_that_cannot_be_are_refused(load: Load) -> None:
    with pytest.raises(BadRequestError):
        reached(H200, load)
