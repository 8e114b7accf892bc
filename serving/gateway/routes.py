"""The tenants' routes that no engine is needed for: models, health, readiness, metrics."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from models.adapters_spec import served_name
from models.errors import NotFoundError, UnavailableError
from serving.gateway.auth import Keyring, check_model
from serving.gateway.lanes import Lanes
from serving.gateway.telemetry import GatewayMetrics
from serving.protocol import KeyRecord, ModelRoute

STORED = "/v1/responses/{response_id:path}"
"""OpenAI's routes to stored responses: there are none, and it says so."""

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text"
OPEN_METRICS_TYPE = f"{OPEN_METRICS}; version=1.0.0; charset=utf-8"
"""Asked for by Prometheus; only this format has exemplars."""


class ModelObject(BaseModel):
    """A model as OpenAI's clients know it, and vLLM's `max_model_len`."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "penstock"
    max_model_len: int | None = None
    parent: str | None = None
    """The model that this is a LoRA adapter of."""


class ModelList(BaseModel):
    """All models, the sleeping ones too."""

    object: str = "list"
    data: list[ModelObject]


def make_router(keyring: Keyring, lanes: Lanes, metrics: GatewayMetrics) -> APIRouter:
    """The routes, on the parts that they read."""
    router = APIRouter()

    def authenticate(request: Request) -> KeyRecord:
        return keyring.authenticate(request.headers.raw, request.url.query.encode())

    @router.get("/v1/models", response_model=ModelList)
    async def list_models(request: Request) -> ModelList:
        key = authenticate(request)
        _need_table(lanes)
        served = [each for route in lanes.routes() for each in _model_objects(route)]
        return ModelList(data=[each for each in served if key.may_call(each.id)])

    @router.get("/v1/models/{model:path}", response_model=ModelObject)
    async def get_model(request: Request, model: str) -> ModelObject:
        check_model(authenticate(request), model)
        served = _model_objects(lanes.get(model).route)
        return next(each for each in served if each.id == model)

    @router.api_route(STORED, methods=["GET", "POST", "DELETE"])
    async def stored_response(request: Request, response_id: str) -> JSONResponse:
        authenticate(request)
        raise NotFoundError("responses are not stored here, so that none can be asked for later")

    @router.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @router.get("/ready")
    async def ready() -> JSONResponse:
        _need_table(lanes)
        if not keyring.loaded:
            raise UnavailableError("the gateway is starting and knows no keys yet")
        return JSONResponse({"status": "ready"})

    @router.get("/metrics")
    async def scrape(request: Request) -> Response:
        wants_open = OPEN_METRICS in request.headers.get("accept", "")
        kind = OPEN_METRICS_TYPE if wants_open else METRICS_TYPE
        return Response(metrics.render(lanes, open_metrics=wants_open), media_type=kind)

    return router


def _need_table(lanes: Lanes) -> None:
    if not lanes.loaded:
        raise UnavailableError("the gateway is starting and knows no models yet")


def _model_objects(route: ModelRoute) -> list[ModelObject]:
    """The model, and behind it each of its adapters."""
    longest = route.max_model_len
    model = ModelObject(id=route.name, created=route.created, max_model_len=longest)
    adapters = (served_name(route.name, adapter.name) for adapter in route.adapters)
    parent = {"parent": route.name}
    return [model, *(model.model_copy(update={"id": name} | parent) for name in adapters)]
