"""What each request was charged, and its share of its engines' time.

Rows from before have neither: they are priced by the book when they are read, as they were.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision: str | None = "0008"
branch_labels: str | None = None
depends_on: str | None = None

SUMS = ("charged", "charged_prompt", "charged_cached", "charged_completion")


def upgrade() -> None:
    """Adds the columns."""
    op.add_column("usage", sa.Column("price", sa.BigInteger))
    op.add_column("usage", sa.Column("engine_share_s", sa.Float))
    op.add_column("attempts", sa.Column("share_s", sa.Float))
    for name in SUMS:
        column = sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))
        op.add_column("usage_hours", column)


def downgrade() -> None:
    """Drops them: what was charged is reckoned by the book again."""
    for name in SUMS:
        op.drop_column("usage_hours", name)
    op.drop_column("attempts", "share_s")
    op.drop_column("usage", "engine_share_s")
    op.drop_column("usage", "price")
