"""The sizing planner: from a model's config.json to fit, parallel sizes, rates, price and start.

Rates are those of a measured profile where there is one; else the roofline's (`models.roofline`)
times what published points say is reached of it (`models.calibration`), with the error that this
had on other points.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from models.architecture import Architecture
from models.calibration import BATCHED_TOKENS, POINTS, SLOTS, calibrated, error_factor
from models.errors import BadRequestError
from models.hardware import GIB, HARDWARE, PRICE_SHARE, STORAGE, Hardware
from models.plan import DoesNotFitError, Memory, Plan, Price, Rate, Rates, StartUp
from models.precision import Precision
from models.profile_measured import Measured
from models.profile_rates import measured_rates
from models.roofline import Deployment

UNMEASURED_FACTOR = 3.0
"""Error bar where no point of the kind was published (the CPU): an order of magnitude, no more."""
GPU_START_S = 20.0
"""Start of an engine on a GPU beside reading weights: graphs, warm-up; assumed."""
CPU_START_S = 1.0
"""The same on a CPU, forked and eager: 0.4-0.9 s were measured."""
SHORT_CONTEXT = 4096
"""The context that is tried where a longer one does not fit."""
MAX_STAGES = 4
"""Pipeline stages that are tried: hosts of one engine."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a plan is asked for."""

    model: str
    """Name for the answer and its errors."""
    architecture: Architecture
    hardware: Hardware
    weights: Precision
    cache: Precision = Precision.BF16
    context: int = 8192
    """Tokens of a sequence at most, prompt and answer."""
    concurrency: int = 64
    """Sequences at once."""
    prompt_tokens: int | None = None
    """By default three quarters of the context."""
    answer_tokens: int | None = None
    """By default the rest."""
    tensor_parallel: int | None = None
    """By default the planner chooses."""
    pipeline_parallel: int | None = None
    gpu_hour_usd: float | None = None
    """On-demand price of a device; by default the hardware table's."""
    profile: Measured | None = None
    """What was measured of this model on this hardware; read before the formulas."""

    @property
    def slots(self) -> int:
        """Sequences that an engine is set up for."""
        return max(min(self.concurrency, SLOTS), 1)

    @property
    def batched_tokens(self) -> int:
        """Tokens of one step: vLLM takes in no more than the context, or its default."""
        return BATCHED_TOKENS if not self.hardware.is_cpu else min(BATCHED_TOKENS, 2048)


def plan(ask: Ask) -> Plan:
    """Sizes a model on a kind of hardware.

    Parallel sizes that were not asked for are the smallest that hold the concurrency; where none
    do, those that hold most for each device, and more than one engine.

    Raises:
        BadRequestError: If the context passes the model's limit, or a size makes no sense.
        DoesNotFitError: If not even one sequence fits; says by how much, and what would fit.
    """
    prompt, answer = _lengths(ask)
    deployment = _placed(ask)
    if deployment is None:
        raise _unfit(ask)
    room = _room(ask, deployment)
    batch = min(ask.concurrency, room)
    rates = _rates(deployment, batch, prompt, answer)
    profile = ask.profile
    if profile is not None:
        rates = measured_rates(profile, rates, deployment, batch, prompt, answer)
    model = deployment.model
    return Plan(
        model=ask.model,
        family=model.family,
        hardware=ask.hardware.name,
        weights=ask.weights,
        cache=ask.cache,
        parameters_b=model.parameters / 1e9,
        active_b=model.active_parameters / 1e9,
        weights_gib=deployment.weight_bytes / GIB,
        cache_bytes_a_token=deployment.cache_bytes_a_token,
        cache_gib_a_sequence=deployment.cache_bytes(ask.context) / GIB,
        context=ask.context,
        prompt_tokens=prompt,
        answer_tokens=answer,
        concurrency=ask.concurrency,
        tensor_parallel=deployment.tensor_parallel,
        pipeline_parallel=deployment.pipeline_parallel,
        devices=deployment.devices,
        memory=Memory(
            total_gib=ask.hardware.memory_gib,
            usable_gib=deployment.usable_bytes() / GIB,
            weights_gib=deployment.weight_bytes / deployment.devices / GIB,
            reserve_gib=deployment.reserve_bytes(ask.batched_tokens, ask.slots) / GIB,
            cache_gib=deployment.room_bytes(ask.batched_tokens, ask.slots) / GIB,
        ),
        max_concurrency=room,
        engines=-(-ask.concurrency // room),
        decode=rates.decode,
        prefill=rates.prefill,
        throughput=rates.throughput,
        roofline_tokens_s=rates.roofline,
        measured=any(point.deployment.hardware is ask.hardware for point in POINTS),
        profile=rates.profile,
        prices=_prices(ask, deployment, rates.throughput),
        start_up=_start_up(deployment),
    )


def _lengths(ask: Ask) -> tuple[int, int]:
    """Prompt and answer tokens of the workload.

    Raises:
        BadRequestError: If they do not fit the context, or the context not the model.
    """
    limit = ask.architecture.max_context
    if ask.context > limit:
        raise BadRequestError(
            f"{ask.model} takes {limit} tokens at most; a context of {ask.context} is beyond that",
            param="context",
            hint=f"ask for --context {limit} or less",
        )
    if ask.context < 2 or ask.concurrency < 1:
        raise BadRequestError("context must be at least 2, concurrency at least 1", param="context")
    if ask.prompt_tokens is None:
        answer = ask.answer_tokens or max(ask.context // 4, 1)
        prompt = ask.context - answer
    else:
        prompt = ask.prompt_tokens
        answer = ask.answer_tokens or ask.context - prompt
    if prompt < 1 or answer < 1 or prompt + answer > ask.context:
        raise BadRequestError(
            f"{prompt} prompt and {answer} answer tokens do not fit a context of {ask.context}",
            param="context",
        )
    return prompt, answer


def _room(ask: Ask, deployment: Deployment) -> int:
    return deployment.sequences(ask.context, ask.batched_tokens, ask.slots, SLOTS)


def _placed(ask: Ask) -> Deployment | None:
    """The deployment with the parallel sizes to use; none where nothing fits."""
    fitting = [
        (candidate, room) for candidate in _candidates(ask) if (room := _room(ask, candidate)) > 0
    ]
    if not fitting:
        return None
    # Stages over hosts only where nothing smaller fits: more engines are the better way to grow.
    one_stage = [found for found in fitting if found[0].pipeline_parallel == 1]
    fitting = one_stage or fitting
    for candidate, room in fitting:
        if room >= ask.concurrency:
            return candidate
    return max(fitting, key=lambda found: found[1] / found[0].devices)[0]


def _candidates(ask: Ask) -> Iterable[Deployment]:
    """Deployments in the order of their devices, fewest first.

    Raises:
        BadRequestError: If a given size cannot be.
    """
    hardware, heads = ask.hardware, ask.architecture.heads
    widest = min(hardware.domain, 8)
    ranks = [n for n in (1, 2, 4, 8) if n <= widest and heads % n == 0]
    if ask.tensor_parallel is not None:
        if heads % ask.tensor_parallel or ask.tensor_parallel > hardware.domain:
            raise BadRequestError(
                f"tensor parallel {ask.tensor_parallel} must divide {heads} heads and stay within "
                f"the {hardware.domain} linked devices of {hardware.name}",
                param="tensor_parallel",
            )
        ranks = [ask.tensor_parallel]
    stages = ask.pipeline_parallel or 1
    sizes = [(tensor, stages) for tensor in ranks]
    if ask.pipeline_parallel is None and not hardware.is_cpu:
        sizes += [(ranks[-1], more) for more in range(2, MAX_STAGES + 1)]
    if stages > ask.architecture.layers:
        raise BadRequestError(
            f"{stages} pipeline stages are more than {ask.architecture.layers} layers",
            param="pipeline_parallel",
        )
    for tensor, pipeline in sizes:
        yield Deployment(ask.architecture, hardware, ask.weights, ask.cache, tensor, pipeline)


def _unfit(ask: Ask) -> DoesNotFitError:
    """Says by how much a model does not fit, and what would."""
    largest = list(_candidates(ask))[-1]
    one = largest.cache_bytes(ask.context)
    missing = one - largest.room_bytes(ask.batched_tokens, ask.slots) * largest.devices
    where = f"{largest.devices} x {ask.hardware.name}" if largest.devices > 1 else ask.hardware.name
    one_of = replace(ask, concurrency=1)
    free = replace(one_of, tensor_parallel=None, pipeline_parallel=None)
    wider = [
        (f"--weights {weights}", replace(one_of, weights=weights))
        for weights in (Precision.FP8, Precision.INT4, Precision.NVFP4)
        if weights.bytes < ask.weights.bytes
    ]
    wider += [
        (f"--hardware {hardware.name}", replace(free, hardware=hardware))
        for hardware in HARDWARE
        if not hardware.is_cpu and hardware.memory_gib > ask.hardware.memory_gib
    ]
    if free != one_of:
        wider.append(("parallel sizes of the planner", free))
    if ask.context > SHORT_CONTEXT:
        shorter = replace(one_of, context=SHORT_CONTEXT, prompt_tokens=None, answer_tokens=None)
        wider.append((f"--context {SHORT_CONTEXT}", shorter))
    fits = [
        f"{change} on {found.devices} x {other.hardware.name}"
        for change, other in wider
        if (found := _placed(other)) is not None
    ]
    return DoesNotFitError(
        f"{ask.model} in {ask.weights} does not fit {where}: weights "
        f"{largest.weight_bytes / GIB:.1f} GiB and one sequence of {ask.context} tokens "
        f"{one / GIB:.1f} GiB are {missing / GIB:.1f} GiB too much beside the reserve",
        param="hardware",
        hint=f"what fits: {'; '.join(fits)}"
        if fits
        else "nothing in the table fits; use more hosts",
    )


def _rates(deployment: Deployment, batch: int, prompt: int, answer: int) -> Rates:
    reached, hardware = calibrated(), deployment.hardware
    prefill_s = deployment.prefill_s(prompt)
    prefill = _rate(prompt / prefill_s * reached.prefill, hardware)
    if not deployment.model.generates:
        return Rates(decode=None, prefill=prefill, throughput=None, roofline=None)
    step_s = deployment.decode_step_s(batch, prompt + answer / 2)
    ideal_s = prefill_s + answer * step_s / batch
    real_step_s = step_s / reached.decode + deployment.step_overhead_s
    took_s = prefill_s / reached.prefill + answer * real_step_s / batch
    return Rates(
        decode=_rate(1 / real_step_s, hardware),
        prefill=prefill,
        throughput=_rate(answer / took_s, hardware),
        roofline=answer / ideal_s,
    )


def _rate(expected: float, hardware: Hardware) -> Rate:
    factor = UNMEASURED_FACTOR if hardware.is_cpu else error_factor()
    return Rate(expected=expected, low=expected / factor, high=expected * factor)


def _prices(ask: Ask, deployment: Deployment, rate: Rate | None) -> list[Price]:
    if rate is None:
        return []
    hour = ask.hardware.gpu_hour_usd if ask.gpu_hour_usd is None else ask.gpu_hour_usd
    prices = []
    for capacity_class, share in PRICE_SHARE.items():
        a_second = hour * share * deployment.devices / 3600
        prices.append(
            Price(
                capacity_class=capacity_class,
                gpu_hour_usd=hour * share,
                expected_usd=a_second / rate.expected * 1e6,
                low_usd=a_second / rate.high * 1e6,
                high_usd=a_second / rate.low * 1e6,
            )
        )
    return prices


def _start_up(deployment: Deployment) -> list[StartUp]:
    hardware = deployment.hardware
    fixed_s = CPU_START_S if hardware.is_cpu else GPU_START_S
    hosts = -(-deployment.devices // hardware.gpus_a_host)
    to_devices = hardware.host_gb_s * deployment.devices
    starts = []
    for storage in STORAGE:
        read_s = deployment.weight_bytes / 1e9 / min(storage.gb_s * hosts, to_devices)
        starts.append(StartUp(storage=storage.name, read_s=read_s, start_s=fixed_s + read_s))
    return starts
