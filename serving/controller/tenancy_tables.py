"""The tables of tenancy: organisations, projects, service accounts, limits, prices, the audit log.

Keys stand in `tables`, whose metadata these share. Money is whole picodollars.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from serving.controller.tables import METADATA

NAME_LENGTH = 128

ORGANIZATIONS = Table(
    "organizations",
    METADATA,
    Column("org_id", String(64), primary_key=True),
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("deleted_at", Float),
)
PROJECTS = Table(
    "projects",
    METADATA,
    Column("project_id", String(64), primary_key=True),
    Column("org_id", String(64), ForeignKey("organizations.org_id"), nullable=False),
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("models", Text),  # JSON: the only models that it may call; NULL: all
    Column("created_at", Float, nullable=False),
    Column("deleted_at", Float),
)
ACCOUNTS = Table(
    "service_accounts",
    METADATA,
    Column("account_id", String(64), primary_key=True),
    Column("project_id", String(64), ForeignKey("projects.project_id"), nullable=False),
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("deleted_at", Float),
)

_LIVE = text("deleted_at IS NULL")
Index(
    "ux_organizations_name", ORGANIZATIONS.c.name,
    unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE,
)  # fmt: skip
Index(
    "ux_projects_name", PROJECTS.c.org_id, PROJECTS.c.name,
    unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE,
)  # fmt: skip
Index(
    "ux_service_accounts_name", ACCOUNTS.c.project_id, ACCOUNTS.c.name,
    unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE,
)  # fmt: skip

LIMITS = Table(
    "limits",
    METADATA,
    Column("scope_id", String(64), primary_key=True),  # of an organisation, project or key
    Column("model", String(64), primary_key=True),  # or *
    Column("requests_per_min", BigInteger),
    Column("input_tokens_per_min", BigInteger),
    Column("output_tokens_per_min", BigInteger),
    Column("concurrent", BigInteger),
    Column("max_tokens", BigInteger),
    Column("budget_day", BigInteger),
    Column("budget_month", BigInteger),
)
SPENT = Table(
    "spent",
    METADATA,
    Column("meter_id", String(255), primary_key=True),  # whose budget, of which model and kind
    Column("period", String(16), primary_key=True),  # as 2026-11 or 2026-11-21
    Column("amount", BigInteger, nullable=False),
)
TOKEN_PRICES = Table(
    "token_prices",
    METADATA,
    Column("price_id", String(64), primary_key=True),
    Column("model", String(64), nullable=False),  # or *
    Column("tier", String(32), nullable=False),  # or *
    Column("since", Float, nullable=False),
    Column("input", BigInteger, nullable=False),  # for each token
    Column("cached", BigInteger, nullable=False),
    Column("output", BigInteger, nullable=False),
)
GPU_PRICES = Table(
    "gpu_prices",
    METADATA,
    Column("price_id", String(64), primary_key=True),
    Column("accelerator", String(32), nullable=False),
    Column("capacity", String(16), nullable=False),
    Column("since", Float, nullable=False),
    Column("per_hour", BigInteger, nullable=False),  # for each accelerator
)
AUDIT = Table(
    "audit",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False, index=True),
    Column("actor_id", String(64), nullable=False),
    Column("actor_name", String(NAME_LENGTH), nullable=False),
    Column("role", String(16), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject_id", String(128), nullable=False, index=True),
    Column("request_id", String(128), nullable=False),
    Column("before", Text),  # JSON without secrets
    Column("after", Text),
)
COUNTERS = Table(
    "counters",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
IDENTITIES = "identities"
"""The counter that each change of what gateways know of tenants raises."""
