"""The store in one SQLite file: the mock Supabase, for zero-configuration use and as test double.

WAL lets readers read while one process writes; writers queue on SQLite's own lock. Transactions on
rows, cursors and tokens are synced to disk (``synchronous=FULL``). A killed process never loses
what was committed anyway, but after a power cut ``change_seq`` must not go back, or a reader that
polls "since N" would miss rows for ever. Heartbeats and rate limits are not synced: losing them is
harmless.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Table, create_engine, event, inspect
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.schema import CreateColumn

from file_connector.destination.rows import Row
from file_connector.destination.running import claim, release
from file_connector.destination.sql_store import SqlStore
from file_connector.destination.tables import (
    FILE_COLUMNS,
    JsonValue,
    Moment,
    change_counter,
    files,
    metadata,
)
from file_connector.destination.transactions import translating
from file_connector.errors import BusyError, ConfigurationError
from file_connector.models import Identity, Mode, Outcome
from file_connector.times import utc_now

BUSY_SECONDS = 30.0
WAL_TRIES = 100
OLDEST = (3, 35, 0)
"""The first SQLite with RETURNING."""

_MET_BEFORE = (
    "INSERT INTO sync_met (endpoint_id, pass_no, part, ids) "
    "SELECT endpoint_id, pass_no, -1, json_group_array(external_id) FROM sync_seen GROUP BY 1, 2"
)
"""Older files hold what a listing has met one by one."""

_DIALECT = sqlite_dialect()


class SqliteStore(SqlStore):
    """A store in the file at ``path``; file and tables are made on first use.

    Args:
        path: the file; its directory is made too.
        busy_seconds: how long to wait for other writers.
        options: the keyword arguments of ``SqlStore``.
    """

    def __init__(self, path: Path, *, busy_seconds: float = BUSY_SECONDS, **options: Any) -> None:
        self._path = path
        engine = create_engine(
            URL.create("sqlite", database=str(path)),
            connect_args={"timeout": busy_seconds, "check_same_thread": False},
            hide_parameters=True,
        )
        event.listen(engine, "connect", _set_up)
        super().__init__(engine, **options)

    def migrate(self, *, dry_run: bool = False) -> Sequence[str]:
        if sqlite3.sqlite_version_info < OLDEST:
            raise ConfigurationError(
                f"this Python brings SQLite {sqlite3.sqlite_version}, too old for File Connector",
                remedy="Use a Python with SQLite 3.35 or newer.",
            )
        with translating():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._engine.connect() as conn:
                if dry_run:
                    return _differences(conn)
                if not _differences(conn):
                    return ()
                conn.exec_driver_sql("BEGIN IMMEDIATE")
                missing = _differences(conn)
                metadata.create_all(conn)
                for name in missing:
                    if "." in name:
                        _add_column(conn, name)
                for table in metadata.sorted_tables:
                    for index in table.indexes:
                        index.create(conn, checkfirst=True)
                if inspect(conn).has_table("sync_seen"):
                    conn.exec_driver_sql(_MET_BEFORE)
                    conn.exec_driver_sql("DROP TABLE sync_seen")
                conn.execute(insert(change_counter).values(id=1, value=0).on_conflict_do_nothing())
                conn.commit()
                return missing

    def begin_run(self, identity: Identity, mode: Mode, run_id: str, dead: str = "") -> None:
        lock = self._path.with_name(f"{self._path.name}-{identity.endpoint_id}.lock")
        with claim(lock) as claimed:
            try:
                super().begin_run(identity, mode, run_id, dead or claimed.dead)
            except BusyError as busy:
                if claimed.alive:
                    busy.free_at = None
                raise
            claimed.keep(run_id)

    def finish_run(
        self, run_id: str, outcome: Outcome, reason: str, api_calls: int, missed: int
    ) -> None:
        super().finish_run(run_id, outcome, reason, api_calls, missed)
        release(run_id)

    def _make_ready(self) -> None:
        self.migrate()

    def _begin(self, conn: Connection, durable: bool) -> None:
        conn.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        conn.exec_driver_sql("BEGIN IMMEDIATE")

    def _now(self, conn: Connection) -> datetime:
        return (self._clock or utc_now)()

    def _ensure_row(self, conn: Connection, table: Table, row: Row) -> None:
        conn.execute(insert(table).values(row).on_conflict_do_nothing())

    def _merge(
        self, conn: Connection, table: Table, rows: Sequence[Row], keep: Collection[str] = ()
    ) -> None:
        if not rows:
            return
        conn.execute(_upsert(table, tuple(keep)), rows)

    def _insert_files(self, conn: Connection, rows: Iterable[Row]) -> None:
        conn.exec_driver_sql(_INSERT_FILE, [_bound(row) for row in rows])


@lru_cache
def _upsert(table: Table, keep: tuple[str, ...]) -> Insert:
    key = [column.name for column in table.primary_key]
    statement = insert(table)
    changes = {
        column.name: statement.excluded[column.name]
        for column in table.columns
        if column.name not in key and column.name not in keep
    }
    return statement.on_conflict_do_update(index_elements=key, set_=changes)


_INSERT_FILE = (
    f"INSERT INTO files ({', '.join(FILE_COLUMNS)}) VALUES ({', '.join('?' * len(FILE_COLUMNS))})"
)
_BINDERS = [
    (place, bind)
    for place, column in enumerate(files.columns)
    if isinstance(column.type, (Moment, JsonValue))
    and (bind := column.type.dialect_impl(_DIALECT).bind_processor(_DIALECT))
]
_values: Callable[[Row], tuple[Any, ...]] = itemgetter(*FILE_COLUMNS)


def _bound(row: Row) -> tuple[Any, ...]:
    """A row of ``files`` as the driver takes it."""
    values = list(_values(row))
    for place, bind in _BINDERS:
        if values[place] is not None:
            values[place] = bind(values[place])
    return tuple(values)


def _set_up(connection: sqlite3.Connection, _: object) -> None:
    """Transactions are opened by us (``_begin``), not guessed by the driver."""
    connection.isolation_level = None
    # SQLite's own waiting does not cover the switch to WAL when several processes make it at once.
    for attempt in range(WAL_TRIES):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == WAL_TRIES - 1:
                raise
            time.sleep(0.05)
    connection.execute("PRAGMA foreign_keys = ON")


def _differences(conn: Connection) -> Sequence[str]:
    """What the file lacks: a ``table``, a ``table.column`` or an index."""
    inspector = inspect(conn)
    there = set(inspector.get_table_names())
    missing: list[str] = []
    for table in metadata.sorted_tables:
        if table.name not in there:
            missing.append(table.name)
            continue
        held = {column["name"] for column in inspector.get_columns(table.name)}
        missing += [f"{table.name}.{c.name}" for c in table.columns if c.name not in held]
        indexed = {index["name"] for index in inspector.get_indexes(table.name)}
        missing += [str(i.name) for i in table.indexes if i.name not in indexed]
    return missing


def _add_column(conn: Connection, name: str) -> None:
    table, column = name.split(".")
    definition = CreateColumn(metadata.tables[table].c[column]).compile(conn)
    conn.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {definition}")
