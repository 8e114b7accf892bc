"""Requests that a test writes byte by byte."""

import json

from tests.serving.gateway.conftest import chat
from tests.serving.gateway.fake_controller import TENANT_KEY

BODY = json.dumps(chat()).encode()


def head(*lines: str, path: str = "/v1/chat/completions", key: str = TENANT_KEY) -> bytes:
    given = "".join(f"{line}\r\n" for line in lines)
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{given}\r\n".encode()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
