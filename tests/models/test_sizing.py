"""Sizing: memory, parallel sizes, rates and prices, and models that cannot fit."""

from dataclasses import replace

import pytest

from models.catalog import entry_named
from models.errors import BadRequestError
from models.hardware import HARDWARE, UnknownHardwareError, hardware_named
from models.plan import DoesNotFitError, Plan
from models.precision import Precision
from models.roofline import Deployment
from models.sizing import Ask, plan


def ask(model: str = "llama-3.1-8b", hardware: str = "h200", **more: object) -> Ask:
    base = Ask(model, entry_named(model).architecture, hardware_named(hardware), Precision.BF16)
    return replace(base, **more)  # type: ignore[arg-type]


def sized(model: str = "llama-3.1-8b", hardware: str = "h200", **more: object) -> Plan:
    return plan(ask(model, hardware, **more))


@pytest.mark.parametrize(
    ("model", "weights", "gib"),
    [
        # Sizes of the checkpoints' safetensors as their repositories show them.
        ("llama-3.1-8b", Precision.BF16, 14.96),
        ("llama-3.3-70b", Precision.BF16, 131.4),
        ("gpt-oss-120b", Precision.MXFP4, 60.8),
        ("gpt-oss-20b", Precision.MXFP4, 12.8),
    ],
)
def test_weights_have_the_size_of_the_checkpoint(
    model: str, weights: Precision, gib: float
) -> None:
    assert sized(model, weights=weights).weights_gib == pytest.approx(gib, rel=0.01)


def test_fewest_devices_that_hold_the_concurrency_are_chosen() -> None:
    assert sized("llama-3.3-70b", concurrency=1).devices == 2
    # 131 GiB of weights leave two devices 110 GiB for cache, 2.5 GiB a sequence.
    assert sized("llama-3.3-70b", concurrency=64).devices == 4
    assert sized("llama-3.3-70b", weights=Precision.FP8, concurrency=8).devices == 1


def test_more_engines_are_asked_for_where_one_cannot_hold_all() -> None:
    found = sized("llama-3.1-8b", hardware="l40s", concurrency=1000)
    assert found.max_concurrency < 1000
    assert found.engines == -(-1000 // found.max_concurrency)


def test_memory_adds_up() -> None:
    memory = sized("qwen3-32b").memory
    used = memory.weights_gib + memory.reserve_gib + memory.cache_gib
    assert used == pytest.approx(memory.usable_gib)
    assert memory.usable_gib < memory.total_gib


def test_concurrency_is_what_the_cache_holds() -> None:
    found = sized("qwen3-32b", concurrency=16)
    cache_gib = found.memory.cache_gib * found.devices
    assert found.max_concurrency == int(cache_gib // found.cache_gib_a_sequence)


def test_model_that_cannot_fit_says_by_how_much_and_what_would() -> None:
    with pytest.raises(DoesNotFitError, match=r"756\.0 GiB.* GiB too much") as caught:
        sized("llama-3.1-405b", "h100", tensor_parallel=8, pipeline_parallel=1)
    hint = caught.value.hint or ""
    assert "--weights fp8 on 8 x h100" in hint
    assert "--hardware h200 on 8 x h200" in hint
    assert "on 16 x h100" in hint


def test_what_is_said_to_fit_does_fit() -> None:
    assert sized("llama-3.1-405b", "h100", weights=Precision.FP8, concurrency=1).devices == 8
    assert sized("llama-3.1-405b", "h200", concurrency=1).devices == 8


def test_model_too_large_for_a_cpu_does_not_fit() -> None:
    with pytest.raises(DoesNotFitError):
        sized("qwen3-32b", "cpu")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"context": 131073}, "131072 tokens at most"),
        ({"context": 8192, "prompt_tokens": 8192}, "do not fit a context"),
        ({"context": 100, "prompt_tokens": 90, "answer_tokens": 20}, "do not fit a context"),
        ({"tensor_parallel": 3}, "must divide 32 heads"),
        ({"tensor_parallel": 16}, "linked devices"),
        ({"pipeline_parallel": 64}, "more than 32 layers"),
        ({"concurrency": 0}, "at least 1"),
    ],
)
def test_impossible_wish_is_refused(more: dict[str, object], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        sized(**more)  # type: ignore[arg-type]


def test_unknown_hardware_names_the_known() -> None:
    with pytest.raises(UnknownHardwareError) as caught:
        hardware_named("tpu")
    assert all(known.name in (caught.value.hint or "") for known in HARDWARE)
    assert hardware_named("GB200").name == "gb200"


def test_prediction_stays_below_the_roofline() -> None:
    found = sized("llama-3.3-70b")
    assert found.throughput
    assert found.roofline_tokens_s
    assert found.throughput.low < found.throughput.expected < found.throughput.high
    assert found.throughput.expected < found.roofline_tokens_s


def test_decode_of_one_sequence_is_bound_by_reading_the_weights() -> None:
    model = entry_named("llama-3.1-8b").architecture
    alone = Deployment(model, hardware_named("h100"), Precision.BF16, Precision.BF16)
    seconds = alone.decode_step_s(1, 1)
    assert seconds == pytest.approx(alone.weight_bytes / 3.35e12, rel=0.01)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "deepseek-v3", "gpt-oss-20b"])
def test_larger_batch_gives_more_and_never_faster_steps(name: str) -> None:
    model = entry_named(name).architecture
    engine = Deployment(model, hardware_named("h200"), Precision.FP8, Precision.BF16)
    steps = [engine.decode_step_s(batch, 1000) for batch in (1, 2, 8, 64, 512)]
    assert steps == sorted(steps)
    rates = [batch / step for batch, step in zip((1, 2, 8, 64, 512), steps, strict=True)]
    assert rates == sorted(rates)


def test_prices_follow_the_hour_and_the_class() -> None:
    cheap, dear = sized(gpu_hour_usd=1.0).prices, sized(gpu_hour_usd=2.0).prices
    assert [price.capacity_class for price in cheap] == ["on-demand", "reserved", "spot"]
    assert dear[0].expected_usd == pytest.approx(2 * cheap[0].expected_usd)
    assert all(price.low_usd < price.expected_usd < price.high_usd for price in cheap)
    found = sized(gpu_hour_usd=3.6)
    assert found.throughput
    assert found.prices[0].expected_usd == pytest.approx(1000 / found.throughput.expected)


def test_start_is_sooner_the_faster_the_storage() -> None:
    starts = [start.start_s for start in sized("llama-3.3-70b").start_up]
    assert starts == sorted(starts, reverse=True)
    assert starts[-1] > 20


def test_encoder_has_a_rate_for_prompts_only() -> None:
    found = sized("bge-m3")
    assert found.throughput is None
    assert not found.prices
    assert found.prefill.expected > 0


def test_small_model_is_bound_by_the_overhead_of_its_steps() -> None:
    found = sized("qwen3-0.6b", context=1024, concurrency=1)
    assert found.decode
    # 1.1 GiB at 4.8 TB/s would give 4,000 tokens/s; no engine steps that often.
    assert 200 < found.decode.expected < 500
