"""What accelerators were used for, by the hour."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "fleet_hours",
        sa.Column("hour", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("accelerator", sa.String(32), nullable=False),
        sa.Column("capacity", sa.String(16), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("held_ms", sa.BigInteger, nullable=False),
        sa.Column("busy_ms", sa.BigInteger, nullable=False),
        sa.Column("sleeps", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("hour", "accelerator", "capacity", "model", name="pk_fleet_hours"),
    )


def downgrade() -> None:
    """Drops it."""
    op.drop_table("fleet_hours")
