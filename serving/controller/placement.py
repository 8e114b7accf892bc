"""What a plan of engines on hosts is made from, and of what: plain data, read by all around it.

`binder` makes the plan. Pure, as that is.
"""

from dataclasses import dataclass
from enum import StrEnum


class Life(StrEnum):
    """What the plan needs to know of an engine's phase."""

    STARTING = "starting"
    READY = "ready"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class SeenEngine:
    """An engine that is bound to a host."""

    engine_id: str
    model: str
    revision: int
    life: Life
    in_flight: int = 0
    bound_s: float = 0.0  # monotonic


@dataclass(frozen=True, slots=True)
class SeenHost:
    """A live host; one that drains has no engine any more and cannot take one yet."""

    host_id: str
    pool: str
    engine: SeenEngine | None = None
    draining: bool = False
    since: float = 0.0  # when it came; the oldest is taken first, for the newest goes first
    dozes: tuple[str, int] | None = None
    """Model and revision of an engine that sleeps on a free host: it wakes for its model, and ends
    for any other."""


@dataclass(frozen=True, slots=True)
class WantedModel:
    """A deployed model and how many engines it shall have."""

    name: str
    revision: int
    pool: str
    target: int
    min: int = 0
    priority: int = 0  # the higher one is served first
    same_engine: frozenset[int] = frozenset()
    """Older revisions whose engine is the current one's: only scaling changed."""
    asked_since_s: float | None = None  # monotonic; the oldest waiting request
    idle_s: float | None = None  # since its last request; None: it has some, or nobody can tell
    retry_at_s: float | None = None  # monotonic; no start before
    avoid: frozenset[str] = frozenset()  # hosts on which the last start failed
    trial_of: str = ""  # the model whose new revision this is, tried on a share of its requests
    replaces: bool = True  # an old engine goes first where no host is free for a new one

    def is_current(self, engine: SeenEngine) -> bool:
        """Whether the engine is what a new start would give."""
        return engine.revision == self.revision or engine.revision in self.same_engine


class UnbindReason(StrEnum):
    """Why an engine loses its host."""

    DELETED = "deleted"
    DEAD = "dead"
    SURPLUS = "surplus"
    OLD_REVISION = "old_revision"
    GIVES_WAY = "gives_way"


@dataclass(frozen=True, slots=True)
class Unbind:
    """Drain and stop the engine of a host."""

    host_id: str
    engine_id: str
    model: str
    reason: UnbindReason


@dataclass(frozen=True, slots=True)
class Bind:
    """Start an engine of the model's current revision on a free host."""

    host_id: str
    model: str
    revision: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in order, and which models wait for a host."""

    actions: tuple[Unbind | Bind, ...] = ()
    waiting: frozenset[str] = frozenset()
