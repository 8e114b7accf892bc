"""What is measured, and how much of it: on one H200, and the same in small on a CPU."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from loadtests.gpu.shapes import Shape

LLAMA_8B = Shape("shape-8b", 4096, 14336, 32, 32, 8, 128256, 131072)
LLAMA_70B_FP8 = Shape("shape-70b-fp8", 8192, 28672, 80, 64, 8, 128256, 131072, fp8=True)
TINY = Shape("shape-tiny", 128, 256, 2, 2, 1, 2048, 4096)
SMALL = Shape("shape-small", 256, 512, 4, 4, 2, 2048, 4096)


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a check; plain fields, so that it can be handed to each part's process."""

    cpu: bool
    work: str
    """Folder of this check: models, logs, the platform's data."""
    python: str
    """Interpreter with the platform and vLLM."""
    concurrencies: tuple[int, ...]
    requests: tuple[int, ...]
    """Of a run at each concurrency."""
    input_tokens: int
    output_tokens: int
    rounds: int
    """Runs at each concurrency; their median counts."""
    wakes: int
    burst: int
    """Requests at once to a model that sleeps."""
    slots: int
    max_model_len: int
    roofline_batch: int
    roofline_input: int
    roofline_output: int
    idle_s: float
    """After which a model goes to sleep."""
    accelerator: str = "cpu"

    @property
    def shape(self) -> Shape:
        """The model that most parts measure."""
        return TINY if self.cpu else LLAMA_8B

    @property
    def large(self) -> Shape:
        """The model that is near the machine's limit; on a CPU only another shape."""
        return SMALL if self.cpu else LLAMA_70B_FP8

    @property
    def folder(self) -> Path:
        """The check's folder."""
        return Path(self.work)

    def to_json(self) -> str:
        """For `from_json`."""
        return json.dumps(asdict(self))


def from_json(text: str) -> Plan:
    """A plan from its JSON.

    Raises:
        ValueError: If it is none.
    """
    return TypeAdapter(Plan).validate_json(text)


def on_gpu(work: Path, python: str, accelerator: str) -> Plan:
    """For one GPU of 141 GB."""
    return Plan(
        cpu=False, work=str(work), python=python, accelerator=accelerator,
        concurrencies=(1, 32, 256), requests=(6, 128, 768), input_tokens=256, output_tokens=256,
        rounds=1, wakes=3, burst=64, slots=256, max_model_len=4096, roofline_batch=128,
        roofline_input=768, roofline_output=512, idle_s=2.0,
    )  # fmt: skip


def on_cpu(work: Path, python: str, *, quick: bool) -> Plan:
    """The same in small; its figures mean nothing."""
    return Plan(
        cpu=True, work=str(work), python=python,
        concurrencies=(1, 4) if quick else (1, 8, 16), requests=(2, 8) if quick else (4, 32, 64),
        input_tokens=16, output_tokens=16, rounds=1, wakes=1 if quick else 3,
        burst=4 if quick else 16, slots=16, max_model_len=512, roofline_batch=4,
        roofline_input=32, roofline_output=32, idle_s=1.0,
    )  # fmt: skip
