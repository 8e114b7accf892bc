"""Usage in answers of all shapes."""

import json

import pytest

from serving.gateway.tokens import Tokens, last_usage


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, Tokens(5, 7)),
        (
            {
                "prompt_tokens": 5, "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Tokens(5, 7, 4, 3),
        ),
        ({"prompt_tokens": 5, "completion_tokens": None}, Tokens(5, 0)),
        ({"prompt_tokens": 5, "prompt_tokens_details": None}, Tokens(5, 0)),
        ({"total_tokens": 5}, Tokens(5, 0)),
        (
            {
                "input_tokens": 5, "input_tokens_details": {"cached_tokens": 4},
                "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 3},
            },
            Tokens(5, 7, 4, 3),
        ),
        # Anthropic's input leaves out what came from its cache.
        ({"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 4}, Tokens(9, 7, 4)),
        ({}, None),
        (None, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_usage_of_each_shape(
    usage: dict[str, object] | None, tokens: Tokens | None, separators: tuple[str, str]
) -> None:
    answer = {"id": "x", "text": 'say "usage": {"prompt_tokens": 99}', "usage": usage, "z": None}
    assert last_usage(json.dumps(answer, separators=separators).encode()) == tokens


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b'{"usage"', b'{"usage":{"prompt_tokens":', b'{"usage":' + b"[" * 100_000,
     b'{"usage":\xff}'],
)  # fmt: skip
def test_what_cannot_be_read_is_no_usage(data: bytes) -> None:
    assert last_usage(data) is None
