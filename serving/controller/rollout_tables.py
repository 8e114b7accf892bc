"""The table of canaries that are on their way."""

from sqlalchemy import Boolean, Column, Float, Integer, String, Table

from serving.controller.tables import METADATA

ROLLOUTS = Table(
    "rollouts",
    METADATA,
    Column("model", String(64), primary_key=True),
    Column("stable", Integer, nullable=False),
    Column("candidate", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("step_at", Float, nullable=False),  # Unix seconds
    Column("paused", Boolean, nullable=False),
)
