"""A gateway under uvicorn, with a controller and engines of the tests' own beside it."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import openai
import pytest
import uvicorn
from pydantic import SecretStr

from serving.gateway.app import create_app
from serving.gateway.connection import TenantConnection
from serving.protocol import EndpointRoute
from serving.settings import GatewaySettings
from tests.serving.gateway.fake_controller import TENANT_KEY, TOKEN, FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine

TLS = ssl.create_default_context()
"""Made once: httpx takes 30 ms to make it for each client, and nothing here uses it."""


class TestServer(uvicorn.Server):
    """Starts and stops without signals and without the pauses of uvicorn's own loop."""

    __test__ = False

    async def begin(self, listening: socket.socket) -> None:
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[listening])

    async def end(self) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self.lifespan.shutdown()


class Gateway:
    """A gateway that runs, and clients for it."""

    def __init__(
        self,
        settings: GatewaySettings,
        connection: type[TenantConnection] = TenantConnection,
    ) -> None:
        self.settings = settings
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.app = create_app(settings)
        self._server = TestServer(
            uvicorn.Config(
                self.app, loop="uvloop", http=connection, ws="none", log_config=None,
                access_log=False,
            )
        )  # fmt: skip
        self.http = httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {TENANT_KEY}"}, timeout=30,
            verify=TLS,
        )  # fmt: skip

    def openai(self, key: str = TENANT_KEY) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=key, max_retries=0,
            http_client=httpx.AsyncClient(verify=TLS),
        )  # fmt: skip

    async def start(self, *, ready: bool = True) -> None:
        await self._server.begin(self._socket)
        if ready:
            await self.answers("/ready")

    async def answers(self, path: str, status: int = 200) -> None:
        """Waits until a GET of the path has this status."""
        async with asyncio.timeout(30):
            while (await self.http.get(path)).status_code != status:
                pass  # each turn waits for an answer

    async def raw(self, request: bytes) -> bytes:
        """What the gateway answers to these very bytes, until it closes the connection."""
        reader, writer = await asyncio.open_connection(*self._socket.getsockname())
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def stop(self) -> None:
        await self.http.aclose()
        await self._server.end()

    async def finished(self) -> None:
        """Waits until no request is worked on: it is settled and told after its answer was sent."""
        await until(lambda: not self._server.server_state.tasks)

    async def shows(self, value: float, name: str, **labels: str) -> None:
        """Waits until the metric has this value: a request is counted after its answer was sent."""
        deadline_s = time.monotonic() + 30
        while (seen := await self.metric(name, **labels)) != value:
            assert time.monotonic() < deadline_s, f"{name} is {seen}"

    async def metric(self, name: str, **labels: str) -> float:
        """The sum over the lines of /metrics that bear these labels."""
        total = 0.0
        for line in (await self.http.get("/metrics")).text.splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and all(
                f'{label}="{wanted}"' in head for label, wanted in labels.items()
            ):
                total += float(value)
        return total


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Waits for something that happens soon."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110, what we wait for sets no event
            await asyncio.sleep(0.002)


def chat(**fields: object) -> dict[str, object]:
    """The body of a chat request."""
    return {"model": "demo", "messages": [{"role": "user", "content": "hi"}], **fields}


@pytest.fixture
async def controller() -> AsyncIterator[FakeController]:
    fake = FakeController()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    fake = FakeEngine()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def second_engine() -> AsyncIterator[FakeEngine]:
    fake = FakeEngine("engine-2")
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def settings(controller: FakeController, tmp_path: Path) -> GatewaySettings:
    return GatewaySettings(
        controller_url=controller.url,
        internal_token=SecretStr(TOKEN),
        gateway_state_dir=tmp_path / "state",
        max_body_mib=1.0,
        deadline_s=5.0,
        max_queued=40,
        drain_timeout_s=1.0,
    )


@pytest.fixture
async def make_gateway() -> AsyncIterator[Callable[..., Gateway]]:
    made: list[Gateway] = []

    def make(
        settings: GatewaySettings, connection: type[TenantConnection] = TenantConnection
    ) -> Gateway:
        made.append(Gateway(settings, connection))
        return made[-1]

    yield make
    for gateway in made:
        await gateway.stop()


@pytest.fixture
async def gateway(
    make_gateway: Callable[[GatewaySettings], Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> Gateway:
    """A gateway whose model `demo` is served by `engine`; `asleep` has no engine."""
    controller.set_routes(model("demo", engine.route), model("asleep"))
    running = make_gateway(settings)
    await running.start()
    return running


def there(engine: FakeEngine, **fields: object) -> EndpointRoute:
    """The server as one that others run."""
    return engine.route.model_copy(update={"external": True, "model": "gpt-9", **fields})


@pytest.fixture
async def outside(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> Gateway:
    """A gateway whose model `demo` is served by a server that others run."""
    controller.set_routes(model("demo", there(engine)))
    gateway = make_gateway(settings.model_copy(update={"deadline_s": 20.0}))
    await gateway.start()
    return gateway
