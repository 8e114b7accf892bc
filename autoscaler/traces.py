"""Reads recorded arrivals, and scales their rate; knows nothing of engines.

Two formats, each plain or gzipped, told apart by their first line:

- Azure LLM inference traces: CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens
  (Patel et al., "Splitwise", ISCA 2024).
- Mooncake: JSON lines with `timestamp` (milliseconds), `input_length`, `output_length`
  (Qin et al., "Mooncake", FAST 2025); `hash_ids` are not used.
"""

import gzip
import json
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import BadRequestError

AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
JITTER_S = 1.0
"""The copies of a scaled arrival spread evenly over this time after it."""
EPOCH = datetime(2020, 1, 1)
MAX_TOKENS = 100_000_000
"""A longer prompt or completion is a broken line."""


class TraceError(BadRequestError):
    """A trace that cannot be read, is empty, or has a broken line."""

    code = "invalid_trace"


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in the order of their arrival; arrays of equal length."""

    name: str
    arrival_s: npt.NDArray[np.float64]  # seconds since the trace began, ascending
    prompt: npt.NDArray[np.int64]  # tokens, at least 1
    output: npt.NDArray[np.int64]  # tokens, at least 1

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def duration_s(self) -> float:
        """Until the last arrival."""
        return float(self.arrival_s[-1]) if len(self) else 0.0


def make_trace(name: str, arrivals: list[tuple[float, int, int]]) -> Trace:
    """A trace from (arrival in seconds, prompt tokens, output tokens), in any order.

    The first arrival becomes time 0.

    Raises:
        TraceError: If there is no arrival.
    """
    if not arrivals:
        raise TraceError(f"{name} holds no request", param="trace")
    order = sorted(arrivals)
    start_s = order[0][0]
    return Trace(
        name=name,
        arrival_s=np.array([at_s - start_s for at_s, _, _ in order], dtype=np.float64),
        prompt=np.array([prompt for _, prompt, _ in order], dtype=np.int64),
        output=np.array([output for _, _, output in order], dtype=np.int64),
    )


def load_trace(path: Path) -> Trace:
    """Reads a trace.

    Raises:
        TraceError: If the file cannot be read or is empty; a broken line is named by its number.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as exc:
        raise TraceError(f"cannot read the trace {path}", param="trace") from exc
    lines = text.splitlines()
    if not any(line.strip() for line in lines):
        raise TraceError(f"{path.name} is empty", param="trace")
    if lines[0].strip() == AZURE_HEADER:
        parse, first = _parse_azure, 2
    elif lines[0].lstrip().startswith("{"):
        parse, first = _parse_mooncake, 1
    else:
        raise TraceError(
            f"{path.name} line 1: neither the header {AZURE_HEADER} nor a JSON object",
            param="trace",
        )
    arrivals = []
    for number, line in enumerate(lines[first - 1 :], start=first):
        if not line.strip():
            continue
        try:
            arrivals.append(_checked(*parse(line)))
        except (ValueError, KeyError, TypeError) as exc:
            raise TraceError(f"{path.name} line {number}: {exc}", param="trace") from exc
    return make_trace(path.name, arrivals)


def scale_rate(trace: Trace, factor: float, seed: int) -> Trace:
    """Each arrival becomes a Poisson number of copies, mean `factor`, within JITTER_S after it.

    A factor of 1 leaves the trace as it is.

    Raises:
        TraceError: If the factor is not a positive number, or nothing is left of the trace.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise TraceError("the rate scale must be a positive number", param="rate_scale")
    if factor == 1:
        return trace
    random = np.random.default_rng(seed)
    copies = random.poisson(factor, len(trace))
    origin = np.repeat(np.arange(len(trace)), copies)
    if not len(origin):
        raise TraceError(f"nothing is left of {trace.name} at this rate", param="rate_scale")
    arrival_s = trace.arrival_s[origin] + random.uniform(0.0, JITTER_S, len(origin))
    order = np.argsort(arrival_s, kind="stable")
    return Trace(
        trace.name, arrival_s[order], trace.prompt[origin][order], trace.output[origin][order]
    )


def _parse_azure(line: str) -> tuple[float, int, int]:
    fields = line.split(",")
    if len(fields) != 3:
        raise ValueError(f"3 fields expected, found {len(fields)}")
    stamp, prompt, output = fields
    # The traces carry seven decimals of a second; datetime reads six.
    whole, _, fraction = stamp.strip().partition(".")
    at = datetime.fromisoformat(whole)
    # Without a time zone, so that no clock change matters; from a near epoch, for precision.
    seconds = (at.replace(tzinfo=None) - EPOCH).total_seconds()
    return seconds + (float(f"0.{fraction}") if fraction else 0.0), int(prompt), int(output)


def _parse_mooncake(line: str) -> tuple[float, int, int]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("a JSON object expected")
    for key in ("timestamp", "input_length", "output_length"):
        if key not in record:
            raise ValueError(f"{key} is missing")
        if isinstance(record[key], bool) or not isinstance(record[key], int | float):
            raise ValueError(f"{key} must be a number")
    return record["timestamp"] / 1000.0, record["input_length"], record["output_length"]


def _checked(at_s: float, prompt: float, output: float) -> tuple[float, int, int]:
    if not math.isfinite(at_s):
        raise ValueError("the time of arrival is not finite")
    for what, tokens in (("prompt", prompt), ("output", output)):
        if not 0 <= tokens <= MAX_TOKENS or tokens != int(tokens):
            raise ValueError(f"{tokens} is not a number of {what} tokens")
    # An empty completion still has its first token, and the least prompt is one token.
    return at_s, max(1, int(prompt)), max(1, int(output))
