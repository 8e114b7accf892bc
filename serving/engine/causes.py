"""Finds, in what an engine left behind, one sentence that tells the operator why it ended. Pure."""

import re
from dataclasses import dataclass

_PREFIX = re.compile(
    r"^(?:\([^)]*pid=\d+\)\s?)?(?:(?:ERROR|INFO|WARNING) \d\d-\d\d [\d:]+ \[[^\]]+\]\s?)?"
)
"""What vLLM's logger puts before a line, a traceback's included."""
_EXCEPTION = re.compile(
    r"^(?P<type>[A-Za-z_][\w.]*(?:Error|Exception|Interrupt))\s*:\s*(?P<text>\S.*)$"
)
_ARGUMENT = re.compile(r"^.*: error: (?P<text>.+)$")
_VERDICT = "Value error, "
CORE_FAILED = "EngineCore encountered an issue"
_CONSEQUENCES = ("Engine core initialization failed", CORE_FAILED, "Worker failed")
"""Exceptions that only say that another process failed: its own exception says why."""

_HINTS = (
    (re.compile(r"architectures? .*not supported", re.IGNORECASE),
     "this version of vLLM cannot serve the model; see architectures in its config.json"),
    (re.compile(r"size of tensor a|shape mismatch|Attempted to load weight .* into", re.IGNORECASE),
     "the model's weights do not fit its config.json"),
    (re.compile(r"KV cache is needed|No available memory for the cache blocks", re.IGNORECASE),
     "raise engine.kv_cache_gib or lower engine.max_model_len"),
    (re.compile(r"out of memory|OutOfMemory|Cannot allocate memory", re.IGNORECASE),
     "lower engine.kv_cache_gib or engine.max_num_seqs, or give the model more memory"),
    (re.compile(r"unrecognized arguments|invalid choice|invalid \S+ value|expected one argument"
                r"|validation errors? for \w+Config"),
     "see engine in the manifest; further arguments are those of vLLM 0.32"),
    (re.compile(r"max_model_len|max model len|derived max", re.IGNORECASE),
     "lower engine.max_model_len"),
    (re.compile(r"tool.?(call)?.?parser", re.IGNORECASE), "see engine.tool_parser in the manifest"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an engine ended."""

    sentence: str
    hint: str | None = None


def is_consequence(text: str) -> bool:
    """Whether an error only tells that another process failed."""
    return any(phrase in text for phrase in _CONSEQUENCES)


def of_text(text: str) -> Cause:
    """The cause in an error's own text: its telling line, with a hint where one is known."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return Cause("no reason was given")
    sentence = lines[0]
    # Pydantic counts its errors, then names the field and its fault on a line each.
    if re.match(r"\d+ validation errors? for ", sentence) and len(lines) > 1:
        verdict = next((line for line in lines if line.startswith(_VERDICT)), None)
        sentence = verdict.removeprefix(_VERDICT) if verdict else ": ".join(lines[1:3])
    sentence = re.sub(r" Supported architectures: .*$", "", sentence)
    sentence = re.sub(r" \[type=[a-z_]+, input_value=.*$", "", sentence)
    return Cause(_shorten(sentence), _hint(text))


def of_exit(code: int | None, signal: str | None, log_tail: str) -> Cause:
    """The cause of an engine's end, from its exit and the end of its log."""
    found = _last_exception(log_tail)
    if found is not None:
        return found
    if signal == "SIGKILL":
        return Cause(
            "the engine was killed (SIGKILL)", "if nobody did it, the node ran out of memory"
        )
    if signal is not None:
        return Cause(f"the engine was ended by {signal}", "its log may say more")
    return Cause(f"the engine ended with exit code {code}", "its log may say more")


def _last_exception(log_tail: str) -> Cause | None:
    fallback = None
    lines = [_PREFIX.sub("", line) for line in log_tail.splitlines()]
    for index in range(len(lines) - 1, -1, -1):
        match = _EXCEPTION.match(lines[index]) or _ARGUMENT.match(lines[index])
        if match is None:
            continue
        cause = of_text("\n".join([match["text"], *lines[index + 1 : index + 4]]))
        if not is_consequence(match["text"]):
            return cause
        fallback = fallback or cause
    return fallback


def _hint(text: str) -> str | None:
    return next((hint for pattern, hint in _HINTS if pattern.search(text)), None)


def _shorten(sentence: str) -> str:
    return sentence if len(sentence) <= 400 else f"{sentence[:397]}..."
