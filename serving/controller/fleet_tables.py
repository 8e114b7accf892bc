"""The table of what accelerators were used for, by the hour."""

from sqlalchemy import BigInteger, Column, Integer, String, Table

from serving.controller.tables import METADATA

FLEET_HOURS = Table(
    "fleet_hours",
    METADATA,
    Column("hour", Integer, primary_key=True, autoincrement=False),  # Unix seconds / 3600
    Column("accelerator", String(32), primary_key=True),
    Column("capacity", String(16), primary_key=True),
    Column("model", String(64), primary_key=True),  # empty: hosts without an engine
    Column("held_ms", BigInteger, nullable=False),  # accelerator-milliseconds
    Column("busy_ms", BigInteger, nullable=False),  # of these, with a request in the engine
    Column("sleeps", Integer, nullable=False),  # engines that went down in this hour
)
