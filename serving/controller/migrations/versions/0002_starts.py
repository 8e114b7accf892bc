"""The last starts of engines."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Makes the table of starts."""
    op.create_table(
        "starts",
        sa.Column("engine_id", sa.String(64), nullable=False),
        sa.Column("start_id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("host_id", sa.String(128), nullable=False),
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("began_at", sa.Float, nullable=False),
        sa.Column("marks", sa.Text, nullable=False),
        sa.Column("waited_s", sa.Float),
        sa.Column("failed_at", sa.Float),
        sa.Column("error", sa.Text),
        sa.Column("hint", sa.Text),
        sa.PrimaryKeyConstraint("engine_id", name="pk_starts"),
    )
    op.create_index("ix_starts_start_id", "starts", ["start_id"])
    op.create_index("ix_starts_began_at", "starts", ["began_at"])


def downgrade() -> None:
    """Drops it."""
    op.drop_table("starts")
