"""Brings a Postgres database to this version: the files in ``supabase/migrations``, in name order.

The same files can be pushed by Supabase's own tool. Each ends by entering its name into
``file_connector_migrations``, so either way of applying is seen by the other; the checksum is
entered here. An applied file is never edited: add a new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from sqlalchemy import Connection, text

from file_connector.errors import ConfigurationError

MIGRATIONS = resources.files("file_connector.destination") / "supabase" / "migrations"
_LOCK = 5_264_820_251
"""Key of the advisory lock that lets one migrator at a time work; held by its transaction."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. ``name`` is its name without ``.sql``."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def shipped() -> Sequence[Migration]:
    """The migrations of this version, in order."""
    found = [
        Migration(entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8"))
        for entry in MIGRATIONS.iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.name)


def migrate(
    conn: Connection, *, dry_run: bool = False, wanted: Sequence[Migration] | None = None
) -> Sequence[str]:
    """Apply what is missing, all or nothing, inside the caller's transaction.

    A second migrator waits for the first and then finds nothing to do. Raises ConfigurationError if
    a file that was applied is no longer what it was (drift).

    Args:
        dry_run: change nothing.
        wanted: the migrations to bring the database to; those shipped if not given.

    Returns: the names of what was (or would be) applied.
    """
    wanted = shipped() if wanted is None else wanted
    conn.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    applied = _applied(conn)
    for migration in wanted:
        checksum = applied.get(migration.name)
        if checksum is not None and checksum != migration.checksum:
            raise ConfigurationError(
                f"migration '{migration.name}' was edited after it was applied to this database",
                remedy="Restore the file as it was shipped, and put changes into a new one.",
            )
    missing = [m for m in wanted if m.name not in applied]
    if dry_run:
        return [m.name for m in missing]
    for migration in missing:
        conn.exec_driver_sql(migration.sql, execution_options={"no_parameters": True})
    for migration in wanted:
        if applied.get(migration.name) is None:
            conn.execute(
                text(
                    "update file_connector_migrations set checksum = :checksum where name = :name"
                ),
                {"checksum": migration.checksum, "name": migration.name},
            )
    return [m.name for m in missing]


def missing(conn: Connection) -> Sequence[str]:
    """Names of the shipped migrations that this database lacks."""
    applied = _applied(conn)
    return [m.name for m in shipped() if m.name not in applied]


def hidden(conn: Connection) -> bool:
    """Whether this login would not see the list of migrations even if there is one."""
    return bool(
        conn.scalar(
            text(
                "select row_security_active(to_regclass('file_connector_migrations')) "
                "where to_regclass('file_connector_migrations') is not null"
            )
        )
    )


def _applied(conn: Connection) -> dict[str, str | None]:
    if conn.scalar(text("select to_regclass('file_connector_migrations')")) is None:
        return {}
    rows = conn.execute(text("select name, checksum from file_connector_migrations"))
    return {row.name: row.checksum for row in rows}
