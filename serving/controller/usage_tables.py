"""The tables of metering; see `docs/concepts/metering.md` for what stands in them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    String,
    Table,
    false,
    text,
)

from serving.controller.tables import METADATA

USAGE = Table(
    "usage",
    METADATA,
    Column("usage_id", String(64), primary_key=True),
    Column("attempt_id", String(80), nullable=False),  # of the last attempt
    Column("org_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("route", String(64), nullable=False),
    Column("tier", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("http_status", Integer, nullable=False),
    Column("at", Float, nullable=False, index=True),  # Unix seconds, by the gateway's clock
    Column("ttft_s", Float),
    Column("duration_s", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("engine_id", String(64), nullable=False),
    Column("prompt", Integer, nullable=False),
    Column("cached", Integer, nullable=False),
    Column("completion", Integer, nullable=False),
    Column("reasoning", Integer, nullable=False),
    Column("delivered", Integer, nullable=False),
    Column("known", Boolean, nullable=False),  # False: the recorder has to tell the tokens
    # The tokens were guessed: nobody counted them.
    Column("estimated", Boolean, nullable=False, server_default=false()),
    Column("stored_at", Float, nullable=False, index=True),  # by the controller's clock
    Column("price", BigInteger),  # picodollars charged; None: not yet, or nobody set a price
    Column("engine_share_s", Float),  # of its engines' time; None: no recorder has told
    Index(
        "ix_usage_unresolved",
        "attempt_id",
        sqlite_where=text("NOT known"),
        postgresql_where=text("NOT known"),
    ),
)

ATTEMPTS = Table(
    "attempts",
    METADATA,
    Column("attempt_id", String(64), primary_key=True),
    Column("usage_id", String(64), nullable=False, index=True),
    Column("engine_id", String(64), nullable=False, index=True),
    Column("outcome", String(16), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float, nullable=False),
    Column("prompt", Integer, nullable=False),
    Column("cached", Integer, nullable=False),
    Column("completion", Integer, nullable=False),
    Column("reasoning", Integer, nullable=False),
    Column("stored_at", Float, nullable=False, index=True),
    Column("share_s", Float),  # of the engine's time; None: its recorder did not say
)

ENGINE_TOTALS = Table(
    "engine_totals",
    METADATA,
    Column("engine_id", String(64), primary_key=True),
    Column("attempts", BigInteger, nullable=False),
    Column("prompt", BigInteger, nullable=False),
    Column("completion", BigInteger, nullable=False),
    Column("other_prompt", BigInteger, nullable=False),
    Column("other_completion", BigInteger, nullable=False),
    Column("lost", BigInteger, nullable=False),
    Column("engine_prompt", BigInteger, nullable=False),
    Column("engine_completion", BigInteger, nullable=False),
    Column("final", Boolean, nullable=False),
    Column("stored_at", Float, nullable=False, index=True),
)

USAGE_HOURS = Table(
    "usage_hours",
    METADATA,
    Column("hour", Integer, primary_key=True, autoincrement=False),  # Unix seconds / 3600
    Column("org_id", String(64), primary_key=True),
    Column("project_id", String(64), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("tier", String(16), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("unknown", BigInteger, nullable=False),  # requests of this status
    Column("prompt", BigInteger, nullable=False),
    Column("cached", BigInteger, nullable=False),
    Column("completion", BigInteger, nullable=False),
    Column("reasoning", BigInteger, nullable=False),
    Column("engine_s", Float, nullable=False),  # seconds that requests spent at engines or waiting
    # What USAGE.price adds up to, and the tokens that it is for: the rest is priced when read.
    Column("charged", BigInteger, nullable=False, server_default=text("0")),
    Column("charged_prompt", BigInteger, nullable=False, server_default=text("0")),
    Column("charged_cached", BigInteger, nullable=False, server_default=text("0")),
    Column("charged_completion", BigInteger, nullable=False, server_default=text("0")),
)
