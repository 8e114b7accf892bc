"""Rows of usage and attempts: stored once each however often they come, and summed by the hour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Select, Table, and_, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
from sqlalchemy.ext.asyncio import AsyncConnection

from serving.controller.price_store import PriceStore
from serving.controller.store import Store
from serving.controller.usage_rules import TokenCounts, UnknownRule, usage_of
from serving.controller.usage_tables import ATTEMPTS, ENGINE_TOTALS, USAGE, USAGE_HOURS
from serving.metered import AttemptBatch, UsageRow, UsageStatus
from serving.money import MOST
from serving.prices import PriceBook, charge

RESOLVED_AT_ONCE = 500
PRUNED_AT_ONCE = 5000
SHARE_GRAIN_S = 1e-6

HOUR_KEY = ("hour", "org_id", "project_id", "key_id", "model", "tier")

HourKey = tuple[int, str, str, str, str, str]


@dataclass(slots=True)
class Sums:
    """What is added to one row of USAGE_HOURS; the fields are its columns."""

    requests: int = 0
    unknown: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    engine_s: float = 0.0
    charged: int = 0
    charged_prompt: int = 0
    charged_cached: int = 0
    charged_completion: int = 0

    def add_price(self, price: int | None, tokens: TokenCounts) -> None:
        """Adds what a request was charged, if it was, and the tokens that it was charged for."""
        if price is not None:
            self.charged += price
            self.charged_prompt += tokens.prompt
            self.charged_cached += tokens.cached
            self.charged_completion += tokens.completion

    def add_tokens(self, tokens: TokenCounts, times: int = 1) -> None:
        """Adds tokens alone, or takes them away."""
        self.prompt += tokens.prompt * times
        self.cached += tokens.cached * times
        self.completion += tokens.completion * times
        self.reasoning += tokens.reasoning * times


class UsageStore:
    """Writes what gateways and hosts tell; every method may raise DatabaseError.

    Args:
        store: Gives the transactions.
        rule: What becomes of requests of which nobody knows how much was delivered.
    """

    def __init__(self, store: Store, rule: UnknownRule) -> None:
        self._store = store
        self._rule: UnknownRule = rule

    async def add_usage(self, rows: Sequence[UsageRow], now: float) -> int:
        """Stores rows; those that are known already change nothing. Returns how many were new."""
        by_id = {row.usage_id: self._by_rule(row) for row in rows}
        if not by_id:
            return 0
        book = await self._book()
        values = [self._values(row, now, book) for row in by_id.values()]
        prices = {str(value["usage_id"]): value["price"] for value in values}
        async with self._store.transaction() as db:
            statement = _insert(db, USAGE).on_conflict_do_nothing().returning(USAGE.c.usage_id)
            new = [by_id[usage_id] for usage_id in (await db.execute(statement, values)).scalars()]
            sums: dict[HourKey, Sums] = {}
            for row in new:
                one = sums.setdefault(hour_key(row), Sums())
                one.requests += 1
                one.unknown += row.status is UsageStatus.UNKNOWN
                one.engine_s += row.duration_s if row.attempts else 0.0
                one.add_tokens(_tokens(row))
                one.add_price(prices[row.usage_id], _tokens(row))
            await _add_sums(db, sums)
            await _add_shares(db, [row.usage_id for row in new if row.attempts])
        return len(new)

    async def add_attempts(self, batch: AttemptBatch, now: float) -> int:
        """Stores attempts of one engine and its totals; returns how many were new."""
        by_id = {row.attempt_id: row for row in batch.rows}
        async with self._store.transaction() as db:
            new = 0
            if by_id:
                statement = _insert(db, ATTEMPTS).on_conflict_do_nothing()
                values = [
                    {
                        **row.model_dump(mode="json"),
                        "usage_id": row.usage_id,
                        "engine_id": batch.engine_id,
                        "stored_at": now,
                    }
                    for row in by_id.values()
                ]
                result = await db.execute(statement.returning(ATTEMPTS.c.attempt_id), values)
                new = len(result.all())
                await _add_shares(db, sorted({row.usage_id for row in by_id.values()}))
            totals = {
                **batch.totals.model_dump(), "engine_id": batch.engine_id, "final": batch.final,
                "stored_at": now,
            }  # fmt: skip
            upsert = _insert(db, ENGINE_TOTALS).values(totals)
            await db.execute(
                upsert.on_conflict_do_update(index_elements=["engine_id"], set_=totals)
            )
        return new

    async def resolve(self) -> int:
        """Fills in the tokens that recorders have told by now; returns of how many requests."""
        last = and_(ATTEMPTS.c.attempt_id == USAGE.c.attempt_id, ~USAGE.c.known)
        return await self._resolve(select(USAGE, *_TOLD_TOKENS).join(ATTEMPTS, last))

    async def settle_unknown(self, before: float) -> int:
        """Fills in what was unknown and stored before this Unix time, and no recorder has told.

        A machine that crashed may have lost the journal's record of an attempt: the last that was
        made is billed then, where its recorder has told. Else it is what the row has already.
        Returns how many there were, at most RESOLVED_AT_ONCE.
        """
        last = and_(USAGE.c.attempts == 0, ATTEMPTS.c.attempt_id == _LAST_ATTEMPT)
        unknown = and_(~USAGE.c.known, USAGE.c.status == UsageStatus.UNKNOWN.value)
        query = select(USAGE, *_TOLD_TOKENS).outerjoin(ATTEMPTS, last)
        return await self._resolve(query.where(unknown, USAGE.c.stored_at < before))

    async def _resolve(self, query: Select[Any]) -> int:
        """Fills in the tokens of rows of usage, which the query reads beside `_TOLD_TOKENS`."""
        async with self._store.transaction() as db:
            found = (await db.execute(query.limit(RESOLVED_AT_ONCE))).all()
        if not found:
            return 0
        waiting = sorted(found, key=lambda row: str(row.usage_id))
        book = await self._book()
        # Read and written in two transactions: SQLite cannot turn a reader into a writer while
        # another writes. Only who changes the row adds it to the sums.
        sums: dict[HourKey, Sums] = {}
        async with self._store.transaction() as db:
            resolved = 0
            for row in waiting:
                told = TokenCounts(row.a_prompt, row.a_cached, row.a_completion, row.a_reasoning)
                tokens = usage_of(UsageStatus(row.status), row.delivered, told, self._rule)
                mine = and_(USAGE.c.usage_id == row.usage_id, ~USAGE.c.known)
                values = {field.name: getattr(tokens, field.name) for field in _TOKENS}
                price = _charge(row, tokens, book)
                change = update(USAGE).where(mine).values(known=True, price=price, **values)
                result = await db.execute(change)
                if result.rowcount == 1:
                    resolved += 1
                    one = sums.setdefault(hour_key(row), Sums())
                    one.add_tokens(tokens)
                    one.add_tokens(_tokens(row), -1)
                    one.add_price(price, tokens)
            await _add_sums(db, sums)
        return resolved

    async def prune(self, before: float) -> int:
        """Deletes rows and attempts stored before this Unix time; the hours' sums stay.

        Returns how many were deleted: at most PRUNED_AT_ONCE of each kind.
        """
        deleted = 0
        for table, key in ((USAGE, USAGE.c.usage_id), (ATTEMPTS, ATTEMPTS.c.attempt_id),
                           (ENGINE_TOTALS, ENGINE_TOTALS.c.engine_id)):  # fmt: skip
            oldest = select(key).where(table.c.stored_at < before).limit(PRUNED_AT_ONCE)
            async with self._store.transaction() as db:
                result = await db.execute(delete(table).where(key.in_(oldest.scalar_subquery())))
                deleted += result.rowcount
        return deleted

    async def share(self, since: float) -> int:
        """Corrects the shares of requests stored since then that are not those of their attempts.

        On PostgreSQL a request and its attempt that are stored at the same moment do not see each
        other. Returns how many there were.
        """
        share = USAGE.c.engine_share_s
        wrong = or_(share.is_(None), func.abs(share - _SHARE) > SHARE_GRAIN_S)
        unsaid = and_(USAGE.c.stored_at >= since, _TOLD, wrong)
        async with self._store.transaction() as db:
            result = await db.execute(update(USAGE).where(unsaid).values(engine_share_s=_SHARE))
            return result.rowcount

    def _by_rule(self, row: UsageRow) -> UsageRow:
        """The row as it counts: nothing is owed for what nobody knows, where that is the rule."""
        if row.status is not UsageStatus.UNKNOWN or self._rule == "bill":
            return row
        nothing = {field.name: 0 for field in _TOKENS}
        return row.model_copy(update={"known": True, "estimated": False, **nothing})

    async def _book(self) -> PriceBook:
        return PriceBook(await PriceStore(self._store).token_prices())

    def _values(self, row: UsageRow, now: float, book: PriceBook) -> dict[str, Any]:
        values = row.model_dump()
        values["status"] = row.status.value
        values["attempt_id"] = f"{row.usage_id}-{row.attempts}"
        values["stored_at"] = now
        values["price"] = _charge(row, _tokens(row), book) if values["known"] else None
        return values


_TOKENS = fields(TokenCounts)
_TOLD_TOKENS = [
    func.coalesce(ATTEMPTS.c[one.name], USAGE.c[one.name]).label(f"a_{one.name}") for one in _TOKENS
]

_LAST_ATTEMPT = (
    select(ATTEMPTS.c.attempt_id)
    .where(ATTEMPTS.c.usage_id == USAGE.c.usage_id)
    .order_by(func.length(ATTEMPTS.c.attempt_id).desc(), ATTEMPTS.c.attempt_id.desc())
    .limit(1)
    .correlate(USAGE)
    .scalar_subquery()
)


def hour_key(row: Any) -> HourKey:
    """Where a row of usage is summed up; of a UsageRow, or of a row of the table."""
    hour = int(row.at // 3600)
    return (hour, row.org_id, row.project_id, row.key_id, row.model, row.tier)


_SHARE = (
    select(func.sum(ATTEMPTS.c.share_s))
    .where(ATTEMPTS.c.usage_id == USAGE.c.usage_id)
    .scalar_subquery()
)


_TOLD = (
    select(ATTEMPTS.c.attempt_id)
    .where(ATTEMPTS.c.usage_id == USAGE.c.usage_id, ATTEMPTS.c.share_s.is_not(None))
    .exists()
)


def _charge(row: Any, tokens: TokenCounts, book: PriceBook) -> int | None:
    """What a request is charged, in picodollars; None where nobody set a price for it."""
    price = book.token_price(row.model, row.tier, row.at)
    if price is None:
        return None
    cached = min(tokens.cached, tokens.prompt)
    return min(charge(price, tokens.prompt, cached, tokens.completion), MOST)


async def _add_shares(db: AsyncConnection, usage_ids: Sequence[str]) -> None:
    """Adds up anew what the attempts of these requests had of their engines."""
    if usage_ids:
        mine = and_(USAGE.c.usage_id.in_(usage_ids), _TOLD)
        if db.dialect.name == "postgresql":
            # Two hosts may tell of one request at once: the second waits here, and its update,
            # a statement of its own, then sees what the first has told. In one order everywhere.
            rows = select(USAGE.c.usage_id).where(mine).order_by(USAGE.c.usage_id)
            await db.execute(rows.with_for_update())
        await db.execute(update(USAGE).where(mine).values(engine_share_s=_SHARE))


def _tokens(row: Any) -> TokenCounts:
    return TokenCounts(row.prompt, row.cached, row.completion, row.reasoning)


async def _add_sums(db: AsyncConnection, sums: Mapping[HourKey, Sums]) -> None:
    if not sums:
        return
    statement = _insert(db, USAGE_HOURS)
    names = [field.name for field in fields(Sums)]
    added = {name: USAGE_HOURS.c[name] + statement.excluded[name] for name in names}
    statement = statement.on_conflict_do_update(index_elements=HOUR_KEY, set_=added)
    # In one order everywhere, so that two controllers cannot wait for each other.
    await db.execute(
        statement,
        [
            dict(zip(HOUR_KEY, key, strict=True)) | {name: getattr(one, name) for name in names}
            for key, one in sorted(sums.items())
        ],
    )


def _insert(db: AsyncConnection, table: Table) -> SqliteInsert | PostgresInsert:
    if db.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
