"""A gateway's limits, wired: the toll, where its shares come from, the task that asks for them."""

import asyncio
from types import TracebackType
from typing import Self

from models.errors import PenstockError
from serving.background import cancel
from serving.gateway.auth import Keyring
from serving.gateway.lanes import Lanes
from serving.gateway.limits import LimitsToll, WhenDown
from serving.gateway.limits_redis import RedisMeters
from serving.gateway.limits_rules import Longest, Rules
from serving.gateway.limits_shares import SharedMeters, ShareLink
from serving.logs import get_logger
from serving.settings import GatewaySettings, SettingsError

RESTART_S = 1.0

log = get_logger(__name__)


class Limiting:
    """To be used inside `async with`; `toll` is where requests pass."""

    def __init__(
        self,
        keyring: Keyring,
        lanes: Lanes,
        link: ShareLink,
        gateway_id: str,
        settings: GatewaySettings,
    ) -> None:
        rules = Rules((), ())
        when_down = WhenDown(settings.on_limit_store_down)
        self._shared = SharedMeters(rules, link, gateway_id, when_down, keyring.clock)
        self._redis = _redis_meters(settings, self._shared, when_down, keyring)
        self.toll = LimitsToll(keyring, rules, self._redis or self._shared, _longest(lanes))
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await cancel(self._task)
        if self._redis is not None:
            await self._redis.close()

    async def _run(self) -> None:
        """Keeps shares fresh until it is cancelled; a crash of ours is logged and begun anew."""
        while True:
            try:
                await self._shared.run()
            except Exception:
                log.exception("limit_shares_crashed")
            await asyncio.sleep(RESTART_S)


def _longest(lanes: Lanes) -> Longest:
    """How many tokens a model takes, as its route says."""

    def of(model: str) -> int | None:
        try:
            return lanes.get(model).route.max_model_len
        except PenstockError:
            return None

    return of


def _redis_meters(
    settings: GatewaySettings, shared: SharedMeters, when_down: WhenDown, keyring: Keyring
) -> RedisMeters | None:
    if settings.redis_url is None:
        return None
    url = settings.redis_url.get_secret_value()
    try:
        return RedisMeters(url, shared, when_down, keyring.clock)
    except (ValueError, OSError) as exc:
        variable = "PENSTOCK_REDIS_URL"
        raise SettingsError(f"{variable}: {exc}", param=variable) from None
