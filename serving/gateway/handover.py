"""What a worker gets from its supervisor when it starts: three open descriptors."""

from collections.abc import Sequence
from dataclasses import dataclass

FLAG = "--worker"

READY = b"1"
"""What a worker writes when it serves, and again for as long as it does (`pulse`)."""

PATIENCE_S = 5.0
"""How long a worker waits for its first table of models and keys before it takes requests, where
none is on disk: its predecessor serves meanwhile."""


@dataclass(frozen=True, slots=True)
class Handover:
    """The descriptors."""

    listening: int  # where to accept connections
    ready: int  # where to write READY, and to beat
    life: int  # at its end of file the supervisor is gone

    def arguments(self) -> list[str]:
        """As they stand on the worker's command line."""
        return [FLAG, f"{self.listening},{self.ready},{self.life}"]


def handover_of(argv: Sequence[str]) -> Handover | None:
    """What stands on a command line, without the program's name; None where nothing does.

    Raises:
        ValueError: If what stands there is no handover.
    """
    if not argv:
        return None
    if len(argv) != 2 or argv[0] != FLAG:
        raise ValueError(f"{FLAG} is for `penstock gateway` to use; settings come by environment")
    listening, ready, life = (int(part) for part in argv[1].split(","))
    return Handover(listening, ready, life)
