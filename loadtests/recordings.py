"""Reads request traces and scales them to what a machine can hold. Pure but for reading the file.

Formats, told by their contents, plain or gzipped:
    Azure     CSV with TIMESTAMP, ContextTokens, GeneratedTokens
    Mooncake  JSON lines with timestamp (ms), input_length, output_length, hash_ids
    ours      JSON lines with at_s, prompt_tokens, output_tokens and, at will, block_ids
"""

import gzip
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

MOONCAKE_BLOCK_TOKENS = 512


class TraceError(Exception):
    """A trace that cannot be read at all."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a trace."""

    at_s: float
    """Seconds since the first request."""
    prompt_tokens: int
    output_tokens: int
    block_ids: tuple[int, ...] = ()
    """Ids of the prompt's blocks: two prompts with the same leading ids share that prefix."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of time."""

    rows: tuple[Row, ...]
    block_tokens: int = MOONCAKE_BLOCK_TOKENS
    broken: int = 0
    """Lines that could not be read; they are left out."""

    @property
    def duration_s(self) -> float:
        """From the first request to the last."""
        return self.rows[-1].at_s - self.rows[0].at_s


def load(path: Path) -> Trace:
    """Reads a trace.

    Raises:
        TraceError: The file cannot be read, or holds no request.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TraceError(f"cannot read the trace {path}: {error}") from error
    return parse(text.splitlines())


def parse(lines: Iterable[str]) -> Trace:
    """Reads the lines of a trace; broken ones are counted and left out.

    Raises:
        TraceError: No line holds a request.
    """
    rows: list[Row] = []
    broken = 0
    for number, line in enumerate(lines):
        if not line.strip() or (number == 0 and line.startswith("TIMESTAMP")):
            continue
        try:
            rows.append(_json_row(line) if line.lstrip().startswith("{") else _azure_row(line))
        except (ValueError, KeyError, TypeError):
            broken += 1
    if not rows:
        raise TraceError(f"the trace holds no request ({broken} broken lines)")
    rows.sort(key=lambda row: row.at_s)
    start_s = rows[0].at_s
    return Trace(tuple(replace(row, at_s=row.at_s - start_s) for row in rows), broken=broken)


def _azure_row(line: str) -> Row:
    timestamp, prompt, output = line.strip().split(",")
    # Seven decimals and no zone in the published files; later ones have six and +00:00.
    at = datetime.fromisoformat(timestamp[:26]).replace(tzinfo=UTC)
    return _checked(at.timestamp(), int(prompt), int(output), ())


def _json_row(line: str) -> Row:
    fields = json.loads(line)
    if "at_s" in fields:
        blocks = tuple(int(block) for block in fields.get("block_ids", ()))
        return _checked(
            float(fields["at_s"]),
            int(fields["prompt_tokens"]),
            int(fields["output_tokens"]),
            blocks,
        )
    return _checked(
        float(fields["timestamp"]) / 1000,
        int(fields["input_length"]),
        int(fields["output_length"]),
        tuple(int(block) for block in fields.get("hash_ids", ())),
    )


def _checked(at_s: float, prompt: int, output: int, blocks: tuple[int, ...]) -> Row:
    if prompt < 1 or output < 0:
        raise ValueError("a prompt has tokens")
    return Row(at_s, prompt, output, blocks)


@dataclass(frozen=True, slots=True)
class Scaling:
    """How a trace is fitted to a machine and a model."""

    start_s: float = 0.0
    duration_s: float | None = None
    """Length of the part that is taken, in the trace's own time; None takes all."""
    speed: float = 1.0
    """2 plays the trace in half its time."""
    share: float = 1.0
    """Keeps this share of the requests, by the seed: less load in the same rhythm."""
    length: float = 1.0
    """Factor for the numbers of tokens."""
    jitter_s: float = 0.0
    """Each arrival is moved by 0 up to this, to undo a recorder's rounding."""
    max_prompt_tokens: int | None = None
    max_output_tokens: int | None = None
    seed: int = 0


def scale(trace: Trace, to: Scaling) -> Trace:
    """The part of the trace that `to` asks for, in its measure; arrivals count from the part's
    beginning.

    Blocks shrink with the lengths, so that shared prefixes stay the same share of their prompts.

    Raises:
        TraceError: Nothing is left.
        ValueError: A factor that is not positive.
    """
    if min(to.speed, to.share, to.length) <= 0 or to.jitter_s < 0:
        raise ValueError("speed, share and length are positive, jitter is not negative")
    rng = random.Random(to.seed)  # noqa: S311, a test load
    end_s = float("inf") if to.duration_s is None else to.start_s + to.duration_s
    block_tokens = max(1, round(trace.block_tokens * to.length))
    rows: list[Row] = []
    for row in trace.rows:
        kept = rng.random() < to.share
        jitter_s = rng.random() * to.jitter_s
        if not kept or not to.start_s <= row.at_s < end_s:
            continue
        prompt = max(1, round(row.prompt_tokens * to.length))
        output = max(1, round(row.output_tokens * to.length))
        prompt = min(prompt, to.max_prompt_tokens or prompt)
        rows.append(
            Row(
                at_s=(row.at_s - to.start_s + jitter_s) / to.speed,
                prompt_tokens=prompt,
                output_tokens=min(output, to.max_output_tokens or output),
                block_ids=row.block_ids[: -(-prompt // block_tokens)],
            )
        )
    if not rows:
        raise TraceError("nothing of the trace is left after scaling")
    rows.sort(key=lambda row: row.at_s)
    return Trace(tuple(rows), block_tokens, trace.broken)


def implied_hit_rate(rows: Sequence[Row], block_tokens: int) -> float:
    """The share of prompt tokens that an endless prefix cache would save, one request after the
    other; only whole blocks are shared, and the last token of a prompt is always computed."""
    known: dict[tuple[int, int], int] = {}  # (prefix, next block) -> longer prefix; 0 is none
    total = saved = 0
    for row in rows:
        total += row.prompt_tokens
        prefix, matching = 0, True
        for index, block in enumerate(row.block_ids[: row.prompt_tokens // block_tokens]):
            matching = matching and (prefix, block) in known
            if matching and (index + 1) * block_tokens < row.prompt_tokens:
                saved += block_tokens
            prefix = known.setdefault((prefix, block), len(known) + 1)
    return saved / total if total else 0.0
