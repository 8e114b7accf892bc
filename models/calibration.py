"""How much of the roofline is reached: two efficiencies, fitted on two published measurements.

A request of `p` prompt and `o` answer tokens, in a full batch of B, takes of its engine

    T = p-token prefill / prefill efficiency
        + o / B x (decode step(B) / decode efficiency + overhead of a step)

because prompts and answers share the same steps (chunked prefill: their times add up). With the
roofline's times on two measured points this is two linear equations in two unknowns. The error
on the points that the fit did not see is the error bar of every prediction.
"""

from dataclasses import dataclass
from functools import cache

from models.architecture import Architecture
from models.config_json import read_architecture
from models.hardware import hardware_named
from models.precision import Precision
from models.roofline import Deployment

SLOTS = 1024
"""Sequences at once at most: vLLM's default for offline work on large devices."""
BATCHED_TOKENS = 8192
"""Tokens of one step: vLLM's default for serving on large devices."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the roofline that are reached."""

    prefill: float
    decode: float

    @property
    def is_possible(self) -> bool:
        """Whether both are shares: a fit on contradicting points gives others."""
        return 0 < self.prefill <= 1 and 0 < self.decode <= 1


@dataclass(frozen=True, slots=True)
class Point:
    """A published measurement of throughput."""

    name: str
    deployment: Deployment
    prompt_tokens: int
    answer_tokens: int
    tokens_s_a_device: float
    """Measured answer tokens/s of one device."""
    source: str

    @property
    def batch(self) -> int:
        """Sequences at once: what memory holds. No source says it."""
        tokens = self.prompt_tokens + self.answer_tokens
        return self.deployment.sequences(tokens, BATCHED_TOKENS, SLOTS, SLOTS)

    def ideal_s(self) -> tuple[float, float]:
        """Seconds of prefill and of decode for one request, on the roofline."""
        context = self.prompt_tokens + self.answer_tokens / 2
        step_s = self.deployment.decode_step_s(self.batch, context)
        return (
            self.deployment.prefill_s(self.prompt_tokens),
            self.answer_tokens * step_s / self.batch,
        )

    @property
    def overhead_s(self) -> float:
        """A request's share of what its steps take beside the devices' work."""
        return self.answer_tokens * self.deployment.step_overhead_s / self.batch

    @property
    def measured_s(self) -> float:
        """Seconds that one request took of its engine's devices."""
        engine = self.tokens_s_a_device * self.deployment.devices
        return self.answer_tokens / engine - self.overhead_s

    def predicted(self, efficiency: Efficiency) -> float:
        """Answer tokens/s of one device, as the planner predicts it."""
        prefill_s, decode_s = self.ideal_s()
        took_s = prefill_s / efficiency.prefill + decode_s / efficiency.decode + self.overhead_s
        return self.answer_tokens / took_s / self.deployment.devices


def _llama(
    hidden: int, inner: int, layers: int, heads: int, vocabulary: int, context: int
) -> Architecture:
    return read_architecture(
        {
            "architectures": ["LlamaForCausalLM"], "hidden_size": hidden,
            "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": 8, "vocab_size": vocabulary, "max_position_embeddings": context,
        }
    )  # fmt: skip


LLAMA_3_1_8B = _llama(4096, 14336, 32, 32, 128256, 131072)
LLAMA_3_3_70B = _llama(8192, 28672, 80, 64, 128256, 131072)
LLAMA_3_1_405B = _llama(16384, 53248, 126, 128, 128256, 131072)
LLAMA_2_70B = _llama(8192, 28672, 80, 64, 32000, 4096)

_MLPERF = "MLPerf Inference v5.1, datacenter closed"
_H100, _H200, _GB200 = (hardware_named(name) for name in ("h100", "h200", "gb200"))

POINTS = (
    Point(
        "Llama 3.1 8B FP8, one H100, vLLM, offline",
        Deployment(LLAMA_3_1_8B, _H100, Precision.FP8, Precision.FP8),
        778, 128, 5777, f"{_MLPERF}; CNN/DailyMail",
    ),
    Point(
        "Llama 3.3 70B FP8, 2 x H200, TensorRT-LLM, 1000/1000",
        Deployment(LLAMA_3_3_70B, _H200, Precision.FP8, Precision.FP8, tensor_parallel=2),
        1000, 1000, 2587, "TensorRT-LLM performance overview",
    ),
    Point(
        "Llama 2 70B FP8, 8 x H200, offline",
        Deployment(LLAMA_2_70B, _H200, Precision.FP8, Precision.FP8),
        294, 294, 4415, f"{_MLPERF}; OpenOrca; one engine a GPU assumed",
    ),
    Point(
        "Llama 3.1 405B FP4, 72 x GB200",
        Deployment(LLAMA_3_1_405B, _GB200, Precision.NVFP4, Precision.FP8, tensor_parallel=4),
        9428, 684, 205, f"{_MLPERF}; LongBench and others; engines of 4 GPUs assumed",
    ),
)  # fmt: skip
"""Rates are the sources'. Point 3's mean answer is in MLPerf's rules (294.45 tokens); the other
mean lengths of its sets, the batches and the split into engines are our assumptions."""

FITTED = (0, 1)
"""The points that the efficiencies are fitted on: vLLM itself, and one with another share of
prefill. Only three of the six pairs have a solution; the documentation shows all."""


def fit(first: Point, second: Point) -> Efficiency | None:
    """The efficiencies with which both points come out exactly; none where none do."""
    (p1, d1), (p2, d2) = first.ideal_s(), second.ideal_s()
    determinant = p1 * d2 - p2 * d1
    inverse_prefill = (first.measured_s * d2 - second.measured_s * d1) / determinant
    inverse_decode = (p1 * second.measured_s - p2 * first.measured_s) / determinant
    if inverse_prefill <= 0 or inverse_decode <= 0:
        return None
    return Efficiency(1 / inverse_prefill, 1 / inverse_decode)


@cache
def calibrated() -> Efficiency:
    """The efficiencies of every prediction.

    Raises:
        ArithmeticError: If the points of the fit contradict each other: a fault of this table.
    """
    found = fit(POINTS[FITTED[0]], POINTS[FITTED[1]])
    if found is None or not found.is_possible:
        raise ArithmeticError(f"the fitted points give impossible efficiencies: {found}")
    return found


@cache
def error_factor() -> float:
    """By what factor a prediction may be off, up or down: the worst over all points."""
    ratios = [point.predicted(calibrated()) / point.tokens_s_a_device for point in POINTS]
    return max(max(ratio, 1 / ratio) for ratio in ratios)
