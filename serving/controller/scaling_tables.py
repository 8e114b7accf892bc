"""The autoscaler's tables: what it decided, remembers and learned, and the demand that it saw."""

from sqlalchemy import Column, Float, Index, Integer, String, Table, Text

from serving.controller.tables import METADATA

DECISIONS = Table(
    "decisions",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("at", Float, nullable=False),  # Unix seconds
    Column("before", Integer, nullable=False),
    Column("decision", Text, nullable=False),  # JSON of autoscaler.snapshot.Decision
    Column("seen", Text, nullable=False),  # JSON of autoscaler.snapshot.Snapshot
    Index("ix_decisions_model_id", "model", "id"),
)

MEMORIES = Table(
    "autoscaler_memories",
    METADATA,
    Column("model", String(64), primary_key=True),
    Column("at", Float, nullable=False),  # Unix seconds; the memory's times count from then
    Column("memory", Text, nullable=False),  # JSON of autoscaler.snapshot.Memory
)

CAPACITIES = Table(
    "capacities",
    METADATA,
    Column("model", String(64), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("pool", String(64), primary_key=True),
    Column("at", Float, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("steps", Text, nullable=False),  # JSON of autoscaler.learning.Steps
)

DEMAND = Table(
    "demand",
    METADATA,
    Column("model", String(64), primary_key=True),
    Column("at", Integer, primary_key=True, autoincrement=False),  # Unix seconds, whole
    Column("arrivals", Integer, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("finished", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
)
