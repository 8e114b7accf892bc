"""`/admin/v1`: limits and prices; see `serving.limits` and `serving.prices`."""

from fastapi import APIRouter, Depends
from pydantic import TypeAdapter, ValidationError

from models.adapters_spec import ServedName as ModelName
from models.errors import BadRequestError
from serving.controller.callers import Deed, Here, require_permission
from serving.controller.limit_store import LimitStore
from serving.controller.price_store import PriceStore
from serving.identities import ALL_MODELS
from serving.limits import LimitSpec, LimitView
from serving.prices import (
    DEFAULT_GPU_PRICES,
    GpuPriceView,
    NewGpuPrice,
    NewTokenPrice,
    PriceList,
    TokenPriceView,
)
from serving.views import Items

router = APIRouter(prefix="/admin/v1", dependencies=[Depends(require_permission)])

_MODEL_NAME: TypeAdapter[str] = TypeAdapter(ModelName)


@router.get("/limits")
async def list_limits(here: Here, scope_id: str | None = None) -> Items[LimitView]:
    """All limits; those of one organisation, project or key where it is given."""
    records = await LimitStore(here.store).records(scope_id)
    return Items(items=[LimitView.of(record) for record in records])


@router.put("/limits/{scope_id}/{model}")
async def put_limit(
    scope_id: str, model: str, spec: LimitSpec, here: Here, deed: Deed
) -> LimitView:
    """Sets what a scope may use of a model, or with `*` of all models together."""
    if model != ALL_MODELS:
        try:
            _MODEL_NAME.validate_python(model)
        except ValidationError as exc:
            raise BadRequestError("this cannot be a model's name", param="model") from exc
    record = spec.record(scope_id, model)
    await LimitStore(here.store).put(record, deed)
    await here.identities.refresh()
    return LimitView.of(record)


@router.delete("/limits/{scope_id}/{model}", status_code=204)
async def delete_limit(scope_id: str, model: str, here: Here, deed: Deed) -> None:
    """Lifts a limit."""
    await LimitStore(here.store).delete(scope_id, model, deed)
    await here.identities.refresh()


@router.get("/prices")
async def list_prices(here: Here) -> PriceList:
    """The price book: what operators set, and what stands in it from the start."""
    prices = PriceStore(here.store)
    gpus = (*DEFAULT_GPU_PRICES, *await prices.gpu_prices())
    return PriceList(
        tokens=[TokenPriceView.of(price) for price in await prices.token_prices()],
        gpus=[GpuPriceView.of(price) for price in gpus],
    )


@router.post("/prices/tokens", status_code=201)
async def add_token_price(new: NewTokenPrice, here: Here, deed: Deed) -> TokenPriceView:
    """Adds a price of tokens."""
    price = await PriceStore(here.store).add_tokens(new, deed)
    await here.identities.refresh()
    return TokenPriceView.of(price)


@router.post("/prices/gpus", status_code=201)
async def add_gpu_price(new: NewGpuPrice, here: Here, deed: Deed) -> GpuPriceView:
    """Adds a price of an accelerator's hour."""
    return GpuPriceView.of(await PriceStore(here.store).add_gpu(new, deed))


@router.delete("/prices/{price_id}", status_code=204)
async def delete_price(price_id: str, here: Here, deed: Deed) -> None:
    """Takes a price out of the book."""
    await PriceStore(here.store).delete(price_id, deed)
    await here.identities.refresh()
