"""What must never come out, and how fast a key ends: a controller with two gateways."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from serving.protocol import EnginePhase
from serving.settings import GatewaySettings
from tests.serving.controller.served import ADMIN_KEY, API_KEY, Served, ServedHost, serve
from tests.serving.controller.world import settings as controller_settings
from tests.serving.gateway import fake_engine
from tests.serving.gateway.conftest import Gateway, until
from tests.serving.gateway.fake_engine import FakeEngine

PROMPT = "the-secret-recipe-of-grandmother"
PATH = "/v1/chat/completions"


@dataclass
class Platform:
    """All parts of a platform that see keys and prompts."""

    served: Served
    gateways: list[Gateway]
    engine: FakeEngine

    async def ask(self, gateway: Gateway, key: str, **fields: object) -> httpx.Response:
        messages = [{"role": "user", "content": PROMPT}]
        body = {"model": "guide", "messages": messages, **fields}
        headers = {"authorization": f"Bearer {key}"}
        return await gateway.http.post(PATH, json=body, headers=headers)


@asynccontextmanager
async def platform(folder: Path) -> AsyncIterator[Platform]:
    """A controller, two gateways, and an engine of the tests' own."""
    url = f"sqlite+aiosqlite:///{folder / 'penstock.db'}"
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serve(controller_settings(database_url=url)))
        engine = FakeEngine()
        await engine.start()
        stack.push_async_callback(engine.stop)
        host = await served.host("h1")
        assert (await served.deploy(scaling={"min": 1})).status_code == 201
        await host.told_to_run()
        await host.report(EnginePhase.READY, url=engine.route.url, token=engine.route.token)
        reports = asyncio.create_task(_keep_reporting(host, engine))
        stack.callback(reports.cancel)
        gateways = []
        for i in range(2):
            settings = GatewaySettings(
                controller_url=str(served.admin.base_url).rstrip("/"),
                internal_token=SecretStr("internal-token"),
                gateway_state_dir=folder / f"gateway-{i}",
                drain_timeout_s=1.0,
            )
            gateways.append(Gateway(settings))
            await gateways[-1].start()
            stack.push_async_callback(gateways[-1].stop)
        for gateway in gateways:
            async with asyncio.timeout(30):
                while not await _lists_models(gateway):
                    pass  # each turn waits for an answer
        yield Platform(served, gateways, engine)


async def _lists_models(gateway: Gateway) -> bool:
    answer = await gateway.http.get("/v1/models", headers=_auth(API_KEY))
    return bool(answer.is_success and answer.json()["data"])


async def _keep_reporting(host: ServedHost, engine: FakeEngine) -> None:
    while True:
        await asyncio.sleep(0.5)
        await host.report(EnginePhase.READY, url=engine.route.url, token=engine.route.token)


def _auth(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_no_key_hash_or_prompt_is_in_any_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Everything that this run writes, to the log and to the disk, is searched."""
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.WARNING, "httpx")  # the client of this test, not ours
    secrets = [ADMIN_KEY, API_KEY]
    async with platform(tmp_path) as here:
        one, two = here.gateways
        answer = await here.served.admin.post("/admin/v1/keys", json={"name": "mine"})
        issued = answer.json()
        key_id = issued["key"]["key_id"]
        rotated = await here.served.admin.post(f"/admin/v1/keys/{key_id}/rotate", json={})
        mine = rotated.json()["secret"]
        secrets += [issued["secret"], mine]
        limit = {"requests_per_min": 20}
        await here.served.admin.put(f"/admin/v1/limits/{key_id}/*", json=limit)
        async with asyncio.timeout(30):
            while (await here.ask(one, mine)).status_code != 200:
                pass
        for stream in (False, True):
            assert (await here.ask(two, mine, stream=stream)).status_code == 200
        wrong = mine[:-4] + "abcd"
        secrets.append(wrong)
        statuses = [
            (await here.ask(one, wrong)).status_code,
            (await one.http.post(f"{PATH}?api_key={mine}", json={})).status_code,
            (await one.http.get(f"/admin/v1/status?key={ADMIN_KEY}")).status_code,
            (await here.ask(one, mine, max_tokens=-1)).status_code,
            (await here.ask(one, mine, model=PROMPT)).status_code,
        ]
        assert statuses == [401, 401, 401, 400, 404]
        here.engine.script.extend([fake_engine.dies_at_once, fake_engine.dies_mid_event])
        await here.ask(one, mine, stream=True)
        here.engine.script.append(fake_engine.refuses(400, "what a prompt"))
        await here.ask(one, mine)
        records = (await here.served.identities()).keys
        hashes = [record.digest for record in records] + [record.salt for record in records]
        await here.served.admin.delete(f"/admin/v1/keys/{key_id}")
        await asyncio.sleep(1.2)  # what is written behind is written by then
    told = capfd.readouterr()
    text = told.out + told.err + caplog.text
    assert text.count("answered") >= 8
    for secret in (*secrets, *hashes, PROMPT, "internal-token"):
        assert secret not in text, secret
    for path in tmp_path.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        for secret in (*secrets, PROMPT):
            assert secret.encode() not in content, (path, secret)
        if path.name == "identities.json":
            assert path.stat().st_mode & 0o077 == 0


async def test_revoked_key_is_refused_at_every_gateway_within_a_second(tmp_path: Path) -> None:
    async with platform(tmp_path) as here:
        took_s: list[float] = []
        for attempt in range(10):  # some may meet a busy machine
            if took_s and min(took_s) < 1.0:
                break
            answer = await here.served.admin.post("/admin/v1/keys", json={"name": f"k{attempt}"})
            key, key_id = answer.json()["secret"], answer.json()["key"]["key_id"]
            for gateway in here.gateways:
                async with asyncio.timeout(30):
                    while (await here.ask(gateway, key)).status_code != 200:
                        pass
            assert (await here.served.admin.delete(f"/admin/v1/keys/{key_id}")).status_code == 204
            began_s = time.monotonic()
            for gateway in here.gateways:
                while (await here.ask(gateway, key)).status_code != 401:
                    assert time.monotonic() - began_s < 30.0
            took_s.append(time.monotonic() - began_s)
        assert min(took_s) < 1.0


async def test_model_off_the_list_is_neither_listed_nor_answered(tmp_path: Path) -> None:
    async with platform(tmp_path) as here:
        fields = {"name": "narrow", "models": ["another"]}
        key = (await here.served.admin.post("/admin/v1/keys", json=fields)).json()["secret"]
        gateway = here.gateways[0]

        async def listed() -> list[str] | None:
            answer = await gateway.http.get("/v1/models", headers=_auth(key))
            return [one["id"] for one in answer.json()["data"]] if answer.is_success else None

        async with asyncio.timeout(30):
            while (names := await listed()) is None:
                pass
        assert names == []
        refused = await here.ask(gateway, key)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
        assert (await gateway.http.get("/v1/models/guide", headers=_auth(key))).status_code == 403
        seen = len(here.engine.seen)
        assert (await here.ask(gateway, API_KEY)).status_code == 200
        await until(lambda: len(here.engine.seen) == seen + 1)
