"""Makes requests that nobody should send: good ones, bent in their values, their bytes, their head.

Everything follows from a seed, so that a failure can be had again.
"""

import json
import random
from collections.abc import Callable

from tests.serving.gateway.fake_controller import TENANT_KEY

Body = dict[str, object]

USER = [{"role": "user", "content": "hi"}]
GOOD: dict[str, Body] = {
    "/v1/chat/completions": {"messages": USER, "max_tokens": 3, "stream": True},
    "/v1/completions": {"prompt": "hi", "n": 1, "temperature": 0.5},
    "/v1/responses": {"input": "hi", "max_output_tokens": 5},
    "/v1/messages": {"messages": USER, "max_tokens": 5, "system": "x"},
    "/v1/messages/count_tokens": {"messages": USER},
    "/v1/embeddings": {"input": ["a", "b"]},
    "/v1/rerank": {"query": "q", "documents": ["a"]},
    "/v1/score": {"text_1": "a", "text_2": "b"},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [1, 2]},
    "/v1/audio/transcriptions": {"file": "x"},
}
ODD: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**40, 1.5, 1e308, "", "x",
    "\u0000", "\ud7ff\ue000", "\U0001f9ea" * 50, "a" * 5000, [], [[]], {}, {"a": {}}, [None],
    [1, "a"], [{"role": "user"}], [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1"}}]}],
    {"$ref": "#"}, {"type": "json_object"}, "../../etc/passwd", "{{ 7 * 7 }}", "%00", "' OR 1=1",
)  # fmt: skip
FIELDS = (
    "model", "messages", "prompt", "input", "stream", "stream_options", "max_tokens", "n", "stop",
    "priority", "cache_salt", "chat_template", "chat_template_kwargs", "tools", "tool_choice",
    "response_format", "logit_bias", "logprobs", "top_logprobs", "seed", "temperature", "user",
    "service_tier", "store", "previous_response_id", "use_beam_search", "prompt_embeds", "echo",
    "vllm_xargs", "kv_transfer_params", "documents", "query", "text_1", "tokens", "system", "",
    "\u0000", "model\u0000", "__proto__", "constructor", "a" * 300,
)  # fmt: skip
METHODS = ("POST", "GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "BREW", "post", "")
PATHS = (*GOOD, "/", "/v1/models", "/v1/models/demo", "/health", "/metrics", "/ready", "*", "",
         "/v1/responses/resp_1", "/v1/chat/completions/", "//v1/chat/completions", "/%00", "/\xff",
         "/v1/chat/completions?x=1#y", "http://elsewhere/v1/models", "/docs", "/collective_rpc",
         "/" + "a" * 2000)  # fmt: skip
HEADERS = (
    "Content-Type: text/plain", "Content-Type: multipart/form-data; boundary=x",
    "Content-Encoding: gzip", "Expect: 100-continue", "Connection: upgrade", "Upgrade: websocket",
    "Transfer-Encoding: gzip", "Range: bytes=0-1", "X-Request-Id: a b", "Accept: text/event-stream",
    "Cookie: " + "c" * 3000, "X-Forwarded-For: 127.0.0.1", "Host: other", "Content-Length: 0",
    "Authorization: Basic eDp5", "X-Api-Key: x", "Origin: https://evil.example", "Bad Header: x",
    "X: \x01", ": empty", "NoColon", "Te: trailers", "X-Data-Parallel-Rank: 1",
)  # fmt: skip


class Fuzzer:
    """A stream of odd requests out of one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def request(self) -> bytes:
        """The next request, as its bytes."""
        path = self._random.choice(tuple(GOOD))
        body: Body = {"model": "demo", **GOOD[path]}
        for _ in range(self._random.choice((0, 1, 1, 1, 2, 4))):
            self._bend(body)
        content = self._encode(body)
        if self._random.random() < 0.35:
            content = self._damage(content)
        return self._frame(path, content)

    def _bend(self, body: Body) -> None:
        choose = self._random.choice
        kinds: tuple[Callable[[], None], ...] = (
            lambda: body.update({choose(FIELDS): choose(ODD)}),
            lambda: body.update({choose(tuple(body) or FIELDS): choose(ODD)}),
            lambda: body.pop(choose(tuple(body) or FIELDS), None) and None,
            lambda: body.update({choose(FIELDS): self._nested(choose((3, 30, 300)))}),
        )
        choose(kinds)()

    def _nested(self, depth: int) -> object:
        value: object = self._random.choice(ODD)
        for _ in range(depth):
            value = [value] if self._random.random() < 0.5 else {"a": value}
        return value

    def _encode(self, body: Body) -> bytes:
        content = json.dumps(body, ensure_ascii=self._random.random() < 0.5)
        if self._random.random() < 0.1:  # a key twice
            content = content[:-1] + ', "cache_salt": "x", "model": "asleep", "priority": null}'
        if self._random.random() < 0.03:
            content = "[" * 10_000 + content
        return content.encode("utf-8", "surrogatepass")

    def _damage(self, content: bytes) -> bytes:
        data = bytearray(content)
        for _ in range(self._random.choice((1, 1, 2, 10))):
            at = self._random.randrange(len(data) + 1)
            match self._random.randrange(4):
                case 0:
                    data[at:at] = self._random.randbytes(self._random.choice((1, 1, 4)))
                case 1:
                    del data[at : at + self._random.choice((1, 1, 20))]
                case 2:
                    data[at : at + 1] = self._random.choice(
                        (b"\x00", b"\xff", b'"', b"{", b"\\u0000", b"\\ud800", b"1e999")
                    )
                case _:
                    data = data[: max(1, at)]
        return bytes(data)

    def _frame(self, path: str, content: bytes) -> bytes:
        chance, choose = self._random.random, self._random.choice
        method = "POST" if chance() < 0.9 else choose(METHODS)
        path = path if chance() < 0.9 else choose(PATHS)
        lines = ["Host: x", "Connection: close"]
        if chance() < 0.97:
            lines.append(f"Authorization: Bearer {TENANT_KEY}")
        lines.extend(choose(HEADERS) for _ in range(choose((0, 0, 0, 0, 1, 3))))
        if chance() < 0.1:
            lines.append("Transfer-Encoding: chunked")
            end = choose((b"0\r\n\r\n", b"0\r\n\r\n", b"", b"0\r\nX: y\r\n\r\n", b"-1\r\n"))
            content = b"%x\r\n%b\r\n%b" % (len(content) + choose((0, 0, 0, 1)), content, end)
            if chance() < 0.2:
                lines.append(f"Content-Length: {len(content)}")
        else:
            lines.append(f"Content-Length: {len(content) + choose((0,) * 40 + (1, -1, 10**12))}")
        version = "HTTP/1.1" if chance() < 0.97 else choose(("HTTP/1.0", "HTTP/3", "XTTP/1.1", ""))
        head = f"{method} {path} {version}\r\n" + "\r\n".join(lines) + "\r\n\r\n"
        return head.encode("latin-1") + content
