"""One moment on both clocks, so that time can be an argument."""

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """Seconds on the monotonic clock, for delays, and since 1970, for people and other machines."""

    s: float
    at: float


def now() -> Moment:
    """This moment."""
    return Moment(s=time.monotonic(), at=time.time())
