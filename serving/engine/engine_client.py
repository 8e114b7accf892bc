"""A host's side of its engine's HTTP server: readiness, probe, health, requests in flight."""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx

from models.errors import UpstreamError
from serving.engine.guard import IN_FLIGHT_PATH
from serving.protocol import EngineLoadReport

PROBE_TIMEOUT_S = 60.0
HEALTH_TIMEOUT_S = 3.0
TURN_TIMEOUT_S = 120.0
"""For a large model's weights on their way to the host's memory and back."""
DISCARDED = 2
"""Level of sleep at which the weights are thrown away."""
POLL_S = 0.02

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Engines speak plain HTTP: httpx would load the system's certificates for each client, 30 ms."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What an engine's first answer tells."""

    max_model_len: int | None


class EngineClient:
    """Speaks to one engine.

    Args:
        url: Base URL of the engine.
        token: The engine's token.
        transport: Stands in for the network in tests.
    """

    def __init__(
        self, url: str, token: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {token}"},
            transport=transport,
            verify=NO_TLS,
            timeout=HEALTH_TIMEOUT_S,
        )

    async def close(self) -> None:
        """Closes all connections."""
        await self._http.aclose()

    async def wait_until_it_listens(self) -> None:
        """Returns when `/health` says so; for an engine that does not tell by itself."""
        while True:
            if await self.is_healthy():
                return
            await asyncio.sleep(POLL_S)

    async def probe(self, model: str) -> Probe:
        """Has the engine generate one token.

        Raises:
            UpstreamError: If it does not.
        """
        body = {"model": model, "prompt": "1", "max_tokens": 1, "temperature": 0}
        try:
            completion, models = await asyncio.gather(
                self._http.post("/v1/completions", json=body, timeout=PROBE_TIMEOUT_S),
                self._http.get("/v1/models", timeout=PROBE_TIMEOUT_S),
            )
            if not completion.is_success:
                raise UpstreamError(f"the engine answered its probe with {completion.status_code}")
            return Probe(max_model_len=models.json()["data"][0].get("max_model_len"))
        except (httpx.HTTPError, ValueError, LookupError) as exc:
            raise UpstreamError(f"the engine did not answer its probe: {exc!r}") from exc

    async def sleep(self, level: int) -> None:
        """Has the engine give its accelerators' memory back; what runs in it is lost.

        Raises:
            UpstreamError: If it does not.
        """
        await self._turn(f"/sleep?level={level}")

    async def wake(self, level: int) -> None:
        """Has the engine take its accelerators' memory again, after it slept at a level.

        Raises:
            UpstreamError: If it does not.
        """
        await self._turn("/wake_up")
        if level == DISCARDED:  # its weights are to be read again, and what it cached is void
            await self._turn("/collective_rpc", {"method": "reload_weights"})
            await self._turn("/reset_prefix_cache")

    async def load_adapter(self, name: str, folder: Path) -> None:
        """Has the engine serve a LoRA adapter under a name; 10 ms for a small one.

        Raises:
            UpstreamError: If it does not; what it says of the adapter is in the message.
        """
        # Not `load_inplace`: vLLM 0.32 then reads the files again for each batch.
        body = {"lora_name": name, "lora_path": str(folder)}
        await self._ask_for_adapter("/v1/load_lora_adapter", body)

    async def unload_adapter(self, name: str) -> None:
        """Has the engine forget a LoRA adapter; requests that run with it go on.

        Raises:
            UpstreamError: If it does not, or never had it.
        """
        await self._ask_for_adapter("/v1/unload_lora_adapter", {"lora_name": name})

    async def _ask_for_adapter(self, path: str, body: dict[str, str]) -> None:
        try:
            answer = await self._http.post(path, json=body, timeout=PROBE_TIMEOUT_S)
        except httpx.HTTPError as exc:
            raise UpstreamError(f"the engine did not answer {path}: {exc!r}") from exc
        if answer.is_success:
            return
        try:
            said = str(answer.json()["error"]["message"])
        except (ValueError, LookupError, TypeError):
            said = f"status {answer.status_code}"
        raise UpstreamError(
            f"the engine refused the adapter: {said[:400]}", hint="the engine's log says more"
        )

    async def _turn(self, path: str, body: object = None) -> None:
        try:
            answer = await self._http.post(path, json=body, timeout=TURN_TIMEOUT_S)
        except httpx.HTTPError as exc:
            raise UpstreamError(f"the engine did not answer {path}: {exc!r}") from exc
        if not answer.is_success:
            raise UpstreamError(f"the engine answered {path} with {answer.status_code}")

    async def is_healthy(self) -> bool:
        """Whether the engine answers `/health` in time."""
        try:
            return (await self._http.get("/health")).is_success
        except httpx.HTTPError:
            return False

    async def in_flight(self) -> int | None:
        """Requests that run in the engine; None if it does not say."""
        try:
            answer = await self._http.get(IN_FLIGHT_PATH)
            return int(answer.json()["in_flight"]) if answer.is_success else None
        except (httpx.HTTPError, ValueError, LookupError):
            return None

    async def load(self) -> EngineLoadReport | None:
        """What the engine runs and how long its steps took; None if it does not say."""
        try:
            told = (await self._http.get(IN_FLIGHT_PATH)).json()["load"]
            return None if told is None else EngineLoadReport.model_validate(told)
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return None
