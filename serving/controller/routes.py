"""The routing table as gateways see it, and its deltas."""

import time
from collections.abc import Iterable

from models.secrets import SecretError, Secrets
from serving.controller.adapters import loaded_in, routes_of
from serving.controller.observed_engine import Engine
from serving.controller.placement import Life
from serving.controller.registry import DeployedModel
from serving.controller.standing import Standing
from serving.controller.versioned import VersionedTable
from serving.protocol import CanaryRoute, EndpointRoute, ModelRoute, RoutesDelta

TOMBSTONES_MAX = 1000


def make_route(
    model: DeployedModel,
    standing: Standing,
    engines: Iterable[Engine],
    canary: CanaryRoute | None = None,
    secrets: Secrets | None = None,
) -> ModelRoute:
    """One model as gateways see it; of its bound engines those that are ready, by id."""
    engines, endpoints = list(engines), _elsewhere(model, secrets)
    max_model_len = model.manifest.engine.max_model_len
    for engine in engines:
        report = engine.report
        if engine.life is Life.READY and report and report.url and report.token:
            endpoints.append(
                EndpointRoute(
                    engine_id=engine.engine_id,
                    url=report.url,
                    token=report.token,
                    revision=engine.revision,
                    slots=engine.slots,
                    kv_tokens=0 if report.load is None else report.load.kv_tokens,
                    adapters=loaded_in(engine),
                )
            )
            max_model_len = report.max_model_len or max_model_len
    return ModelRoute(
        name=model.name,
        state=standing.state,
        reason=standing.public_reason,
        created=int(model.stored.created_at),
        max_model_len=max_model_len,
        keep_alive_s=model.manifest.scaling.keep_alive_s,
        endpoints=tuple(endpoints),
        ttft_s=model.manifest.scaling.slo.ttft_s,
        tpot_s=model.manifest.scaling.slo.tpot_s,
        canary=canary,
        adapters=routes_of(model, engines),
        task=model.manifest.task,
    )


def _elsewhere(model: DeployedModel, secrets: Secrets | None) -> list[EndpointRoute]:
    """The servers that others run for us, but for those whose secret is gone."""
    routes = []
    for number, endpoint in enumerate(model.manifest.endpoints):
        try:
            token = None if secrets is None else secrets.read(endpoint.token)
        except SecretError:
            continue
        routes.append(
            EndpointRoute(
                engine_id=f"{model.name}-endpoint-{number}",
                url=endpoint.url,
                token=token or "",
                revision=model.stored.revision,
                slots=model.manifest.engine.max_num_seqs,
                external=True,
                model=endpoint.model,
            )
        )
    return routes


class RouteTable:
    """The published routes; remembers at which version each model changed last."""

    def __init__(self, version: int | None = None) -> None:
        self._routes: VersionedTable[ModelRoute] = VersionedTable(TOMBSTONES_MAX, version)
        self.changes = self._routes.changes

    def publish(self, routes: list[ModelRoute]) -> frozenset[str]:
        """Replaces the table; returns the models whose route changed. No change: no new version."""
        return self._routes.replace({route.name: route for route in routes}).changed

    async def named(self, model: str, timeout_s: float) -> bool:
        """Waits until the table names a model; False if it does not in time.

        Gateways that poll already are answered before the caller goes on.
        """
        deadline_s = time.monotonic() + timeout_s
        while model not in self._routes:
            if not await self.changes.woken(max(0.0, deadline_s - time.monotonic())):
                return model in self._routes
        return True

    def since(self, after: int) -> RoutesDelta:
        """What changed after a version; everything where that version is unknown."""
        delta = self._routes.since(after)
        return RoutesDelta(
            version=delta.version, full=delta.full, models=delta.things, removed=delta.removed
        )
