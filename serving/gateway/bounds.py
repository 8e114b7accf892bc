"""How much a field's value may hold. Pure.

Fields that vLLM takes at any size, though one request could then hold up its engine's other tenants
for seconds, or end the engine. Each bound was tried on a real engine or on vLLM's own code; with
what a bound lets through, an engine of two cores is held up for about a second at most. What vLLM
refuses by itself, naming the field, is left to it.
"""

import orjson

from models.errors import BadRequestError
from serving.gateway.fields import JsonObject, encode_json
from serving.gateway.prompts import count_answers

MAX_TOKEN_IDS = {"logit_bias": 1024, "allowed_token_ids": 1024, "stop_token_ids": 100}
"""Entries of one. vLLM's sampler on GPUs has room for 1024, 1024 and 128 of a request, the model's
own end tokens among the 128, and its engine ends at one more."""

MAX_BAD_WORDS_BYTES = 512
"""Of all `bad_words`, each counted with one byte more. The same sampler has room for 1024 tokens of
them, at worst one for each byte, and vLLM bans each word with a space before it too."""

MAX_STOPS = 64
MAX_STOP_CHARS = 4096  # of one

MAX_COMPLETIONS = 1024
"""Prompts times `n` of one request. 12,800 of them held up everybody for 8 s."""

MAX_MESSAGES = 10_000
"""Of one conversation. 50,000 held up everybody for 4 s, before vLLM saw that they are too long."""

MAX_TEMPLATE_SWITCHES = 64

MAX_TOKENIZED_BYTES = 2**20
"""Of a body of `/tokenize`, which knows no context length. 4 MB held up everybody for 15 s
and took 500 MiB."""

MAX_SCHEMA_VALUES = 5000
MAX_TOOLS_VALUES = 20_000  # in all tools together
MAX_SCHEMA_WIDTH = 1000
"""Entries of one list or object. A schema of 1,000 optional properties compiles in 0.3 s, one of
10,000 in 66 s, for it takes the square; meanwhile no other schema of the model compiles."""

MAX_SCHEMA_CHARS = 2**18  # of all names and texts, but for PROSE
MAX_SCHEMA_TEXT_CHARS = 2**13  # of one
MAX_SCHEMA_LEVELS = 80
"""vLLM lets through 64 levels of a schema, which stand some levels deep in a tool."""

MAX_SCHEMA_COUNTED = 2500
"""Properties times how many of them `minProperties` or `maxProperties` counts: 100 x 50 compile in
1.6 s, 300 x 150 in more than ten."""

PROSE = frozenset({"description", "title", "$comment"})
"""Is not compiled, and may be long."""

MAX_CHOICES = 1000
MAX_GRAMMAR_CHARS = {"regex": 2**14, "grammar": 2**16, "structural_tag": 2**16,
                     "whitespace_pattern": 256}  # fmt: skip
MAX_CHOICES_CHARS = 2**15

MAX_ARGUMENTS_LEVELS = 256
"""Of a tool call's arguments, which vLLM parses: at some 1,000 levels it fails."""

WITH_SCHEMAS = ("response_format", "text", "output_config")

BOUNDED = frozenset({*MAX_TOKEN_IDS, *WITH_SCHEMAS, "stop", "stop_sequences", "bad_words",
                     "structured_outputs", "tools"})  # fmt: skip
"""Most requests set none of them."""


def check_bounds(fields: JsonObject) -> None:
    """Checks the sizes of all fields of a request that makes tokens.

    Raises:
        BadRequestError: Naming the field that holds too much.
    """
    _check_completions(fields)
    if BOUNDED.isdisjoint(fields):
        return
    for name, most in MAX_TOKEN_IDS.items():
        value = fields.get(name)
        if isinstance(value, list | dict) and len(value) > most:
            raise BadRequestError(f"{name} must have at most {most} entries", param=name)
    for name in ("stop", "stop_sequences"):
        _check_stops(fields.get(name), name)
    _check_bad_words(fields.get("bad_words"))
    _check_structured(fields.get("structured_outputs"))
    for name in WITH_SCHEMAS:
        check_schema(fields.get(name), name)
    check_schema(fields.get("tools"), "tools", MAX_TOOLS_VALUES)


def check_messages(fields: JsonObject, name: str) -> None:
    """Checks how many messages a conversation has, and what of them vLLM parses again.

    Raises:
        BadRequestError: Naming the field that holds too much.
    """
    messages = fields.get(name)
    if not isinstance(messages, list):
        return
    if len(messages) > MAX_MESSAGES:
        raise BadRequestError(f"{name} must have at most {MAX_MESSAGES} entries", param=name)
    for place, message in enumerate(messages):
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        for at, call in enumerate(calls if isinstance(calls, list) else ()):
            function = call.get("function") if isinstance(call, dict) else None
            arguments = function.get("arguments") if isinstance(function, dict) else None
            if isinstance(arguments, str) and _levels(arguments) > MAX_ARGUMENTS_LEVELS:
                raise BadRequestError(
                    f"a tool call's arguments may nest {MAX_ARGUMENTS_LEVELS} levels at most",
                    param=f"{name}.{place}.tool_calls.{at}.function.arguments",
                )


def check_tokenized(fields: JsonObject) -> None:
    """Checks how much is to be turned into tokens for its own sake.

    Raises:
        BadRequestError: If it is too much, or nested too deeply.
    """
    if len(encode_json(fields)) > MAX_TOKENIZED_BYTES:
        name = "messages" if "messages" in fields else "prompt"
        raise BadRequestError(
            f"{name} must have at most {MAX_TOKENIZED_BYTES} bytes here", param=name
        )


def check_switches(kwargs: JsonObject, param: str) -> None:
    """Checks how many switches of a template are set.

    Raises:
        BadRequestError: If they are too many.
    """
    if len(kwargs) > MAX_TEMPLATE_SWITCHES:
        raise BadRequestError(
            f"{param} must have at most {MAX_TEMPLATE_SWITCHES} entries", param=param
        )


def check_schema(schema: object, param: str, most_values: int = MAX_SCHEMA_VALUES) -> None:
    """Checks what one JSON schema, or a field with schemas in it, costs to compile.

    Raises:
        BadRequestError: If it is too large, too wide or too deep.
    """
    level = [schema]
    values = chars = 0
    for _ in range(MAX_SCHEMA_LEVELS):
        below: list[object] = []
        for node in level:
            if not isinstance(node, dict | list):
                continue
            values += len(node)
            if len(node) > MAX_SCHEMA_WIDTH or values > most_values:
                raise BadRequestError(
                    f"{param} is too large: a list or an object may have {MAX_SCHEMA_WIDTH} "
                    f"entries, and all together {most_values}",
                    param=param,
                )
            if isinstance(node, dict):
                _check_counted(node, param)
                entries = list(node.items())
            else:
                entries = [("", one) for one in node]
            for name, one in entries:
                text = len(one) if isinstance(one, str) and name not in PROSE else 0
                chars += len(name) + text
                if max(len(name), text) > MAX_SCHEMA_TEXT_CHARS or chars > MAX_SCHEMA_CHARS:
                    raise BadRequestError(
                        f"{param} is too long: a name or a value may have {MAX_SCHEMA_TEXT_CHARS} "
                        f"characters, and all together {MAX_SCHEMA_CHARS}; descriptions more",
                        param=param,
                    )
                if isinstance(one, dict | list):
                    below.append(one)
        if not below:
            return
        level = below
    raise BadRequestError(f"{param} is nested too deeply", param=param)


def _check_counted(node: dict[str, object], param: str) -> None:
    properties = node.get("properties")
    if not isinstance(properties, dict):
        return
    for name in ("minProperties", "maxProperties"):
        count = node.get(name)
        if isinstance(count, int | float):
            counted = min(count, len(properties))
            if counted * len(properties) > MAX_SCHEMA_COUNTED:
                raise BadRequestError(
                    f"{param} has {name} with too many properties: their product may be "
                    f"{MAX_SCHEMA_COUNTED}",
                    param=param,
                )


def _check_stops(value: object, name: str) -> None:
    stops = value if isinstance(value, list) else [value]
    if len(stops) > MAX_STOPS:
        raise BadRequestError(f"{name} must have at most {MAX_STOPS} entries", param=name)
    for stop in stops:
        if isinstance(stop, str) and not 1 <= len(stop) <= MAX_STOP_CHARS:
            raise BadRequestError(
                f"each text of {name} must have 1 to {MAX_STOP_CHARS} characters", param=name
            )


def _check_bad_words(words: object) -> None:
    if isinstance(words, list):
        size = sum(len(word.encode()) + 1 for word in words if isinstance(word, str))
        if size > MAX_BAD_WORDS_BYTES:
            raise BadRequestError(
                f"bad_words must have at most {MAX_BAD_WORDS_BYTES} bytes, each counted with one "
                "more",
                param="bad_words",
            )


def _check_structured(given: object) -> None:
    if not isinstance(given, dict):
        return
    param = "structured_outputs"
    for name, most in MAX_GRAMMAR_CHARS.items():
        text = given.get(name)
        if isinstance(text, str) and len(text) > most:
            raise BadRequestError(
                f"{param}.{name} must have at most {most} characters", param=f"{param}.{name}"
            )
    choices = given.get("choice")
    if isinstance(choices, list):
        size = sum(len(choice) for choice in choices if isinstance(choice, str))
        if not 1 <= len(choices) <= MAX_CHOICES or size > MAX_CHOICES_CHARS:
            raise BadRequestError(
                f"{param}.choice must have 1 to {MAX_CHOICES} entries, of {MAX_CHOICES_CHARS} "
                "characters together",
                param=f"{param}.choice",
            )
    for name in ("json", "structural_tag"):
        check_schema(_parsed(given.get(name)), f"{param}.{name}")


def _check_completions(fields: JsonObject) -> None:
    if isinstance(fields.get("prompt"), list) and count_answers(fields) > MAX_COMPLETIONS:
        raise BadRequestError(f"prompts times n must be at most {MAX_COMPLETIONS}", param="prompt")


def _parsed(value: object) -> object:
    """A schema may come as text; what is no JSON is left to the engine, which says so."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return None


def _levels(text: str) -> int:
    """How deep a text nests at most, if it is JSON: brackets in its strings count too."""
    if text.count("[") + text.count("{") <= MAX_ARGUMENTS_LEVELS:
        return 0
    depth = deepest = 0
    for char in text:
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest
