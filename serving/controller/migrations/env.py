"""Alembic's entry: runs the migrations on the connection that `migrate` hands over."""

import importlib
import pkgutil

from alembic import context

from serving import controller
from serving.controller.tables import METADATA

# Every module `*_tables` declares tables in METADATA.
for module in pkgutil.iter_modules(controller.__path__):
    if module.name.endswith("_tables"):
        importlib.import_module(f"{controller.__name__}.{module.name}")

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
