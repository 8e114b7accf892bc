"""Canaries that are on their way, and who deployed each revision."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Makes the table, and a column for the author."""
    op.create_table(
        "rollouts",
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("stable", sa.Integer, nullable=False),
        sa.Column("candidate", sa.Integer, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("step_at", sa.Float, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("model", name="pk_rollouts"),
    )
    with op.batch_alter_table("revisions") as revisions:
        revisions.add_column(
            sa.Column("author", sa.String(128), nullable=False, server_default=sa.text("''"))
        )


def downgrade() -> None:
    """Drops both."""
    with op.batch_alter_table("revisions") as revisions:
        revisions.drop_column("author")
    op.drop_table("rollouts")
