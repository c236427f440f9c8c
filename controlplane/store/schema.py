"""Bringing the database's schema to what this version of WAP needs."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from controlplane.domain.failure import FailureCode, WapFailure
from controlplane.store import alert_tables
from controlplane.store.tables import Base

# Naming one of its tables is what makes them known.
TABLES = (Base.metadata, alert_tables.Alert.__table__)
# Any number of control planes may start at once on one PostgreSQL; one of them migrates.
MIGRATION_LOCK = 7_461_001


def ours(_item: Any, name: str | None, kind: str, _reflected: bool, _compare_to: Any) -> bool:
    """Whether alembic should look at this object: DBOS keeps its tables in the same SQLite file."""
    return kind != "table" or name in Base.metadata.tables


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration without a file."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    settings.attributes["connection"] = connection
    return settings


def migrate(engine: Engine) -> None:
    """Upgrade to the newest schema. Refuses a database that a newer WAP has upgraded."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        settings = config(connection)
        found = MigrationContext.configure(connection).get_current_revision()
        known = {script.revision for script in ScriptDirectory.from_config(settings).walk_revisions()}
        if found is not None and found not in known:
            raise WapFailure(
                FailureCode.INTERNAL,
                f"the database has schema {found}, which this version of WAP does not know: run a newer version",
                field="db",
                given=found,
                allowed=", ".join(sorted(known)),
            )
        command.upgrade(settings, "head")
