"""How much a field may hold: what fits passes, one more is refused by its name."""

import json

import pytest

from models.errors import BadRequestError
from serving.gateway import bounds
from serving.gateway.surface import OPERATIONS

BY_PATH = {operation.path: operation for operation in OPERATIONS}
USER = {"role": "user", "content": "hi"}
CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"
GOOD: dict[str, dict[str, object]] = {
    CHAT: {"messages": [USER]},
    COMPLETION: {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": [USER], "max_tokens": 5},
    "/tokenize": {"prompt": "hi"},
}


def read(path: str, fields: dict[str, object]) -> None:
    body = {"model": "demo", **GOOD[path], **fields}
    BY_PATH[path].read(json.dumps(body).encode())


def nested(levels: int) -> object:
    schema: object = "string"
    for _ in range(levels):
        schema = {"a": schema}
    return schema


def wide(count: int) -> dict[str, object]:
    return {"type": "object", "properties": {f"p{at}": {"type": "string"} for at in range(count)}}


def format_of(schema: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def tools(count: int) -> list[object]:
    return [{"type": "function", "function": {"name": f"f{at}", "parameters": wide(2)}}
            for at in range(count)]  # fmt: skip


def call(arguments: str) -> dict[str, object]:
    function = {"name": "f", "arguments": arguments}
    calls = [{"id": "c", "type": "function", "function": function}]
    return {"messages": [USER, {"role": "assistant", "tool_calls": calls}]}


ARGUMENTS = "messages.1.tool_calls.0.function.arguments"


@pytest.mark.parametrize(
    ("path", "fits", "too_much", "param"),
    [
        (CHAT, {"logit_bias": {str(i): 1 for i in range(1024)}},
         {"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
        (CHAT, {"allowed_token_ids": [1] * 1024}, {"allowed_token_ids": [1] * 1025},
         "allowed_token_ids"),
        (CHAT, {"stop_token_ids": [1] * 100}, {"stop_token_ids": [1] * 101}, "stop_token_ids"),
        (CHAT, {"bad_words": ["word"] * 102}, {"bad_words": ["word"] * 103}, "bad_words"),
        (CHAT, {"bad_words": ["x"]}, {"bad_words": ["\u00e9" * 256]}, "bad_words"),
        (CHAT, {"stop": "x" * 4096}, {"stop": "x" * 4097}, "stop"),
        (CHAT, {"stop": ["a", "b"]}, {"stop": ["a", ""]}, "stop"),
        (CHAT, {"stop": [" "]}, {"stop": ["a"] * 65}, "stop"),
        ("/v1/messages", {"stop_sequences": ["a"]}, {"stop_sequences": [""]}, "stop_sequences"),
        (CHAT, {"messages": [USER] * 10_000}, {"messages": [USER] * 10_001}, "messages"),
        ("/v1/responses", {"input": [USER] * 10_000}, {"input": [USER] * 10_001}, "input"),
        (CHAT, call('{"a": "' + "[" * 200 + '"}'), call("[" * 257), ARGUMENTS),
        (CHAT, call("[]," * 10_000), call("[" * 100_000 + "]" * 100_000), ARGUMENTS),
        (COMPLETION, {"prompt": ["a"] * 8, "n": 128}, {"prompt": ["a"] * 9, "n": 128}, "prompt"),
        (COMPLETION, {"prompt": [[1, 2]] * 1024}, {"prompt": [[1, 2]] * 1025}, "prompt"),
        (COMPLETION, {"prompt": [7] * 5000, "n": 128}, {"prompt": ["a"] * 1025}, "prompt"),
        (CHAT, {"chat_template_kwargs": {f"k{i}": 1 for i in range(64)}},
         {"chat_template_kwargs": {f"k{i}": 1 for i in range(65)}}, "chat_template_kwargs"),
        ("/tokenize", {"prompt": "x" * (2**20 - 100)}, {"prompt": "x" * 2**20}, "prompt"),
        (CHAT, {"tools": tools(1000)}, {"tools": tools(1001)}, "tools"),
        (CHAT, {"response_format": format_of(wide(1000))},
         {"response_format": format_of(wide(1001))}, "response_format"),
        (CHAT, {"response_format": format_of({"enum": ["x" * 8192]})},
         {"response_format": format_of({"enum": ["x" * 8193]})}, "response_format"),
        (CHAT, {"response_format": format_of({"description": "x" * 300_000})},
         {"response_format": format_of({"enum": ["x" * 8000] * 33})}, "response_format"),
        (CHAT, {"response_format": format_of(nested(64))},
         {"response_format": format_of(nested(100))}, "response_format"),
        (CHAT, {"response_format": format_of(wide(50) | {"minProperties": 50})},
         {"response_format": format_of(wide(100) | {"minProperties": 50})}, "response_format"),
        (CHAT, {"response_format": format_of({"anyOf": [wide(1)] * 900})},
         {"response_format": format_of({"anyOf": [wide(1)] * 1000 + [wide(300)]})},
         "response_format"),
        ("/v1/responses", {"text": {"format": {"type": "json_schema", "schema": wide(9)}}},
         {"text": {"format": {"type": "json_schema", "schema": wide(1001)}}}, "text"),
        ("/v1/messages", {"output_config": {"format": wide(9)}},
         {"output_config": {"format": wide(1001)}}, "output_config"),
        (CHAT, {"structured_outputs": {"regex": "a" * 2**14}},
         {"structured_outputs": {"regex": "a" * (2**14 + 1)}}, "structured_outputs.regex"),
        (CHAT, {"structured_outputs": {"grammar": "a" * 2**16}},
         {"structured_outputs": {"grammar": "a" * (2**16 + 1)}}, "structured_outputs.grammar"),
        (CHAT, {"structured_outputs": {"choice": ["a"] * 1000}},
         {"structured_outputs": {"choice": ["a"] * 1001}}, "structured_outputs.choice"),
        (CHAT, {"structured_outputs": {"choice": ["a" * 2**15]}},
         {"structured_outputs": {"choice": ["a" * 2**14] * 3}}, "structured_outputs.choice"),
        (CHAT, {"structured_outputs": {"choice": [""]}},
         {"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        (CHAT, {"structured_outputs": {"json": json.dumps(wide(9))}},
         {"structured_outputs": {"json": json.dumps(wide(1001))}}, "structured_outputs.json"),
        (CHAT, {"structured_outputs": {"json": "{"}},
         {"structured_outputs": {"json": wide(1001)}}, "structured_outputs.json"),
    ],
)  # fmt: skip
def test_what_fits_passes_and_one_more_is_refused_by_name(
    path: str, fits: dict[str, object], too_much: dict[str, object], param: str
) -> None:
    read(path, fits)
    with pytest.raises(BadRequestError) as caught:
        read(path, too_much)
    assert caught.value.param == param
    assert len(str(caught.value)) < 300  # nothing of the value is echoed


@pytest.mark.parametrize("name", sorted(bounds.BOUNDED))
@pytest.mark.parametrize("value", [True, 7, 1.5, "x", [], [None, 1, {}], {}, {"a": [1]}])
def test_value_of_another_kind_is_left_to_the_engine(name: str, value: object) -> None:
    bounds.check_bounds({name: value})


def test_schemas_entries_count_together() -> None:
    with pytest.raises(BadRequestError):
        bounds.check_schema({"allOf": [wide(900)] * 3}, "x")
    bounds.check_schema({"allOf": [wide(900)]}, "x")


def test_what_is_tokenized_may_not_be_nested_endlessly() -> None:
    deep = "[" * 600 + "]" * 600
    for field in ('"tools": ', '"messages": [{"role": "user", "content": "x"}], "tools": '):
        body = f'{{"model": "demo", "prompt": "x", {field}{deep}}}'
        with pytest.raises(BadRequestError):
            BY_PATH["/tokenize"].read(body.encode())
