"""The token guard around an app in the test's hand."""

import asyncio

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from serving.engine.guard import IN_FLIGHT_PATH, TOKEN_VARIABLE, TokenGuard

GOOD = {"authorization": "Bearer t0"}


class Inner:
    """Answers 200 once `release` is set, and notes a client that leaves."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.entered = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        self.entered.set()
        if scope["path"] == "/wait":
            await self.release.wait()
        if scope["path"] == "/until-disconnect":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.left.set()
            return
        if scope["path"] == "/break":
            raise RuntimeError("broken")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inner"})


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def guard(inner: Inner) -> TokenGuard:
    return TokenGuard(inner, "t0")


def client(guard: TokenGuard) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://engine")


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/metrics", "/ping", IN_FLIGHT_PATH])
@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer t1"}, {"authorization": "t0"}, {"authorization": "bearer t0"}],
    ids=["none", "wrong", "bare", "case"],
)
async def test_every_route_asks_for_the_token(
    guard: TokenGuard, inner: Inner, path: str, headers: dict[str, str]
) -> None:
    async with client(guard) as http:
        answer = await http.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert not inner.entered.is_set()


async def test_right_token_passes(guard: TokenGuard) -> None:
    async with client(guard) as http:
        assert (await http.get("/v1/models", headers=GOOD)).text == "inner"


async def test_in_flight_counts_running_requests(guard: TokenGuard, inner: Inner) -> None:
    async with client(guard) as http:

        async def in_flight() -> int:
            return int((await http.get(IN_FLIGHT_PATH, headers=GOOD)).json()["in_flight"])

        assert await in_flight() == 0
        running = asyncio.create_task(http.post("/wait", headers=GOOD))
        await inner.entered.wait()
        assert await in_flight() == 1
        inner.release.set()
        await running
        assert await in_flight() == 0


async def test_failing_request_is_not_in_flight(guard: TokenGuard) -> None:
    async with client(guard) as http:
        with pytest.raises(RuntimeError):
            await http.post("/break", headers=GOOD)
    assert guard.in_flight == 0


async def test_clients_disconnect_reaches_the_app(guard: TokenGuard, inner: Inner) -> None:
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/until-disconnect",
        "headers": [(b"authorization", b"Bearer t0")],
    }
    await guard(scope, receive, send)
    assert inner.left.is_set()
    assert guard.in_flight == 0


async def test_websocket_without_token_is_closed(guard: TokenGuard, inner: Inner) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await guard({"type": "websocket", "path": "/v1/realtime", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert not inner.entered.is_set()


def test_guard_without_a_token_does_not_start(
    inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(ValueError, match=TOKEN_VARIABLE):
        TokenGuard(inner)


async def test_guard_takes_its_token_from_the_environment(
    inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "t0")
    async with client(TokenGuard(inner)) as http:
        assert (await http.get("/", headers=GOOD)).status_code == 200
