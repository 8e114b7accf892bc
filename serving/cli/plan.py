"""`penstock plan`: what a model needs of a kind of hardware, and what it gives, before it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from models import sizing
from models.architecture import Architecture
from models.catalog import Entry, Variant, entry_named
from models.config_fields import load_config
from models.config_json import read_architecture, weights_of
from models.errors import BadRequestError
from models.hardware import Hardware, hardware_named
from models.manifest import Manifest
from models.plan import Plan, Price, Rate
from models.precision import Precision
from models.profile_measured import Measured
from models.profile_search import Here, find_measured
from models.sizing import Ask
from models.sources import Access, inspect
from serving.cli import output
from serving.cli.output import Format, OutputOption
from serving.cli.platform import profiles_dir

USUAL_CONTEXT = 8192


def plan(
    model: Annotated[
        str,
        typer.Argument(help="Name in the catalog, a config.json or its folder, or hf://org/name."),
    ],
    hardware: Annotated[str, typer.Option(help="h200, gb200, b200, h100, a100, l40s, cpu.")] = (
        "h200"
    ),
    context: Annotated[
        int | None,
        typer.Option(min=2, help="Tokens of a sequence; by default 8192 or the model's limit."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Sequences at once.")] = 64,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="By default three quarters of the context.")
    ] = None,
    answer_tokens: Annotated[
        int | None, typer.Option(min=1, help="By default the rest of the context.")
    ] = None,
    weights: Annotated[
        Precision | None, typer.Option(help="By default the catalog's or config.json's.")
    ] = None,
    cache: Annotated[Precision | None, typer.Option(help="Keys and values: bf16 or fp8.")] = None,
    tensor_parallel: Annotated[
        int | None, typer.Option(min=1, help="By default as few as hold the concurrency.")
    ] = None,
    pipeline_parallel: Annotated[int | None, typer.Option(min=1, help="Stages.")] = None,
    gpu_hour_usd: Annotated[
        float | None, typer.Option(min=0.0, help="On-demand price of one device for an hour.")
    ] = None,
    how: OutputOption = Format.TABLE,
) -> None:
    """Size a model: memory, parallel sizes, concurrency, rates with error bars, price, start."""
    if cache is not None and not cache.is_kv:
        raise BadRequestError(f"keys and values are not kept in {cache}", param="cache")
    device = hardware_named(hardware)
    found = find_model(model, device)
    measured = _measured(found, device)
    answer = sizing.plan(
        Ask(
            model=found.name,
            architecture=found.architecture,
            hardware=device,
            weights=weights or found.weights,
            cache=cache or found.cache,
            context=context or min(USUAL_CONTEXT, found.architecture.max_context),
            concurrency=concurrency,
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            tensor_parallel=tensor_parallel,
            pipeline_parallel=pipeline_parallel,
            gpu_hour_usd=gpu_hour_usd,
            profile=measured,
        )
    )
    if how is Format.JSON:
        output.print_json(answer.model_dump(mode="json"))
    else:
        _print(answer)


def _measured(found: "Found", hardware: Hardware) -> Measured | None:
    """What `penstock tune` measured of the model; warns of what it leaves aside."""
    if found.manifest is None or found.manifest.resources.accelerator != hardware.name:
        return None
    search = find_measured(profiles_dir(), found.manifest, Here.of_this_machine())
    for warning in search.warnings:
        output.stderr().print(f"warning: {warning}")
    return search.profile


@dataclass(frozen=True, slots=True)
class Found:
    """A model to be sized, and how it is stored where nobody says otherwise."""

    name: str
    architecture: Architecture
    weights: Precision
    cache: Precision
    manifest: Manifest | None = None
    """As the catalog has it for the hardware."""


def find_model(model: str, hardware: Hardware) -> Found:
    """Finds a model by its name in the catalog, its files or its source.

    Raises:
        PenstockError: If there is none, or its config.json says too little.
    """
    if "://" in model:
        config = inspect(model, Access()).config
        if config is None and model.startswith("file://"):
            raise BadRequestError(f"there is no config.json in {model}", param="model")
        if config is None:
            raise BadRequestError(
                f"{model} tells its config.json only once it is fetched",
                param="model",
                hint="`penstock pull` fetches it; then plan its folder",
            )
        return _configured(model, config)
    path = Path(model)
    if path.name != model or path.suffix == ".json" or path.is_dir():
        return _configured(model, load_config(path))
    entry = entry_named(model)
    variant = _variant(entry, hardware)
    if variant is None:
        return Found(entry.name, entry.architecture, weights_of(entry.config), Precision.BF16)
    return Found(
        entry.name, entry.architecture, variant.weights, variant.cache, entry.manifest(variant)
    )


def _variant(entry: Entry, hardware: Hardware) -> Variant | None:
    fitting = [v for v in entry.variants if v.resources.accelerator == hardware.name]
    return fitting[0] if fitting else None


def _configured(name: str, config: dict[str, Any]) -> Found:
    return Found(name, read_architecture(config), weights_of(config), Precision.BF16)


def _print(plan: Plan) -> None:
    memory = plan.memory
    name = f"{plan.devices} x {plan.hardware}"
    split = f"tensor {plan.tensor_parallel} x pipeline {plan.pipeline_parallel}"
    rows = [
        ("model", f"{plan.model} ({plan.family}), {plan.parameters_b:.4g}B parameters, "
                  f"{plan.active_b:.3g}B active"),
        ("engine", f"{name}, {split}; weights {plan.weights}, cache {plan.cache}"),
        ("weights", f"{plan.weights_gib:.1f} GiB, {memory.weights_gib:.1f} on each device"),
        ("memory of a device", f"{memory.usable_gib:.1f} of {memory.total_gib:.1f} GiB: "
                               f"{memory.weights_gib:.1f} weights, {memory.reserve_gib:.1f} "
                               f"activations and graphs, {memory.cache_gib:.1f} cache"),
        ("cache", f"{plan.cache_bytes_a_token / 1024:.1f} KiB a token, "
                  f"{plan.cache_gib_a_sequence:.2f} GiB a sequence of {plan.context}"),
        ("concurrency", f"{plan.max_concurrency} sequences of {plan.context} tokens an engine; "
                        f"{plan.concurrency} take {plan.engines} engine(s)"),
        ("prompts", f"{_rate(plan.prefill)} an engine, alone"),
    ]  # fmt: skip
    if plan.decode and plan.throughput and plan.roofline_tokens_s:
        load = f"{plan.prompt_tokens} in, {plan.answer_tokens} out"
        rows += [
            ("one sequence", _rate(plan.decode)),
            (
                "engine",
                f"{_rate(plan.throughput)}; {load}; roofline {_count(plan.roofline_tokens_s)}",
            ),
        ]
    rows += [(f"price {price.capacity_class}", _price(price)) for price in plan.prices]
    rows += [
        (f"start, {start.storage}", f"{start.start_s:.0f} s, of it {start.read_s:.0f} s reading")
        for start in plan.start_up
    ]
    output.print_items([], ("what", "plan"), rows, Format.TABLE)
    if plan.profile is not None:
        output.stderr().print(f"rates by the measured profile of {plan.profile}")
    elif not plan.measured:
        output.stderr().print(
            f"no published point of {plan.hardware} is behind the error bars: take them with care"
        )


def _rate(rate: Rate) -> str:
    return f"{_count(rate.expected)} tokens/s ({_count(rate.low)} to {_count(rate.high)})"


def _count(number: float) -> str:
    """Three digits are more than a prediction is worth; the rest are zeros."""
    return f"{float(f'{number:.3g}'):,.4g}" if number < 1000 else f"{float(f'{number:.3g}'):,.0f}"


def _price(price: Price) -> str:
    return (
        f"${price.expected_usd:.2f} a million answer tokens ({price.low_usd:.2f} to "
        f"{price.high_usd:.2f}), at ${price.gpu_hour_usd:.2f} a device and hour"
    )
