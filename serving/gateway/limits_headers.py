"""The `x-ratelimit-*` headers, as OpenAI's. Pure."""

from collections.abc import Iterable

from serving.gateway.limits_meter import Meter
from serving.shares import MeterKind

Header = tuple[bytes, bytes]

NAMES = {
    MeterKind.REQUESTS: b"requests",
    MeterKind.INPUT: b"tokens",
    MeterKind.OUTPUT: b"tokens",
}


def headers_of(meters: Iterable[Meter], at: float) -> list[Header]:
    """Of all meters that touch a request, those with the least left."""
    tightest: dict[bytes, tuple[int, Meter]] = {}
    for meter in meters:
        name = NAMES.get(meter.kind)
        if name is not None:
            left = max(0, meter.limit - meter.book.used(at))
            if name not in tightest or left < tightest[name][0]:
                tightest[name] = (left, meter)
    headers: list[Header] = []
    for name in (b"requests", b"tokens"):
        if name in tightest:
            left, meter = tightest[name]
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
