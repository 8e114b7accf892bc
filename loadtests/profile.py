"""What a run is: a profile, read from `profiles/*.yaml` or built from the command line's flags."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtests.arrivals import RateCurve, constant, day, ramp, spike, steps
from loadtests.dialogues import Dialogues
from loadtests.embeddings import Embeddings
from loadtests.mix import Mix
from loadtests.recordings import Scaling
from loadtests.summary import Gate, Slo, parse_gate
from loadtests.workload import Agent, Chat, Conversation

PROFILES = Path(__file__).parent / "profiles"
TRACES = Path(__file__).parent / "traces"


class ProfileError(Exception):
    """A profile that cannot be used; the message names the field."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Closed(_Part):
    """A fixed number of visitors, the next one coming when one leaves."""

    type: Literal["closed"] = "closed"
    concurrency: int = Field(default=1, ge=1)
    requests: int | None = Field(default=None, ge=1)
    """Visitors after which it ends."""
    duration_s: float | None = Field(default=None, gt=0)
    """Time after which no visitor comes any more."""


class Open(_Part):
    """Visitors that come whatever the server does."""

    type: Literal["open"] = "open"
    shape: Literal["constant", "ramp", "steps", "spike", "day"] = "constant"
    rate_rps: float = Field(default=1.0, gt=0)
    """The rate; of ramps the last, of spikes and days the highest."""
    from_rps: float = Field(default=0.0, ge=0)
    """Where a ramp begins, and what a spike stands on."""
    step_rates_rps: tuple[float, ...] = ()
    """The rates of `steps`, each for an equal part of the time."""
    burstiness: float = Field(default=1.0, gt=0)
    """1 is Poisson, less is burstier, more is more even, as in vLLM's benchmark."""
    duration_s: float = Field(default=60.0, gt=0)

    def curve(self) -> RateCurve:
        """The rate over time."""
        match self.shape:
            case "constant":
                return constant(self.rate_rps, self.duration_s)
            case "ramp":
                return ramp(self.from_rps, self.rate_rps, self.duration_s)
            case "steps":
                return steps(self.step_rates_rps or (self.rate_rps,), self.duration_s)
            case "spike":
                return spike(self.from_rps, self.rate_rps, self.duration_s)
            case "day":
                return day(self.rate_rps, self.duration_s)


class Replay(_Part):
    """The arrivals, lengths and shared prefixes of a trace; the workload is not used."""

    type: Literal["replay"] = "replay"
    trace: str
    """A file, or the name of a shipped trace without its endings."""
    start_s: float = Field(default=0.0, ge=0)
    duration_s: float | None = Field(default=None, gt=0)
    """Of the trace's own time."""
    speed: float = Field(default=1.0, gt=0)
    share: float = Field(default=1.0, gt=0, le=1)
    length: float = Field(default=1.0, gt=0)
    jitter_s: float = Field(default=0.0, ge=0)
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    max_output_tokens: int | None = Field(default=None, ge=1)

    def path(self) -> Path:
        """Where the trace is."""
        shipped = sorted(TRACES.glob(f"{self.trace}.*.gz"))
        return shipped[0] if shipped else Path(self.trace)

    def scaling(self, seed: int) -> Scaling:
        """How it is scaled."""
        return Scaling(seed=seed, **self.model_dump(exclude={"type", "trace"}))


class SloPart(_Part):
    """What each request is promised, in seconds."""

    ttft_s: float | None = Field(default=None, gt=0)
    tpot_s: float | None = Field(default=None, gt=0)
    e2e_s: float | None = Field(default=None, gt=0)


class Profile(_Part):
    """A whole run."""

    about: str = ""
    """What it is for, in one sentence."""
    workload: Annotated[
        Chat | Conversation | Agent | Dialogues | Embeddings | Mix, Field(discriminator="type")
    ] = Field(default_factory=Chat)
    load: Annotated[Closed | Open | Replay, Field(discriminator="type")] = Field(
        default_factory=lambda: Closed(requests=20)
    )
    stream: bool = True
    ignore_eos: bool = False
    """Only for servers that know it, as vLLM."""
    temperature: float | None = 0.0
    warmup: int = Field(default=1, ge=0)
    """Requests that are sent before the run, and not counted."""
    timeout_s: float = Field(default=600.0, gt=0)
    seed: int = 0
    slo: SloPart | None = None
    fail_if: tuple[str, ...] = ()
    """Gates, as `ttft_p99>2` (seconds)."""

    def promised(self) -> Slo | None:
        """The SLO, if there is one."""
        return None if self.slo is None else Slo(**self.slo.model_dump())

    def gates(self) -> tuple[Gate, ...]:
        """The gates.

        Raises:
            ValueError: One of them makes no sense.
        """
        return tuple(parse_gate(text) for text in self.fail_if)


def read(fields: Mapping[str, object]) -> Profile:
    """A profile from its fields.

    Raises:
        ProfileError: A field is unknown or makes no sense.
    """
    try:
        profile = Profile.model_validate(fields)
        profile.gates()
        if isinstance(profile.load, Open):
            profile.load.curve()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ProfileError(f"{place}: {first['msg']}") from error
    except ValueError as error:
        raise ProfileError(str(error)) from error
    return profile


def fields_of(name: str) -> dict[str, object]:
    """The fields of a shipped profile by name, or of a file.

    Raises:
        ProfileError: There is none, or it is no YAML mapping.
    """
    shipped = PROFILES / f"{name}.yaml"
    path = shipped if shipped.exists() else Path(name)
    try:
        fields = yaml.safe_load(path.read_text())
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in PROFILES.glob("*.yaml")))
        raise ProfileError(f"no profile {name!r}; shipped: {known}; or give a file") from error
    except yaml.YAMLError as error:
        raise ProfileError(f"{path} is no YAML: {error}") from error
    if not isinstance(fields, dict):
        raise ProfileError(f"{path} is no mapping")
    return fields
