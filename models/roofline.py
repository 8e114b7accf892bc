"""How fast a model can be on a machine at best: bytes to read and operations to do, over peaks.

The roofline (Williams, Waterman, Patterson, CACM 2009): a step takes as long as the slower of its
memory traffic and its arithmetic. For transformers: Pope et al., "Efficiently Scaling Transformer
Inference" (2022), section 3 and appendix A. The times here are ideal; `models.calibration` knows
what is reached of them.

    weights of a decode step   dense values + experts that the batch touches, each read once
    cache of a decode step     batch x bytes of one sequence
    operations of a token      2 x active parameters + attention over its context
    all-reduce of a layer      two, each 2 (n-1)/n x tokens x hidden x 2 bytes (ring) + latency
"""

from dataclasses import dataclass

from models.architecture import Architecture
from models.hardware import GIB, TERA, Hardware
from models.precision import Precision

ALL_REDUCE_S = 5e-6
"""Latency of one all-reduce among peers: assumed."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model in given formats on given devices: one engine."""

    model: Architecture
    hardware: Hardware
    weights: Precision
    cache: Precision
    tensor_parallel: int = 1
    pipeline_parallel: int = 1

    @property
    def devices(self) -> int:
        """Devices of the engine."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights. Quantized are the layers' matrices (with MXFP4, as gpt-oss has
        it, the experts' only); embedding, head, norms and a vision tower stay at 16 bits."""
        return self._bytes(self.model.expert_values)

    def _bytes(self, expert_values: float) -> float:
        plain = Precision.FP32 if self.weights is Precision.FP32 else Precision.BF16
        dense = plain if self.weights is Precision.MXFP4 else self.weights
        rest = self.model.embedding_values + self.model.other_values + self.model.norm_values
        return (
            expert_values * self.weights.bytes
            + self.model.dense_values * dense.bytes
            + rest * plain.bytes
        )

    def weight_bytes_read(self, tokens: float) -> float:
        """Bytes of the weights that a batch of so many tokens reads."""
        return self._bytes(self.model.expert_values_read(tokens))

    def cache_bytes(self, tokens: float) -> float:
        """Bytes of the cache of one sequence, on all devices together, copies counted."""
        values = self.model.cache_values(tokens, self.tensor_parallel)
        return values * self.tensor_parallel * self.cache.bytes

    @property
    def cache_bytes_a_token(self) -> float:
        """Bytes that a further token adds while it is in no window's way, without copies."""
        values = self.model.cache_values(2) - self.model.cache_values(1)
        return values * self.cache.bytes

    def decode_step_s(self, batch: float, context: float) -> float:
        """Seconds of one step that adds a token to each of `batch` sequences, at best."""
        memory_s = self.decode_memory_s(batch, context)
        return max(memory_s, self.arithmetic_s(batch, context)) + self.exchange_s(batch)

    def decode_memory_s(self, batch: float, context: float) -> float:
        """Seconds that such a step takes to read weights and cache, at best."""
        moved = self.weight_bytes_read(batch) + batch * self.cache_bytes(context)
        return moved / (self.devices * self.hardware.bandwidth_tb_s * TERA)

    @property
    def step_overhead_s(self) -> float:
        """Seconds that each step takes beside the device's work; a small model's are mostly it."""
        return CPU_STEP_S if self.hardware.is_cpu else GPU_STEP_S

    def prefill_s(self, tokens: float) -> float:
        """Seconds to take in one prompt of so many tokens, in a batch with others, at best.

        The weights' bytes are not counted: prompts are taken in by the thousands of tokens.
        """
        # A token sees half of the prompt on average.
        latency_s = self.exchange_s(tokens) - self._latency_s
        return self.arithmetic_s(tokens, tokens / 2) + latency_s

    def arithmetic_s(self, tokens: float, context: float) -> float:
        """Seconds of the arithmetic for so many tokens that see so much context, at best."""
        matrices_s = 2 * self.model.active_parameters / self.hardware.peak_flops(self.weights)
        attention = self.model.attention_flops(context)
        attention_s = attention / self.hardware.peak_flops(Precision.BF16)
        return tokens * (matrices_s + attention_s) / self.devices

    @property
    def _latency_s(self) -> float:
        return 2 * self.model.layers * ALL_REDUCE_S if self.tensor_parallel > 1 else 0.0

    def exchange_s(self, tokens: float) -> float:
        """Seconds that the ranks take to add up their parts of so many tokens' values."""
        ranks = self.tensor_parallel
        if ranks == 1:
            return 0.0
        # Stages of a pipeline exchange at the same time, for different tokens.
        moved = 2 * (ranks - 1) / ranks * tokens * self.model.hidden * 2
        one_way = self.hardware.link_gb_s * 1e9 / 2
        layers = self.model.layers / self.pipeline_parallel
        return 2 * layers * moved / one_way + self._latency_s

    # --- memory ------------------------------------------------------------------------------

    def reserve_bytes(self, batched_tokens: int, sequences: int) -> float:
        """Bytes that each device needs beside weights and cache.

        Activations of the largest batch (a residual, its norm and the inner values of one layer,
        at 16 bits), logits twice at 32 bits, and flat sums for context, libraries and graphs,
        which are assumed: vLLM measures them at start-up.
        """
        model, ranks = self.model, self.tensor_parallel
        inner = 4 * model.hidden + 3 * model.width / ranks
        logits = sequences * model.vocabulary * 8 / ranks if model.generates else 0
        activations = batched_tokens * inner * 2 + logits
        if self.hardware.is_cpu:
            return activations + CPU_PROCESS_GIB * GIB
        flat = CONTEXT_GIB + GRAPHS_GIB + (PEERS_GIB if self.devices > 1 else 0)
        return activations + flat * GIB

    def usable_bytes(self) -> float:
        """Bytes of one device that an engine may take."""
        share = CPU_SHARE if self.hardware.is_cpu else GPU_SHARE
        return share * self.hardware.memory_gib * GIB

    def room_bytes(self, batched_tokens: int, sequences: int) -> float:
        """Bytes for the cache on each device; negative: what is missing."""
        # Stages are uneven where the layers do not divide.
        stage = -(-self.model.layers // self.pipeline_parallel) / self.model.layers
        weights = self.weight_bytes * stage / self.tensor_parallel
        return self.usable_bytes() - weights - self.reserve_bytes(batched_tokens, sequences)

    def sequences(self, tokens: int, batched_tokens: int, slots: int, most: int) -> int:
        """Sequences of so many tokens whose cache fits at once, `most` at most; 0 if not one.

        `slots` are the sequences for whose logits memory is set aside.
        """
        room = self.room_bytes(batched_tokens, slots)
        if room < 0:
            return 0
        stage = -(-self.model.layers // self.pipeline_parallel) / self.model.layers
        each = self.model.cache_values(tokens, self.tensor_parallel) * stage * self.cache.bytes
        return most if each == 0 else min(most, int(room // each))


GPU_STEP_S = 2e-3
"""Scheduling, launching and sampling of one step, on a GPU: assumed."""
CPU_STEP_S = 5e-3
"""The same on a CPU: 64 sequences of a 4M-parameter model took 11 ms, half of it arithmetic."""
GPU_SHARE = 0.92
"""vLLM 0.32's default gpu_memory_utilization."""
CPU_SHARE = 0.7
"""Never 0.92 of the RAM of a machine that others use."""
CONTEXT_GIB = 1.0
"""CUDA context, libraries and workspaces of one device: assumed."""
GRAPHS_GIB = 1.0
"""CUDA graphs of one device: assumed."""
PEERS_GIB = 1.0
"""Buffers for talking to peers, of one device: assumed."""
CPU_PROCESS_GIB = 1.0
"""Interpreter and libraries of an engine on a CPU: 646 MB and 150 MB were measured."""
