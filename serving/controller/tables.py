"""The tables of the registry; `migrations/versions/` makes and changes them."""

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Constraints have names in every database, so that a migration can change them."""

MODELS = Table(
    "models",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("created_at", Float, nullable=False),  # Unix seconds of the first deploy
    Column("revision", Integer, nullable=False),  # the current one
    Column("deleted", Boolean, nullable=False),
)

REVISIONS = Table(
    "revisions",
    METADATA,
    Column("model", String(64), ForeignKey("models.name"), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("created_at", Float, nullable=False),
    Column("manifest", Text, nullable=False),  # JSON
    Column("author", String(128), nullable=False, server_default=text("''")),
)

KEYS = Table(
    "keys",
    METADATA,
    Column("key_id", String(64), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("prefix", String(16), nullable=False, index=True),
    Column("salt", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("project_id", String(64), ForeignKey("projects.project_id")),  # NULL: the platform's own
    Column("account_id", String(64), ForeignKey("service_accounts.account_id")),
    Column("models", Text),  # JSON: the only models that it may call; NULL: all
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("previous", Text),  # JSON: the secret before the last rotation
)

EVENTS = Table(
    "events",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("model", String(64), index=True),
    Column("engine_id", String(64)),
    Column("message", Text, nullable=False),
)

STARTS = Table(
    "starts",
    METADATA,
    Column("engine_id", String(64), primary_key=True),
    Column("start_id", String(64), nullable=False, index=True),
    Column("model", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("host_id", String(128), nullable=False),
    Column("node", String(255), nullable=False),
    Column("began_at", Float, nullable=False, index=True),  # Unix seconds
    Column("marks", Text, nullable=False),  # JSON: phase -> Unix seconds
    Column("waited_s", Float),
    Column("failed_at", Float),
    Column("error", Text),
    Column("hint", Text),
)
