"""Organisations, projects, service accounts, limits, prices and the audit log; keys of tenants."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

DEFAULT_ORG = "org-default"
DEFAULT_PROJECT = "proj-default"
LIVE = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    """Makes the tables and gives the tenants' keys that exist to a default project."""
    _make_tenants()
    _make_rules()
    now = time.time()
    op.execute(
        sa.text("INSERT INTO organizations (org_id, name, created_at) VALUES (:id, 'default', :at)")
        .bindparams(id=DEFAULT_ORG, at=now)
    )  # fmt: skip
    op.execute(
        sa.text(
            "INSERT INTO projects (project_id, org_id, name, created_at) "
            "VALUES (:id, :org, 'default', :at)"
        ).bindparams(id=DEFAULT_PROJECT, org=DEFAULT_ORG, at=now)
    )
    op.execute("INSERT INTO counters (name, value) VALUES ('identities', 1)")
    with op.batch_alter_table("keys") as keys:
        keys.drop_constraint("uq_keys_role", type_="unique")
        keys.add_column(sa.Column("project_id", sa.String(64)))
        keys.add_column(sa.Column("account_id", sa.String(64)))
        keys.add_column(sa.Column("models", sa.Text))
        keys.add_column(sa.Column("expires_at", sa.Float))
        keys.add_column(sa.Column("revoked_at", sa.Float))
        keys.add_column(sa.Column("previous", sa.Text))
        keys.create_foreign_key(
            "fk_keys_project_id_projects", "projects", ["project_id"], ["project_id"]
        )
        keys.create_foreign_key(
            "fk_keys_account_id_service_accounts", "service_accounts", ["account_id"],
            ["account_id"],
        )  # fmt: skip
    op.execute(
        sa.text("UPDATE keys SET project_id = :project WHERE role = 'inference'").bindparams(
            project=DEFAULT_PROJECT
        )
    )


def downgrade() -> None:
    """Drops them. Of keys with the same role and name, the oldest that is valid stays."""
    op.execute("DELETE FROM keys WHERE revoked_at IS NOT NULL OR role IN ('operator', 'viewer')")
    op.execute(
        "DELETE FROM keys WHERE EXISTS (SELECT 1 FROM keys AS older WHERE older.role = keys.role "
        "AND older.name = keys.name AND (older.created_at < keys.created_at OR "
        "(older.created_at = keys.created_at AND older.key_id < keys.key_id)))"
    )
    with op.batch_alter_table("keys") as keys:
        keys.drop_constraint("fk_keys_account_id_service_accounts", type_="foreignkey")
        keys.drop_constraint("fk_keys_project_id_projects", type_="foreignkey")
        for column in ("previous", "revoked_at", "expires_at", "models", "account_id",
                       "project_id"):  # fmt: skip
            keys.drop_column(column)
        keys.create_unique_constraint("uq_keys_role", ["role", "name"])
    for table in ("counters", "audit", "gpu_prices", "token_prices", "spent", "limits",
                  "service_accounts", "projects", "organizations"):  # fmt: skip
        op.drop_table(table)


def _make_tenants() -> None:
    op.create_table(
        "organizations",
        sa.Column("org_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("deleted_at", sa.Float),
        sa.PrimaryKeyConstraint("org_id", name="pk_organizations"),
    )
    op.create_table(
        "projects",
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("org_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("models", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("deleted_at", sa.Float),
        sa.PrimaryKeyConstraint("project_id", name="pk_projects"),
        sa.ForeignKeyConstraint(
            ["org_id"], ["organizations.org_id"], name="fk_projects_org_id_organizations"
        ),
    )
    op.create_table(
        "service_accounts",
        sa.Column("account_id", sa.String(64), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("deleted_at", sa.Float),
        sa.PrimaryKeyConstraint("account_id", name="pk_service_accounts"),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"],
            name="fk_service_accounts_project_id_projects",
        ),
    )  # fmt: skip
    for table, columns in (
        ("organizations", ["name"]),
        ("projects", ["org_id", "name"]),
        ("service_accounts", ["project_id", "name"]),
    ):
        op.create_index(
            f"ux_{table}_name", table, columns,
            unique=True, sqlite_where=LIVE, postgresql_where=LIVE,
        )  # fmt: skip


def _make_rules() -> None:
    op.create_table(
        "limits",
        sa.Column("scope_id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("requests_per_min", sa.BigInteger),
        sa.Column("input_tokens_per_min", sa.BigInteger),
        sa.Column("output_tokens_per_min", sa.BigInteger),
        sa.Column("concurrent", sa.BigInteger),
        sa.Column("max_tokens", sa.BigInteger),
        sa.Column("budget_day", sa.BigInteger),
        sa.Column("budget_month", sa.BigInteger),
        sa.PrimaryKeyConstraint("scope_id", "model", name="pk_limits"),
    )
    op.create_table(
        "spent",
        sa.Column("meter_id", sa.String(255), nullable=False),
        sa.Column("period", sa.String(16), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("meter_id", "period", name="pk_spent"),
    )
    op.create_table(
        "token_prices",
        sa.Column("price_id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("tier", sa.String(32), nullable=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("input", sa.BigInteger, nullable=False),
        sa.Column("cached", sa.BigInteger, nullable=False),
        sa.Column("output", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("price_id", name="pk_token_prices"),
    )
    op.create_table(
        "gpu_prices",
        sa.Column("price_id", sa.String(64), nullable=False),
        sa.Column("accelerator", sa.String(32), nullable=False),
        sa.Column("capacity", sa.String(16), nullable=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("per_hour", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("price_id", name="pk_gpu_prices"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("actor_id", sa.String(64), nullable=False),
        sa.Column("actor_name", sa.String(128), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject_id", sa.String(128), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_subject_id", "audit", ["subject_id"])
    op.create_table(
        "counters",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counters"),
    )
