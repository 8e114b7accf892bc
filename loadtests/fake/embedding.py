"""Embeddings as the fake engine gives them: at once, and of no meaning."""

import zlib

import orjson
from pydantic import BaseModel, ValidationError

from loadtests.fake.openai import ApiError, tokens_of

DIMENSIONS = 8


class _Body(BaseModel):
    model: str
    input: str | list[str]


def embed(body: bytes, model: str) -> bytes:
    """The answer of `/v1/embeddings`; equal texts have equal embeddings.

    Raises:
        ApiError: The body cannot be accepted.
    """
    try:
        parsed = _Body.model_validate_json(body)
    except ValidationError as error:
        raise ApiError(400, error.errors()[0]["msg"], param="input") from error
    if parsed.model != model:
        raise ApiError(404, f"The model `{parsed.model}` does not exist.", code="model_not_found")
    texts = [parsed.input] if isinstance(parsed.input, str) else parsed.input
    tokens = sum(len(tokens_of(text)) for text in texts)
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(text)}
        for index, text in enumerate(texts)
    ]
    counted = {"prompt_tokens": tokens, "total_tokens": tokens}
    return orjson.dumps({"object": "list", "data": data, "model": model, "usage": counted})


def _vector(text: str) -> list[float]:
    return [zlib.crc32(f"{axis} {text}".encode()) / 2**32 for axis in range(DIMENSIONS)]
