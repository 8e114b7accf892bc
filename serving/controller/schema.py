"""Runs the migrations. Imported only where there is something to migrate: Alembic takes a quarter
of the controller's start."""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from serving.controller.database import DatabaseError

MIGRATIONS = Path(__file__).parent / "migrations"

# Alembic tells the dialect at each run, which is no news.
logging.getLogger("alembic").setLevel(logging.WARNING)


def migrate_to(connection: Connection, revision: str) -> None:
    """Brings the schema to a revision, up (`head`) or down (an older one's number; `base`: an empty
    database).

    Raises:
        DatabaseError: If the schema is none that this version knows.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        if revision == "head":
            command.upgrade(config, revision)
        else:
            command.downgrade(config, revision)
    except CommandError as exc:
        raise DatabaseError(
            f"the database's schema cannot be migrated: {exc}",
            hint="it was written by a newer version of Penstock; install that one",
        ) from exc
