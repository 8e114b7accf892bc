"""Number formats of weights and KV cache, and what a value of each takes; scales included."""

from enum import StrEnum


class Precision(StrEnum):
    """A format of numbers."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP8 = "fp8"
    INT4 = "int4"
    MXFP4 = "mxfp4"
    NVFP4 = "nvfp4"

    @property
    def bytes(self) -> float:
        """Bytes of one value, with its share of the scales."""
        return _BYTES[self]

    @property
    def is_kv(self) -> bool:
        """Whether vLLM keeps keys and values in it."""
        return self in (Precision.FP32, Precision.BF16, Precision.FP8)


_BYTES = {
    Precision.FP32: 4.0,
    Precision.BF16: 2.0,
    Precision.FP8: 1.0,  # a scale for each tensor, channel or 128 x 128 block: under 0.1 %
    Precision.INT4: (4 + (16 + 4) / 128) / 8,  # AWQ and GPTQ: 16-bit scale, 4-bit zero a 128-group
    Precision.MXFP4: (4 + 8 / 32) / 8,  # OCP Microscaling v1.0: an 8-bit scale for 32 values
    Precision.NVFP4: (4 + 8 / 16) / 8,  # an FP8 scale for 16 values
}
