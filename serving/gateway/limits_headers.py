"""The `x-ratelimit-*` headers, as OpenAI's. Pure."""

from collections.abc import Iterable

from serving.gateway.limits_meter import Meter
from serving.shares import MeterKind

Header = tuple[bytes, bytes]

KINDS = {
    b"requests": (MeterKind.REQUESTS,),
    b"tokens": (MeterKind.INPUT, MeterKind.OUTPUT),
}


def headers_of(meters: Iterable[Meter], at: float) -> list[Header]:
    """Of all meters that touch a request, those with the least left."""
    meters = tuple(meters)
    headers: list[Header] = []
    for name, kinds in KINDS.items():
        tightest: tuple[int, Meter] | None = None
        for meter in meters:
            if meter.kind in kinds:
                left = max(0, meter.limit - meter.book.used(at))
                if tightest is None or left < tightest[0]:
                    tightest = (left, meter)
        if tightest is not None:
            left, meter = tightest
            headers += [
                (b"x-ratelimit-limit-" + name, b"%d" % meter.limit),
                (b"x-ratelimit-remaining-" + name, b"%d" % left),
                (b"x-ratelimit-reset-" + name, duration(meter.book.resets_in_s(at)).encode()),
            ]
    return headers


def duration(seconds: float) -> str:
    """A duration as OpenAI writes it: `120ms`, `1s`, `6m0s`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
