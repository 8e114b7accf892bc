"""What the autoscaler decided, remembers and learned, and the demand that it saw."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Makes the four tables."""
    op.create_table(
        "decisions",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("before", sa.Integer, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("seen", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
    )
    op.create_index("ix_decisions_model_id", "decisions", ["model", "id"])
    op.create_table(
        "autoscaler_memories",
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("memory", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("model", name="pk_autoscaler_memories"),
    )
    op.create_table(
        "capacities",
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("steps", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("model", "revision", "pool", name="pk_capacities"),
    )
    op.create_table(
        "demand",
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("at", sa.Integer, nullable=False),
        sa.Column("arrivals", sa.Integer, nullable=False),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("finished", sa.Integer, nullable=False),
        sa.Column("output_tokens", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("model", "at", name="pk_demand"),
    )


def downgrade() -> None:
    """Drops them."""
    for table in ("demand", "capacities", "autoscaler_memories", "decisions"):
        op.drop_table(table)
