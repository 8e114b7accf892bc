"""What the admin API shows of LoRA adapters, and takes; shared by the controller and the CLI.

Below `/admin/v1/models/{name}`: GET /adapters -> Items[AdapterView], PUT /adapters/{adapter}
NewAdapter -> Applied,
DELETE /adapters/{adapter} -> Applied.
"""

from pydantic import BaseModel, ConfigDict

from models.manifest import Source
from serving.views import View


class NewAdapter(BaseModel):
    """An adapter to be served, or another source for one."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    source: Source
    """Where it is: `file:///folder`, `hf://org/name@revision`, `s3://bucket/prefix`, ..."""


class AdapterView(View):
    """An adapter of a model, and how far its engines are with it."""

    name: str
    served: str
    """What tenants call."""
    source: str
    """Pinned, where its kind can be."""
    loaded: int
    """Engines that are ready and have it."""
    engines: int
    """Engines that are ready."""
    error: str | None = None
    """Why an engine could not load it; it tries again."""
    hint: str | None = None
