"""The manifest: the YAML that says what a model is; nothing of where or whether it runs."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema, model_validator

from models.adapters_spec import LoraSpec, check_names
from models.endpoints_spec import EXTERNAL, EndpointSpec
from models.errors import ManifestError
from models.faults import faults_of
from models.resources_spec import ResourcesSpec
from models.rollout_spec import RolloutSpec
from models.scaling_spec import ScalingSpec
from models.sources import Access, is_fetched
from models.strict import Strict
from models.tasks import Task
from models.weights_spec import WeightsSpec, check_source

LONGEST_NAME = 63


def _check_name(name: str) -> str:
    """Says what is wrong with a name, and not which pattern it misses."""
    if len(name) > LONGEST_NAME:
        raise ValueError(f"a name has at most {LONGEST_NAME} characters; this has {len(name)}")
    if name != name.lower():
        raise ValueError(
            f"write it in lower case: {name.lower()!r}; names that differ in case only collide"
        )
    if re.fullmatch(r"[a-z0-9._-]+", name) is None:
        raise ValueError("a name has letters of ASCII, digits, `.`, `_` and `-` only")
    if re.fullmatch(r"[a-z0-9](.*[a-z0-9])?", name) is None:
        raise ValueError("a name must begin and end with a letter or digit")
    return name


Name = Annotated[
    str,
    AfterValidator(_check_name),
    WithJsonSchema({"type": "string", "pattern": "^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"}),
]
Source = Annotated[
    str,
    Field(
        pattern=r"^((builtin|file|hf|s3|gs|https?)://[^\x00-\x1f\x7f]+|external://)$",
        max_length=1024,
    ),
]
EngineArgument = str | int | float | bool
Goal = Literal["throughput", "latency", "balanced"]
"""What an engine is tuned for."""


class EngineSpec(Strict):
    """How vLLM runs the model."""

    max_model_len: int | None = Field(default=None, ge=16, le=10_485_760)
    """Longest sequence in tokens, prompt and completion together; by default the model's limit."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights and activations."""
    quantization: str | None = None
    """vLLM's name of the quantization method, where the weights do not say it themselves."""
    max_num_seqs: int = Field(default=64, ge=1, le=4096)
    """Slots: sequences that one engine runs at once."""
    kv_cache_gib: float | None = Field(default=None, gt=0, le=4096)
    """KV cache of one engine in GiB; by default 0.0625 on a CPU, on a GPU what vLLM finds free."""
    enforce_eager: bool | None = None
    """Skip compilation; if not given, true on a CPU and false on a GPU."""
    tool_parser: str | None = None
    """vLLM's tool-call parser; switches automatic tool choice on."""
    reasoning_parser: str | None = None
    """vLLM's reasoning parser."""
    load_format: str | None = Field(default=None, pattern=r"^[a-z_]{1,32}$")
    """vLLM's load format; by default chosen by source, hardware and what is installed."""
    trust_remote_code: bool = False
    """Run the Python files that the model's authors ship with it, where the platform's settings
    allow that too (allow_remote_code)."""
    spawn: Literal["auto", "fork", "standby", "exec"] = "auto"
    """How the launcher starts the engine: as a fork of itself, in a process that stands by with all
    imports done, or executed anew."""
    build: Name | None = None
    """Build of vLLM that runs the model, by the name that its launcher has on the nodes; by default
    the one that the platform runs itself."""
    lora: LoraSpec | None = None
    """Room for LoRA adapters; by default there is some where the manifest names adapters. Without
    it, the first adapter takes new engines."""
    args: dict[str, EngineArgument] = Field(default_factory=dict)
    """Further vLLM arguments by their long name without dashes, as `{"swap_space": 4}`."""

    @model_validator(mode="after")
    def _leaves_ours_alone(self) -> Self:
        taken = {
            "model", "host", "port", "uds", "api_key", "served_model_name", "tensor_parallel_size",
            "pipeline_parallel_size", "middleware", "root_path", "ssl_keyfile", "ssl_certfile",
            "config", "max_model_len", "dtype", "quantization", "max_num_seqs", "enforce_eager",
            "kv_cache_memory_bytes", "tool_call_parser", "reasoning_parser", "trust_remote_code",
            "load_format", "nnodes", "node_rank", "master_addr", "master_port", "headless",
            "enable_lora", "max_loras", "max_lora_rank", "max_cpu_loras", "lora_modules",
        }  # fmt: skip
        for name in self.args:
            plain = name.lstrip("-").replace("-", "_")
            if plain in taken:
                raise ValueError(f"args.{name} is set by Penstock; use the manifest's own field")
        return self


class AdapterSpec(Strict):
    """A LoRA adapter of the model, served as `model:adapter`."""

    name: Name
    """What tenants call it, after the model's name and a colon."""
    source: Source
    """Where it is, like the model's own source; the deploy pins it to what is there then."""


class Manifest(Strict):
    """One model, as an operator writes it down."""

    apiVersion: Literal["penstock/v1"] = "penstock/v1"
    """Version of this format."""
    kind: Literal["Model"] = "Model"
    """What the document describes."""
    name: Name
    """The name that tenants call: lower-case letters, digits, `.`, `_` and `-`, at most 63."""
    source: Source
    """Where the weights are: `builtin://guide`, `file:///folder`, `hf://org/name@revision`,
    `s3://bucket/prefix`, `gs://bucket/prefix`, `https://host/model.tar.gz`. The deploy pins it to
    what is there then."""
    endpoints: tuple[EndpointSpec, ...] = Field(default=(), max_length=64)
    """OpenAI-compatible servers elsewhere that have the model, in place of a source: tenants call
    them with the same keys, limits and queue. `engine.max_num_seqs` is how many requests each
    gets at once."""
    weights: WeightsSpec = WeightsSpec()
    """How the source's files may be read."""
    profile: Goal | None = None
    """What the engine is tuned for: `throughput`, `latency` or `balanced`. Sets the vLLM arguments
    that the manifest does not give itself, by model and hardware; by default none of them."""
    engine: EngineSpec = EngineSpec()
    """How vLLM runs the model."""
    resources: ResourcesSpec = ResourcesSpec()
    """What one engine needs of a machine."""
    scaling: ScalingSpec = ScalingSpec()
    """How many engines the model has, and when."""
    rollout: RolloutSpec = RolloutSpec()
    """How a new revision takes the place of the old one."""
    adapters: tuple[AdapterSpec, ...] = Field(default=(), max_length=1000)
    """LoRA adapters of the model. They come and go while its engines run."""
    task: Task | None = None
    """What the model is for: `generate`, `embed` or `classify` (a reranker). The deploy finds it
    out where its config.json says so; requests for anything else are then refused."""

    @property
    def is_fetched(self) -> bool:
        """Whether the weights pass through the node cache."""
        if self.endpoints:
            return False
        return is_fetched(self.source, Access(copy=self.weights.copy_to_node))

    @model_validator(mode="before")
    @classmethod
    def _endpoints_stand_for_a_source(cls, document: Any) -> Any:
        if isinstance(document, dict) and document.get("endpoints") and "source" not in document:
            return document | {"source": EXTERNAL}
        return document

    @model_validator(mode="before")
    @classmethod
    def _adapters_need_room(cls, document: Any) -> Any:
        if not isinstance(document, dict) or not document.get("adapters"):
            return document
        engine = document.get("engine")
        if isinstance(engine, dict) and engine.get("lora") is None:
            return document | {"engine": engine | {"lora": {}}}
        return document | {"engine": {"lora": {}}} if engine is None else document

    @model_validator(mode="after")
    def _can_have_adapters(self) -> Self:
        check_names(self.name, tuple(adapter.name for adapter in self.adapters))
        for adapter in self.adapters:
            if adapter.source.startswith(("builtin://", "external://")):
                raise ValueError(f"adapters: {adapter.name} needs a source of files")
            check_source(adapter.source, WeightsSpec())
        if self.engine.lora is not None:
            if self.endpoints:
                raise ValueError("a model that is served elsewhere has no adapters here")
            if self.scaling.idle != "stop":
                raise ValueError("adapters do not outlast an engine's sleep: use scaling.idle stop")
        return self

    @model_validator(mode="after")
    def _can_sleep(self) -> Self:
        if self.scaling.idle != "stop" and self.resources.accelerator == "cpu":
            raise ValueError(
                f"scaling.idle: {self.scaling.idle} needs a GPU: vLLM's sleep mode frees nothing on"
                " a CPU; use stop"
            )
        if self.scaling.idle != "stop" and self.resources.hosts > 1:
            raise ValueError(
                f"scaling.idle: {self.scaling.idle} is for engines of one host; use stop"
            )
        return self

    @model_validator(mode="after")
    def _has_a_readable_source(self) -> Self:
        if not self.endpoints:
            if self.source == EXTERNAL:
                raise ValueError("a model that is served elsewhere needs endpoints")
            check_source(self.source, self.weights)
        elif self.source != EXTERNAL:
            raise ValueError("a manifest has a source or endpoints, not both")
        elif len({endpoint.model for endpoint in self.endpoints}) > 1:
            raise ValueError("all endpoints must have the same model")
        return self


def parse_manifest(document: Any) -> Manifest:
    """Validates one manifest given as plain data.

    Raises:
        ManifestError: Naming the first field at fault in `param`, and all of them in the message.
    """
    if not isinstance(document, dict):
        raise ManifestError("a manifest must be a mapping of fields to values")
    try:
        return Manifest.model_validate(document)
    except ValidationError as exc:
        faults = faults_of(exc)
        message = "; ".join(fault.named("manifest") for fault in faults)
        hint = next((fault.hint for fault in faults if fault.hint), None)
        raise ManifestError(message, param=faults[0].field or "manifest", hint=hint) from exc


def load_manifest(path: Path) -> Manifest:
    """Reads one manifest from a YAML file.

    Raises:
        ManifestError: If the file cannot be read, is not YAML, holds more than one document,
            or is not a valid manifest.
    """
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text("utf-8")) if d is not None]
    except (OSError, UnicodeDecodeError) as exc:
        raise ManifestError(
            f"cannot read {path}", hint="check the path and its permissions"
        ) from exc
    except yaml.YAMLError as exc:
        raise ManifestError(f"{path} is not valid YAML: {_first_line(exc)}") from exc
    if len(documents) != 1:
        raise ManifestError(f"{path} holds {len(documents)} documents; one manifest is expected")
    return parse_manifest(documents[0])


def _first_line(exc: yaml.YAMLError) -> str:
    mark = getattr(exc, "problem_mark", None)
    problem = getattr(exc, "problem", None) or "unreadable"
    return f"{problem} in line {mark.line + 1}" if mark is not None else str(problem)
