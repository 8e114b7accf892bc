"""How limits hold over many gateways: what gateways tell the controller, and are told.

    POST /internal/v1/limits    ShareReport -> ShareReply

A meter counts what one scope used of one limit: `requests`, `input` and `output` in any 60 s,
`concurrent` at this moment, `day` and `month` in picodollars. The controller hands each gateway a
share of a meter's limit: as much as the gateway may have on its own meter. It never hands out
more than the limit, and takes a share back only when the gateway has told that it let go of it.
"""

from enum import StrEnum

from serving.messages import Message

REPORT_S = 0.25
"""Gateways report meters in use this often, and at once where a request waits for a share."""

LEASE_S = 20.0
"""A gateway that has not been answered for so long holds no share any more."""


class MeterKind(StrEnum):
    """What a meter counts."""

    REQUESTS = "requests"
    INPUT = "input"
    OUTPUT = "output"
    CONCURRENT = "concurrent"
    DAY = "day"
    MONTH = "month"


FIELD_OF = {
    MeterKind.REQUESTS: "requests_per_min",
    MeterKind.INPUT: "input_tokens_per_min",
    MeterKind.OUTPUT: "output_tokens_per_min",
    MeterKind.CONCURRENT: "concurrent",
    MeterKind.DAY: "budget_day",
    MeterKind.MONTH: "budget_month",
}
"""The field of a limit that a meter is held against."""


class MeterReport(Message):
    """What a gateway has on one meter."""

    limit_id: str
    kind: MeterKind
    used: int
    held: int
    """What it may still go up to: its share, or what it used where that is more."""
    wanted: int
    """What was asked for in the last seconds, refused or not: shares follow it."""
    short: int = 0
    """What requests wait for at this moment, beyond what it holds."""
    period: str = ""
    """Of a budget: the day or month that `used` is of."""


class ShareReport(Message):
    """The meters of one gateway that are in use."""

    gateway_id: str
    meters: tuple[MeterReport, ...] = ()


class Share(Message):
    """What a gateway may go up to on one meter."""

    limit_id: str
    kind: MeterKind
    granted: int
    more: bool = False
    """Others hold what they do not use, and will let go of it: ask again soon."""


class ShareReply(Message):
    """The answer to a report, a share for each meter of it that still has a limit."""

    shares: tuple[Share, ...] = ()
