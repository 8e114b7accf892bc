"""What queue and balancer know of one request that wants a slot."""

from dataclasses import dataclass, field
from enum import StrEnum


class Tier(StrEnum):
    """OpenAI's classes of service, as the queue treats them."""

    PRIORITY = "priority"
    DEFAULT = "default"
    FLEX = "flex"


def tier_of(service_tier: str | None) -> Tier:
    """The class that a request's `service_tier` asks for; `auto` and none are the default."""
    match service_tier:
        case "priority":
            return Tier.PRIORITY
        case "flex":
            return Tier.FLEX
        case _:
            return Tier.DEFAULT


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place; it keeps its age when an engine breaks and it waits again."""

    start_id: str  # ours, never the tenant's: it names cold starts across the platform
    arrived_s: float  # monotonic seconds
    deadline_s: float  # monotonic seconds
    avoid: set[str] = field(default_factory=set)  # engine_ids that failed this request
    tenant: str = ""  # who is charged for it
    weight: float = 1.0  # the tenant's share of capacity beside another's
    prefill_share: float = 1.0  # the tenant's part of an engine's prefill limit at this moment
    tier: Tier = Tier.DEFAULT
    prompt_tokens: int = 0  # estimated
    output_tokens: int = 0  # estimated
    adapter: str = ""  # LoRA adapter that its engine must have loaded
    keys: tuple[int, ...] = ()  # for prefix affinity, the most general first
    key: int | None = None  # the one of them that it goes by, once that is known
    tries_new: bool = False  # it goes to a canary's new revision
    died: list[str] = field(default_factory=list)  # engine_ids that died while they had it

    @property
    def on_trial(self) -> bool:
        """Whether it may be what an engine died of: it is tried again beside no other such."""
        return bool(self.died)

    @property
    def tokens(self) -> int:
        """What the request is going to cost, as estimated."""
        return self.prompt_tokens + self.output_tokens
