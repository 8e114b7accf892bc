"""A request to a model: what came from the tenant, and what of it goes to an engine."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from serving.gateway.fields import JsonObject
from serving.gateway.prompts import count_answers, read_prompt

OURS = ("service_tier", "session_id")
"""Fields that the queue and the balancer read, and the engine never hears of."""

SESSION_FIELDS = ("prompt_cache_key", "session_id", "user")
"""Fields by which a tenant ties requests together, the most telling first."""

MAX_SESSION_CHARS = 256

Encode = Callable[[JsonObject], bytes]


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model, as far as tolls, queue and balancer need to understand it."""

    model: str
    stream: bool
    body: bytes  # goes to the engine
    max_tokens: int | None = None  # of each answer; None where the tenant did not say
    n: int = 1  # answers asked for, to all prompts together
    service_tier: str | None = None  # as the tenant said it: one of checks.SERVICE_TIERS
    prompt_bytes: int = 0  # of the prompt's text; 4 for each token where it is given in tokens
    session: str = ""  # what the tenant says that related requests have in common
    prefix: bytes = b""  # the prompt's beginning, at most PREFIX_BYTES: for prefix affinity
    include_usage: bool = True  # the tenant gets what a stream says of its usage
    content_type: str = "application/json"  # of the body


@dataclass(frozen=True, slots=True)
class Reading:
    """A tenant's body, understood and checked, and not yet turned into what the engine gets.

    Encoded anew, so that nobody downstream can read a duplicate key or an odd number in another
    way than the checks did (0.5 us for 2 KB, 4 us for 20 KB, measured; parsing takes five times
    that, and splicing bytes into the body would save 0.2 and 3 us).
    """

    model: str
    fields: JsonObject
    limits: tuple[str, ...]  # fields that bound an answer's tokens; none: it has no tokens
    encode: Encode
    content_type: str = "application/json"
    asks_usage: bool = False  # the route knows `stream_options`
    salted: bool = True  # the route knows `cache_salt`
    urls: tuple[str, ...] = ()  # media that the engine would fetch

    def call(self, cache_salt: str | None = None, model: str | None = None) -> Call:
        """What goes to an engine.

        Args:
            cache_salt: Keeps the prefix cache of one organisation from the others'; None where
                the server knows no such field.
            model: The server's name for the model, where it is another.
        """
        fields = self.fields
        session = _session(fields)
        tier = fields.get("service_tier")
        sent = {name: value for name, value in fields.items() if name not in OURS}
        stream = fields.get("stream") in (True, "true", "True", "1")
        include_usage = not self.asks_usage or _asks_for_usage(fields)
        if stream and self.asks_usage:
            sent["stream_options"] = _usage_options(fields, keep_continuous=include_usage)
        if cache_salt is not None and self.salted:
            sent["cache_salt"] = cache_salt
        if model is not None:
            sent["model"] = model
        body = self.encode(sent)  # first: what is nested too deeply ends here
        prompt = read_prompt(fields)
        return Call(
            model=self.model,
            stream=stream,
            body=body,
            max_tokens=self._max_tokens(),
            n=count_answers(fields),
            service_tier=tier if isinstance(tier, str) else None,
            prompt_bytes=prompt.size,
            session=session,
            prefix=prompt.prefix,
            include_usage=include_usage,
            content_type=self.content_type,
        )

    def _max_tokens(self) -> int | None:
        if not self.limits:
            return 0
        for name in self.limits:
            value = self.fields.get(name)
            if isinstance(value, int):
                return value
        return None


@functools.lru_cache(maxsize=4096)
def cache_salt(org_id: str) -> str:
    """What an organisation's prompts are hashed with in the engines' prefix caches."""
    return hashlib.sha256(b"penstock:" + org_id.encode()).hexdigest()[:32]


def _asks_for_usage(fields: JsonObject) -> bool:
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _usage_options(fields: JsonObject, *, keep_continuous: bool) -> JsonObject:
    options = fields.get("stream_options")
    known = options if isinstance(options, dict) else {}
    asked: JsonObject = {"include_usage": True}
    if keep_continuous and known.get("continuous_usage_stats") is True:
        asked["continuous_usage_stats"] = True
    return asked


def _session(fields: JsonObject) -> str:
    for name in SESSION_FIELDS:
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value[:MAX_SESSION_CHARS]
    return ""
