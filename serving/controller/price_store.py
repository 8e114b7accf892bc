"""The price book's rows."""

from typing import Any

from sqlalchemy import Row, delete, insert, select

from models.errors import NotFoundError
from serving.controller.audit import Act, tell_gateways, write
from serving.controller.store import Store
from serving.controller.tenancy_rows import new_id, seconds
from serving.controller.tenancy_tables import GPU_PRICES, TOKEN_PRICES
from serving.identities import TokenPrice
from serving.money import per_token, picodollars
from serving.prices import (
    Capacity,
    GpuPrice,
    GpuPriceView,
    NewGpuPrice,
    NewTokenPrice,
    PriceBook,
    TokenPriceView,
)


class PriceStore:
    """All prices that operators set; every method may raise DatabaseError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def token_prices(self) -> list[TokenPrice]:
        """What tokens are sold for, by model, tier and date."""
        query = select(TOKEN_PRICES).order_by(
            TOKEN_PRICES.c.model, TOKEN_PRICES.c.tier, TOKEN_PRICES.c.since
        )
        async with self._store.transaction() as db:
            rows = (await db.execute(query)).all()
        return [TokenPrice(**row._asdict()) for row in rows]

    async def gpu_prices(self) -> list[GpuPrice]:
        """What accelerators cost, by name, capacity class and date."""
        query = select(GPU_PRICES).order_by(
            GPU_PRICES.c.accelerator, GPU_PRICES.c.capacity, GPU_PRICES.c.since
        )
        async with self._store.transaction() as db:
            rows = (await db.execute(query)).all()
        return [_gpu(row) for row in rows]

    async def book(self) -> PriceBook:
        """All of them, to look prices up in."""
        return PriceBook(await self.token_prices(), await self.gpu_prices())

    async def add_tokens(self, new: NewTokenPrice, act: Act) -> TokenPrice:
        """Adds a price of tokens.

        Raises:
            BadRequestError: If a price is finer than $0.000001 for a million tokens.
        """
        cached = new.input if new.cached is None else new.cached
        price = TokenPrice(
            price_id=new_id("price"),
            model=new.model,
            tier=new.tier,
            since=act.at if new.since is None else seconds(new.since, "since"),
            input=per_token(new.input, "input"),
            cached=per_token(cached, "cached"),
            output=per_token(new.output, "output"),
        )
        async with self._store.transaction() as db:
            await db.execute(insert(TOKEN_PRICES).values(**price.model_dump()))
            await write(db, act, "price.create", price.price_id, after=TokenPriceView.of(price))
            await tell_gateways(db)
        return price

    async def add_gpu(self, new: NewGpuPrice, act: Act) -> GpuPrice:
        """Adds a price of an accelerator.

        Raises:
            BadRequestError: If it is finer than a picodollar.
        """
        price = GpuPrice(
            price_id=new_id("price"),
            accelerator=new.accelerator,
            capacity=new.capacity,
            since=act.at if new.since is None else seconds(new.since, "since"),
            per_hour=picodollars(new.per_hour, "per_hour"),
        )
        async with self._store.transaction() as db:
            await db.execute(insert(GPU_PRICES).values(**price.model_dump(mode="json")))
            await write(db, act, "price.create", price.price_id, after=GpuPriceView.of(price))
        return price

    async def delete(self, price_id: str, act: Act) -> None:
        """Takes a price out of the book: the one before it holds again.

        Raises:
            NotFoundError: If there is none of this id.
        """
        async with self._store.transaction() as db:
            tokens = TOKEN_PRICES.c.price_id == price_id
            gpus = GPU_PRICES.c.price_id == price_id
            before: TokenPriceView | GpuPriceView
            if (
                row := (await db.execute(select(TOKEN_PRICES).where(tokens))).one_or_none()
            ) is not None:
                before = TokenPriceView.of(TokenPrice(**row._asdict()))
                await db.execute(delete(TOKEN_PRICES).where(tokens))
            elif (
                row := (await db.execute(select(GPU_PRICES).where(gpus))).one_or_none()
            ) is not None:
                before = GpuPriceView.of(_gpu(row))
                await db.execute(delete(GPU_PRICES).where(gpus))
            else:
                raise NotFoundError("there is no such price")
            await write(db, act, "price.delete", price_id, before=before)
            await tell_gateways(db)


def _gpu(row: Row[Any]) -> GpuPrice:
    return GpuPrice(
        price_id=row.price_id,
        accelerator=row.accelerator,
        capacity=Capacity(row.capacity),
        since=row.since,
        per_hour=row.per_hour,
    )
