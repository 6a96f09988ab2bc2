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

from file_connector.destination.tables import files, metadata
from file_connector.errors import ConfigurationError

MIGRATIONS = resources.files("file_connector.destination") / "supabase" / "migrations"
MIGRATE = "Run `file-connector migrate`."

LOCK_SECONDS = 3.0
"""How long a migration waits for a lock before it gives way to those behind it."""

SCHEMA = "public"
"""Where the tables are, whatever else the login's search_path looks into."""

_NAME = "file_connector_migrations"
_TABLE = f"{SCHEMA}.{_NAME}"
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
    # Whoever waits for a table's lock makes everybody else wait behind him: not for long. What is
    # done under the lock may take its time.
    conn.exec_driver_sql(
        f"set local lock_timeout = {LOCK_SECONDS * 1000:.0f}; set local statement_timeout = 0"
    )
    applied = _applied(conn)
    for migration in wanted:
        checksum = applied.get(migration.name)
        if checksum is not None and checksum != migration.checksum:
            raise ConfigurationError(
                f"migration '{migration.name}' was edited after it was applied to this database",
                remedy="Restore the file as it was shipped, and put changes into a new one.",
            )
    missing = [m for m in wanted if m.name not in applied]
    if not missing and _lost(conn):
        missing = list(wanted)  # each may be applied again
    if not applied and _taken(conn):
        raise ConfigurationError(
            f"{SCHEMA}.{files.name} is there already and is not ours",
            remedy="Rename it, or let File Connector write to a database of its own.",
        )
    if dry_run:
        return [m.name for m in missing]
    for migration in missing:
        conn.exec_driver_sql(migration.sql, execution_options={"no_parameters": True})
    for migration in wanted:
        if applied.get(migration.name) is None:
            conn.execute(
                text(f"update {_TABLE} set checksum = :checksum where name = :name"),
                {"checksum": migration.checksum, "name": migration.name},
            )
    return [m.name for m in missing]


def require(conn: Connection) -> None:
    """Raises ConfigurationError unless every migration of this version is applied."""
    applied = _applied(conn)
    missing = ", ".join(m.name for m in shipped() if m.name not in applied)
    if not missing:
        return
    if conn.scalar(text(f"select row_security_active(to_regclass('{_TABLE}'))")):
        raise hidden_error([_NAME])  # the list is there, and looks empty
    if not applied:
        raise ConfigurationError("the tables are missing", remedy=MIGRATE)
    raise ConfigurationError(
        f"the tables are those of an older version: they lack {missing}", remedy=MIGRATE
    )


def hidden_error(tables: Sequence[str]) -> ConfigurationError:
    return ConfigurationError(
        f"row-level security hides the rows of {', '.join(tables)} from this database login",
        remedy="Let SUPABASE_DB_URL log in as the owner of the tables (on Supabase: postgres).",
    )


def _lost(conn: Connection) -> bool:
    """Whether somebody dropped a table."""
    names = [table.name for table in metadata.sorted_tables]
    return bool(
        conn.scalar(
            text(
                f"select bool_or(to_regclass('{SCHEMA}.' || n) is null) "
                "from unnest(cast(:names as text[])) n"
            ),
            {"names": names},
        )
    )


def _taken(conn: Connection) -> bool:
    """Whether another application has something of the name `files`."""
    return bool(
        conn.scalar(
            text(
                "select c.relkind <> 'r' or not exists (select from pg_attribute a "
                f"where a.attrelid = c.oid and a.attname = '{files.c.change_seq.name}') "
                "from pg_class c where c.oid = to_regclass(:files)"
            ),
            {"files": f"{SCHEMA}.{files.name}"},
        )
    )


def _applied(conn: Connection) -> dict[str, str | None]:
    if conn.scalar(text(f"select to_regclass('{_TABLE}')")) is None:
        return {}
    rows = conn.execute(text(f"select name, checksum from {_TABLE}"))
    return {row.name: row.checksum for row in rows}
