"""What a host and its node's launcher say to each other: JSON lines on a Unix socket.

    host -> launcher    hello | spawn                   one request a connection, the first line
    launcher -> host    hello                           answers hello, then closes
                        refused                         answers a spawn that cannot be done
                        forked, reached..., exited      the life of a spawned engine

The connection of a spawn is the engine's lease. When the host closes it, or shuts down its sending
side, or dies, the launcher ends the engine's process group; `exited` is sent when all of it is
gone. Times are Unix seconds.
"""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from models.errors import BadRequestError
from models.faults import faults_of
from serving.protocol import Message, StartPhase

MAX_LINE_BYTES = 1 << 20
"""No message is longer; a peer that sends more is not one of ours."""

SpawnMode = Literal["auto", "fork", "standby", "exec"]


class HelloRequest(Message):
    """Is the launcher up? It listens only when all is imported, so an answer means warm."""

    op: Literal["hello"] = "hello"


class SpawnRequest(Message):
    """Start one engine."""

    op: Literal["spawn"] = "spawn"
    engine_id: str
    args: tuple[str, ...]
    """vLLM's command line, without host and port."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Added to the launcher's environment."""
    token: str = Field(repr=False)
    """Bearer token that every route of the engine shall ask for."""
    log_path: Path
    """File that the engine's output is appended to."""
    address: str = "127.0.0.1"
    """Address at which the engine shall listen."""
    memory_gib: float = Field(gt=0)
    """Memory that must be free on the node."""
    gpus: tuple[str, ...] = ()
    """Accelerators that the engine takes: it waits until no other engine holds one of them."""
    mode: SpawnMode = "auto"


class Hello(Message):
    """The launcher is up and warm."""

    event: Literal["hello"] = "hello"
    pid: int
    build: str
    """Version of the engine that this launcher starts, as `vllm 0.32.0`."""
    engines: tuple[str, ...] = ()
    """Ids of the engines that run."""
    standbys: int = 0
    """Processes that could become an engine at once, without a fork."""


class Refused(Message):
    """The engine was not started."""

    event: Literal["refused"] = "refused"
    reason: str
    hint: str | None = None


class Forked(Message):
    """The engine's first process runs."""

    event: Literal["forked"] = "forked"
    pid: int
    """Also the id of the engine's process group."""
    port: int
    mode: Literal["fork", "standby", "exec"]
    """An executed engine does not tell when it is ready; a forked one, that it probed itself."""
    at: float


class Reached(Message):
    """The engine has reached a phase of its start."""

    event: Literal["reached"] = "reached"
    phase: StartPhase
    at: float
    max_model_len: int | None = None
    """Told with PROBED."""


class Died(Message):
    """Why the engine ends, in its own words; told to the launcher, which makes it `exited`."""

    event: Literal["died"] = "died"
    cause: str
    hint: str | None = None


class Exited(Message):
    """The engine's process group is gone, to the last process."""

    event: Literal["exited"] = "exited"
    code: int | None = None
    signal: str | None = None
    """Name of the signal that ended the first process, as `SIGKILL`."""
    cause: str
    """One sentence for the operator."""
    hint: str | None = None
    killed: bool = False
    """Somebody killed it from outside: no request is to blame."""


Request = HelloRequest | SpawnRequest
Event = Hello | Refused | Forked | Reached | Died | Exited

_requests: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])
_events: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])

ReadT = TypeVar("ReadT")


def encode(message: Message) -> bytes:
    """One message as one line."""
    return message.model_dump_json().encode() + b"\n"


def decode_request(line: bytes) -> Request:
    """Reads a host's request.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    return _decoded(_requests, line, "a request to a launcher")


def decode_event(line: bytes) -> Event:
    """Reads a launcher's event.

    Raises:
        BadRequestError: Naming the field at fault.
    """
    return _decoded(_events, line, "an event of a launcher")


def _decoded(kind: TypeAdapter[ReadT], line: bytes, what: str) -> ReadT:
    try:
        return kind.validate_json(line)
    except ValidationError as exc:
        raise BadRequestError(f"not {what}: {faults_of(exc)[0].named('line')}") from exc
