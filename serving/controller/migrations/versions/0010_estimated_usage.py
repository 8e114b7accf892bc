"""Which requests' tokens were guessed; of rows from before nobody knows it."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision: str | None = "0009"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Adds the column."""
    column = sa.Column("estimated", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("usage", column)


def downgrade() -> None:
    """Drops it."""
    op.drop_column("usage", "estimated")
