"""Who leads, where several controllers share the database."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision: str | None = "0007"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Makes the table and its one row: nobody has led yet."""
    leadership = op.create_table(
        "leadership",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_leadership"),
    )
    op.bulk_insert(leadership, [{"id": 1, "holder": "", "url": "", "token": 0, "expires_at": 0.0}])


def downgrade() -> None:
    """Drops it."""
    op.drop_table("leadership")
