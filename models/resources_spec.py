"""The part of a manifest that says what one engine needs of a machine."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from models.strict import Strict


class ResourcesSpec(Strict):
    """What one engine needs of a machine."""

    accelerator: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] = "cpu"
    """`cpu`, or the accelerator's name in lower case: `h200`, `gb200`, `h100`, `a100`, ..."""
    gpus: int = Field(default=0, ge=0, le=64)
    """Accelerators of one engine; 0 on a CPU."""
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    """Ranks over which each layer is split."""
    pipeline_parallel: int = Field(default=1, ge=1, le=64)
    """Stages over which the layers are split."""
    hosts: int = Field(default=1, ge=1, le=64)
    """Hosts of one engine, which share its accelerators and ranks evenly: a gang, of which the
    first one serves. All of them are bound at once, or none."""
    memory_gib: float = Field(default=2.0, gt=0, le=8192)
    """Host memory of one engine in GiB: its start is refused where less is free."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, of_all in (("ranks", self.ranks), ("gpus", self.gpus)):
            if of_all % self.hosts:
                raise ValueError(f"{of_all} {name} cannot be shared evenly by {self.hosts} hosts")
        if self.accelerator == "cpu":
            if self.gpus:
                raise ValueError("gpus must be 0 where accelerator is cpu")
        elif self.gpus == 0:
            raise ValueError(f"gpus must be at least 1 where accelerator is {self.accelerator}")
        elif self.ranks > self.gpus:
            raise ValueError(
                f"tensor_parallel x pipeline_parallel = {self.ranks} ranks, but gpus is {self.gpus}"
            )
        return self

    @property
    def ranks(self) -> int:
        """Processes that compute, of one engine on all its hosts."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def pool(self) -> str:
        """Name of the pool whose hosts have this shape: `cpu`, `h200x1`, `h200x8`, ..."""
        if self.accelerator == "cpu":
            return "cpu"
        return f"{self.accelerator}x{self.gpus // self.hosts}"
