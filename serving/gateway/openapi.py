"""The tenants' API as an OpenAPI document, out of the table of routes: `python -m` prints it.

It says which fields each route takes and which statuses it gives; what the fields hold is vLLM's
and its engines' to say, but for those that the gateway checks itself.
"""

import sys

import orjson

from serving.gateway.checks import MAX_N, SERVICE_TIERS
from serving.gateway.errors import Shape
from serving.gateway.surface import OPERATIONS, Body, Operation

Schema = dict[str, object]

COUNT: Schema = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
TEXT: Schema = {"type": "string"}
TEXTS: Schema = {"oneOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1}]}
FILE: Schema = {"type": "string", "format": "binary"}
MESSAGES: Schema = {
    "type": "array", "minItems": 1,
    "items": {
        "type": "object", "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["user", "assistant"]},
            "content": {"oneOf": [TEXT, {"type": "array", "items": {
                "type": "object", "required": ["type", "text"],
                "properties": {"type": {"const": "text"}, "text": TEXT},
                "additionalProperties": False,
            }}]},
        },
        "additionalProperties": False,
    },
}  # fmt: skip

KNOWN: dict[str, Schema] = {
    "model": {"type": "string", "minLength": 1},
    "messages": MESSAGES,
    "input": TEXTS,
    "prompt": TEXTS,
    "query": TEXT,
    "documents": TEXTS,
    "text_1": TEXT,
    "text_2": TEXTS,
    "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}},
    "stream": {"type": "boolean"},
    "max_tokens": COUNT,
    "max_completion_tokens": COUNT,
    "max_output_tokens": COUNT,
    "n": {"type": "integer", "minimum": 1, "maximum": MAX_N},
    "service_tier": {"enum": sorted(SERVICE_TIERS)},
    "store": {"const": False},
}
"""Fields that the gateway looks at."""

REQUIRED: dict[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("messages",), "/v1/completions": ("prompt",),
    "/v1/responses": ("input",), "/v1/messages": ("messages", "max_tokens"),
    "/v1/messages/count_tokens": ("messages",), "/v1/embeddings": ("input",),
    "/rerank": ("query", "documents"), "/v1/rerank": ("query", "documents"),
    "/v2/rerank": ("query", "documents"), "/score": ("text_1", "text_2"),
    "/v1/score": ("text_1", "text_2"), "/tokenize": ("prompt",), "/detokenize": ("tokens",),
    "/v1/audio/transcriptions": ("file",), "/v1/audio/translations": ("file",),
}  # fmt: skip

STATUSES = {
    200: "The answer; a stream of server-sent events where `stream` is true.",
    400: "The request can never succeed as it stands; `param` names the field.",
    401: "No key, or a key that nobody was given.",
    403: "The key may not call this model.",
    404: "There is no such model.",
    413: "The body is larger than this route takes.",
    429: "A limit or the model's queue is full; Retry-After says when to come again.",
    500: "The platform's fault; its log knows more under the request's id.",
    502: "Engines failed on this request, and no other could take over.",
    503: "No engine was free before the request's deadline.",
}


def document() -> Schema:
    """The whole document, OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Penstock", "version": "1", "license": {"name": "Apache-2.0"}},
        "paths": {operation.path: {"post": _post(operation)} for operation in OPERATIONS},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": {"Error": _error()},
        },
    }


def _post(operation: Operation) -> Schema:
    kind = "multipart/form-data" if operation.body is Body.FORM else "application/json"
    security: list[Schema] = [{"bearer": []}]
    if operation.shape is Shape.ANTHROPIC:
        security.append({"key": []})
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "operationId": operation.path.strip("/").replace("/", "_"),
        "security": security,
        "requestBody": {"required": True, "content": {kind: {"schema": _body(operation)}}},
        "responses": {
            str(status): {"description": text, **({} if status == 200 else {"content": error})}
            for status, text in STATUSES.items()
        },
    }


def _body(operation: Operation) -> Schema:
    properties: Schema = {name: KNOWN.get(name, {}) for name in sorted(operation.allowed)}
    if operation.body is Body.FORM:
        properties = {**dict.fromkeys(properties, TEXT), "file": FILE}
    elif operation.path == "/tokenize":
        properties["prompt"] = TEXT
    if operation.shape is Shape.ANTHROPIC:
        properties.pop("service_tier", None)
    return {
        "type": "object",
        "required": ["model", *REQUIRED[operation.path]],
        "properties": properties,
        "additionalProperties": False,
    }


def _error() -> Schema:
    texts = {"type": ["string", "null"]}
    return {
        "type": "object",
        "required": ["error"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["message", "type"],
                "properties": {"message": TEXT, "type": TEXT, "param": texts, "code": texts},
            },
        },
    }


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(document(), option=orjson.OPT_INDENT_2) + b"\n")
