"""Usage, attempts, the engines' totals, and the sums of each hour."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Makes the four tables of metering."""
    _make_usage()
    op.create_table(
        "attempts",
        sa.Column("attempt_id", sa.String(64), nullable=False),
        sa.Column("usage_id", sa.String(64), nullable=False),
        sa.Column("engine_id", sa.String(64), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float, nullable=False),
        sa.Column("prompt", sa.Integer, nullable=False),
        sa.Column("cached", sa.Integer, nullable=False),
        sa.Column("completion", sa.Integer, nullable=False),
        sa.Column("reasoning", sa.Integer, nullable=False),
        sa.Column("stored_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_attempts"),
    )
    for column in ("usage_id", "engine_id", "stored_at"):
        op.create_index(f"ix_attempts_{column}", "attempts", [column])
    _make_sums()


def _make_usage() -> None:
    op.create_table(
        "usage",
        sa.Column("usage_id", sa.String(64), nullable=False),
        sa.Column("attempt_id", sa.String(80), nullable=False),
        sa.Column("org_id", sa.String(64), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("route", sa.String(64), nullable=False),
        sa.Column("tier", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("http_status", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("ttft_s", sa.Float),
        sa.Column("duration_s", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("engine_id", sa.String(64), nullable=False),
        sa.Column("prompt", sa.Integer, nullable=False),
        sa.Column("cached", sa.Integer, nullable=False),
        sa.Column("completion", sa.Integer, nullable=False),
        sa.Column("reasoning", sa.Integer, nullable=False),
        sa.Column("delivered", sa.Integer, nullable=False),
        sa.Column("known", sa.Boolean, nullable=False),
        sa.Column("stored_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("usage_id", name="pk_usage"),
    )
    op.create_index("ix_usage_at", "usage", ["at"])
    op.create_index("ix_usage_stored_at", "usage", ["stored_at"])
    op.create_index(
        "ix_usage_unresolved", "usage", ["attempt_id"],
        sqlite_where=sa.text("NOT known"), postgresql_where=sa.text("NOT known"),
    )  # fmt: skip


def _make_sums() -> None:
    totals = ("attempts", "prompt", "completion", "other_prompt", "other_completion", "lost",
              "engine_prompt", "engine_completion")  # fmt: skip
    op.create_table(
        "engine_totals",
        sa.Column("engine_id", sa.String(64), nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in totals),
        sa.Column("final", sa.Boolean, nullable=False),
        sa.Column("stored_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("engine_id", name="pk_engine_totals"),
    )
    op.create_index("ix_engine_totals_stored_at", "engine_totals", ["stored_at"])
    key = ("org_id", "project_id", "key_id", "model")
    sums = ("requests", "unknown", "prompt", "cached", "completion", "reasoning")
    op.create_table(
        "usage_hours",
        sa.Column("hour", sa.Integer, nullable=False, autoincrement=False),
        *(sa.Column(name, sa.String(64), nullable=False) for name in key),
        sa.Column("tier", sa.String(16), nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in sums),
        sa.Column("engine_s", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("hour", *key, "tier", name="pk_usage_hours"),
    )


def downgrade() -> None:
    """Drops them."""
    for table in ("usage_hours", "engine_totals", "attempts", "usage"):
        op.drop_table(table)
