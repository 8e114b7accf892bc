"""The table of who leads: one row, made by its migration and never deleted."""

from sqlalchemy import BigInteger, Column, Float, Integer, String, Table, Text

from serving.controller.tables import METADATA

LEADERSHIP_ROW = 1

LEADERSHIP = Table(
    "leadership",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("holder", String(64), nullable=False),
    Column("url", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("expires_at", Float, nullable=False),  # Unix seconds of the database's clock
)
