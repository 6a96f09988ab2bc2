"""The store in Postgres: Supabase, directly or through a pooler, or any other.

Fit for transaction poolers: no session settings (``SET LOCAL`` only), no prepared statements
(psycopg2 makes none), no session locks, no temporary tables.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from operator import itemgetter
from secrets import token_hex
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Table,
    create_engine,
    exc,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert

from file_connector.destination import migrations
from file_connector.destination.failures import MIGRATE
from file_connector.destination.rows import Row
from file_connector.destination.sql_store import SqlStore
from file_connector.destination.tables import dumps, files, sync_seen
from file_connector.errors import ConfigurationError

LOCK_SECONDS = 30.0
STATEMENT_SECONDS = 110.0

_CONNECTION = {
    "connect_timeout": 5,
    "application_name": "file-connector",
    # A network that died silently is noticed within a minute or so.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}

_NOT_FOR_LIBPQ = ("pgbouncer", "connection_limit", "pool_timeout")
"""Options that other tools keep in the same URL; Supabase's own examples contain the first two."""


class PostgresStore(SqlStore):
    """A store in the database at ``url``.

    Args:
        url: postgres:// or postgresql://; options in it (sslmode, connect_timeout, ...) are kept.
        lock_seconds, statement_seconds: how long a transaction may wait for a lock, and one
            statement may take, before the database gives up on it.
        options: the keyword arguments of ``SqlStore``.
    """

    def __init__(
        self,
        url: str,
        *,
        lock_seconds: float = LOCK_SECONDS,
        statement_seconds: float = STATEMENT_SECONDS,
        **options: Any,
    ) -> None:
        self._limits = (
            f"set local lock_timeout = {lock_seconds * 1000:.0f};"
            f"set local statement_timeout = {statement_seconds * 1000:.0f}"
        )
        parsed = driver_url(url)
        engine = create_engine(
            parsed,
            connect_args={k: v for k, v in _CONNECTION.items() if k not in parsed.query},
            pool_pre_ping=True,
            pool_size=2,
            max_overflow=6,
            use_native_hstore=False,
            hide_parameters=True,
        )
        super().__init__(engine, **options)

    def migrate(self, *, dry_run: bool = False) -> Sequence[str]:
        with self._translating(), self._engine.begin() as conn:
            return migrations.migrate(conn, dry_run=dry_run)

    def _make_ready(self) -> None:
        with self._engine.connect() as conn:
            missing = migrations.missing(conn)
            hidden = bool(missing) and migrations.hidden(conn)
        if hidden:
            raise ConfigurationError(
                "row-level security hides the tables from this database login",
                remedy="Let SUPABASE_DB_URL log in as their owner (on Supabase: postgres).",
            )
        if missing:
            raise ConfigurationError(
                f"the database lacks {', '.join(missing)}: its tables are missing or old",
                remedy=MIGRATE,
            )

    def _begin(self, conn: Connection, durable: bool) -> None:
        lax = "" if durable else ";set local synchronous_commit = off"
        conn.exec_driver_sql(self._limits + lax)

    def _now(self, conn: Connection) -> datetime:
        if self._clock is not None:
            return self._clock()
        now: datetime = conn.execute(select(func.clock_timestamp())).scalar_one()
        return now

    def _ensure_row(self, conn: Connection, table: Table, row: Row) -> None:
        conn.execute(insert(table).values(row).on_conflict_do_nothing())

    def _merge(
        self, conn: Connection, table: Table, rows: Sequence[Row], keep: Collection[str] = ()
    ) -> None:
        """All rows travel as one JSON value, in one round trip."""
        if not rows:
            return
        key = [column.name for column in table.primary_key]
        columns = [column.name for column in table.columns]
        changes = ", ".join(
            f"{name} = excluded.{name}" for name in columns if name not in key and name not in keep
        )
        conn.execute(
            text(
                f"insert into {table.name} "
                f"select * from json_populate_recordset(null::{table.name}, :rows) "
                f"on conflict ({', '.join(key)}) do update set {changes}"
            ),
            {"rows": json.dumps(rows, default=_time, ensure_ascii=False)},
        )

    def _insert_files(self, conn: Connection, rows: Sequence[Row]) -> None:
        data = "".join(map(_line, map(_values, rows)))
        cursor: Any = conn.connection.cursor()  # of the driver, inside our transaction
        cursor.copy_expert(
            f"copy {files.name} ({', '.join(_COLUMNS)}) from stdin null '{_NULL}'",
            io.StringIO(data),
        )

    def _mark_seen(
        self, conn: Connection, endpoint_id: str, pass_no: int, ids: Sequence[str]
    ) -> None:
        if ids:
            conn.execute(
                text(
                    f"insert into {sync_seen.name} (endpoint_id, pass_no, external_id) "
                    "select :endpoint_id, :pass_no, unnest(cast(:ids as text[])) "
                    "on conflict do nothing"
                ),
                {"endpoint_id": endpoint_id, "pass_no": pass_no, "ids": list(ids)},
            )


def driver_url(url: str) -> URL:
    """``url`` for SQLAlchemy with the one driver we use, whichever spelling it came in.

    Raises ConfigurationError, without showing the URL, if it is not one of Postgres.
    """
    remedy = "It reads postgresql://user:password@host:port/database (% in a password is %25)."
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        raise ConfigurationError("SUPABASE_DB_URL is not a URL.", remedy=remedy) from None
    if parsed.drivername.split("+")[0] not in ("postgres", "postgresql"):
        raise ConfigurationError(
            f"SUPABASE_DB_URL begins with '{parsed.drivername}://', not with 'postgresql://'.",
            remedy=remedy,
        )
    return parsed.set(drivername="postgresql+psycopg2").difference_update_query(_NOT_FOR_LIBPQ)


_COLUMNS = [column.name for column in files.columns]
_values: Callable[[Row], tuple[Any, ...]] = itemgetter(*_COLUMNS)

_NULL = f"null-{token_hex(4)}"
"""How null is written for COPY: no field is equal to what nobody knows."""

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def _line(values: tuple[Any, ...]) -> str:
    """A row in the text format of COPY; escaped only if something in it asks for it."""
    fields = [value if value.__class__ is str else _text(value) for value in values]
    line = "\t".join(fields)
    if "\\" in line or "\n" in line or "\r" in line or line.count("\t") >= len(fields):
        line = "\t".join([field.translate(_ESCAPES) for field in fields])
    return f"{line}\n"


def _text(value: object) -> str:
    if value is None:
        return _NULL
    return dumps(value) if isinstance(value, dict) else str(value)


def _time(value: datetime) -> str:
    return value.isoformat()
