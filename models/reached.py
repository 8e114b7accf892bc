"""How much of the roofline a measured run reached, with the formulas; pure, the run is given.

memory limit    batch / seconds to read the weights once and each sequence's cache
compute limit   batch / seconds of the batch's arithmetic
decode limit    batch / (the longer of the two + what the ranks exchange)
limit of a run  answer / (prefill of its prompt + answer / decode limit): prompts share the steps
"""

import math
from dataclasses import dataclass

from models.errors import BadRequestError
from models.hardware import TERA
from models.precision import Precision
from models.roofline import Deployment


@dataclass(frozen=True, slots=True)
class Load:
    """What ran, as it was measured; means over the run."""

    batch: float
    """Sequences at once in the engine."""
    prompt_tokens: float
    """Of a request, those aside that were cached."""
    answer_tokens: float
    tokens_s: float
    """Answer tokens/s over the whole run."""
    tpot_s: float | None = None
    """Seconds of each token after the first; None: nobody measured it."""

    @property
    def context(self) -> float:
        """Tokens that a sequence has on average while it answers."""
        return self.prompt_tokens + self.answer_tokens / 2


@dataclass(frozen=True, slots=True)
class Reached:
    """A run beside its limits, in answer tokens/s of the engine."""

    deployment: Deployment
    load: Load
    memory_limit: float
    compute_limit: float
    decode_limit: float
    run_limit: float

    @property
    def share(self) -> float:
        """What the run reached of its limit; above 1 where the limit's assumptions do not hold, as
        of a model that stays in a CPU's caches."""
        return self.load.tokens_s / self.run_limit

    @property
    def decode_tokens_s(self) -> float | None:
        """Tokens/s while all sequences decode: the batch over the time of a token."""
        return None if not self.load.tpot_s else self.load.batch / self.load.tpot_s

    @property
    def decode_share(self) -> float | None:
        """The same of its limit."""
        decode = self.decode_tokens_s
        return None if decode is None else decode / self.decode_limit

    @property
    def bound(self) -> str:
        """What limits the decode: `memory` or `compute`."""
        return "memory" if self.memory_limit <= self.compute_limit else "compute"


def reached(deployment: Deployment, load: Load) -> Reached:
    """Holds a run against the roofline.

    Raises:
        BadRequestError: If a figure of the run is no number, or none that can be.
    """
    figures = (load.batch, load.prompt_tokens, load.answer_tokens, load.tokens_s)
    if not all(math.isfinite(figure) and figure >= 0 for figure in (*figures, load.tpot_s or 0.0)):
        raise BadRequestError(f"the run's figures are no numbers: {load}")
    if load.batch <= 0 or load.answer_tokens <= 0:
        raise BadRequestError("the run answered nothing: there is nothing to compare")
    step_s = deployment.decode_step_s(load.batch, load.context)
    prefill_s = deployment.prefill_s(load.prompt_tokens) if load.prompt_tokens else 0.0
    decode_limit = load.batch / step_s
    return Reached(
        deployment,
        load,
        memory_limit=load.batch / deployment.decode_memory_s(load.batch, load.context),
        compute_limit=load.batch / deployment.arithmetic_s(load.batch, load.context),
        decode_limit=decode_limit,
        run_limit=load.answer_tokens / (prefill_s + load.answer_tokens / decode_limit),
    )


def formulas(found: Reached) -> list[str]:
    """Each limit's formula with the numbers put in."""
    deployment, load = found.deployment, found.load
    hardware, model = deployment.hardware, deployment.model
    ranks = f"{deployment.devices} x "
    weights_gb = deployment.weight_bytes_read(load.batch) / 1e9
    cache_gb = deployment.cache_bytes(load.context) / 1e9
    peak = hardware.peak_flops(deployment.weights) / TERA
    peak_16 = hardware.peak_flops(Precision.BF16) / TERA
    matrices_g = 2 * model.active_parameters / 1e9
    attention_g = model.attention_flops(load.context) / 1e9
    lines = [
        "memory: batch x bandwidth / (weights + batch x cache of a sequence) = "
        f"{load.batch:.4g} x {ranks}{hardware.bandwidth_tb_s * 1000:.4g} GB/s / "
        f"({weights_gb:.4g} GB + {load.batch:.4g} x {cache_gb:.4g} GB) = "
        f"{found.memory_limit:,.4g} tokens/s",
        "compute: devices / (2 x active parameters / peak + attention / 16-bit peak) = "
        f"{deployment.devices} / ({matrices_g:.4g} GFLOP / {peak:.4g} TFLOP/s + "
        f"{attention_g:.4g} GFLOP / {peak_16:.4g} TFLOP/s) = {found.compute_limit:,.4g} tokens/s",
    ]
    if deployment.tensor_parallel > 1:
        exchange_ms = deployment.exchange_s(load.batch) * 1000
        lines.append(f"decode: the lower of both, and {exchange_ms:.3g} ms of exchange a step = "
                     f"{found.decode_limit:,.4g} tokens/s")  # fmt: skip
    prefill_ms = deployment.prefill_s(load.prompt_tokens) * 1000 if load.prompt_tokens else 0.0
    lines.append(
        "run: answer / (prefill + answer / decode limit) = "
        f"{load.answer_tokens:.4g} / ({prefill_ms:.4g} ms + {load.answer_tokens:.4g} / "
        f"{found.decode_limit:,.4g} a second) = {found.run_limit:,.4g} tokens/s"
    )
    return lines
