"""The store in Postgres: Supabase, directly or through a pooler, or any other.

Fit for transaction poolers: no session settings (``SET LOCAL`` only), no prepared statements
(psycopg2 makes none), no session locks, no temporary tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from secrets import token_hex
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Column,
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
from tenacity import wait_incrementing

from file_connector.destination import migrations
from file_connector.destination.failures import sqlstate
from file_connector.destination.migrations import SCHEMA
from file_connector.destination.rows import Row
from file_connector.destination.sql_store import SqlStore
from file_connector.destination.tables import (
    FILE_COLUMNS,
    JsonValue,
    Moment,
    dumps,
    files,
    metadata,
    sync_folders,
    sync_leases,
    sync_met,
)
from file_connector.errors import ConfigurationError, remember_secrets

LOCK_SECONDS = 30.0
STATEMENT_SECONDS = 110.0
MIGRATE_ATTEMPTS = 8
PIECE = 200

_LOCK_NOT_AVAILABLE = "55P03"

_CONNECTION = {
    "client_encoding": "utf8",
    "connect_timeout": 5,
    "application_name": "file-connector",
    # A network that died silently is noticed within a minute or so.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}

_NOT_FOR_LIBPQ = ("pgbouncer", "connection_limit", "pool_timeout", "client_encoding")
"""Options that other tools keep in the same URL (Supabase's own examples contain the first two);
the last is ours to choose, because COPY takes bytes as they are."""


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
            execution_options={"schema_translate_map": {None: SCHEMA}},
        )
        super().__init__(engine, **options)

    def migrate(self, *, dry_run: bool = False) -> Sequence[str]:
        def once() -> Sequence[str]:
            with self._engine.begin() as conn:
                return migrations.migrate(conn, dry_run=dry_run)

        return self._repeated(
            once,
            lambda error: sqlstate(error) == _LOCK_NOT_AVAILABLE,
            attempts=MIGRATE_ATTEMPTS,
            waits=wait_incrementing(1, 1),  # those who waited behind us get through
        )

    def check(self) -> None:
        self._read(_examine)
        super().check()

    def _make_ready(self) -> None:
        self._asked(migrations.require)

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
        """All rows travel as one JSON value, in one round trip; what is the same in all, once."""
        if not rows:
            return
        name = f"{SCHEMA}.{table.name}"
        key = [column.name for column in table.primary_key]
        columns = {c.name: _told(c, [row[c.name] for row in rows]) for c in table.columns}
        own = {n: values for n, values in columns.items() if len(values) > 1}
        values = ", ".join(f"own.{n}" if n in own else f"same.{n}" for n in columns)
        changes = ", ".join(
            f"{n} = excluded.{n}" for n in columns if n not in key and n not in keep
        )
        conn.execute(
            text(
                f"insert into {name} select {values} "
                f"from json_populate_recordset(null::{name}, :own) own, "
                f"json_populate_record(null::{name}, :same) same "
                f"on conflict ({', '.join(key)}) do update set {changes}"
            ),
            {
                "own": dumps(list(_objects(own)) or [{}]),
                "same": dumps({n: v[0] for n, v in columns.items() if n not in own}),
            },
        )

    def _insert_files(self, conn: Connection, rows: Iterable[Row]) -> None:
        cursor: Any = conn.connection.cursor()  # of the driver, inside our transaction
        cursor.copy_expert(
            f"copy {SCHEMA}.{files.name} ({', '.join(FILE_COLUMNS)}) from stdin null '{_NULL}'",
            _Pieces(rows),
        )


def _examine(conn: Connection) -> None:
    """Raises ConfigurationError unless this login may do with every table what we do with it."""
    told = conn.execute(
        text(
            "select name, its is null as missing, "
            "coalesce(row_security_active(its), false) as hidden, array("
            "select p from unnest(cast(:needed as text[])) p where not has_table_privilege(its, p) "
            "and (p <> 'delete' or name = any (:emptied))) as lacking "
            "from unnest(cast(:names as text[])) as name, "
            f"to_regclass('{SCHEMA}.' || name) as its"
        ),
        {
            "names": [table.name for table in metadata.sorted_tables],
            "needed": ["select", "insert", "update", "delete"],
            "emptied": [table.name for table in (sync_folders, sync_leases, sync_met)],
        },
    ).all()
    if missing := [row.name for row in told if row.missing]:
        raise ConfigurationError(
            f"tables are missing: {', '.join(missing)}", remedy=migrations.MIGRATE
        )
    if hidden := [row.name for row in told if row.hidden]:
        raise migrations.hidden_error(hidden)
    if lacking := [f"{', '.join(row.lacking)} on {row.name}" for row in told if row.lacking]:
        raise ConfigurationError(
            f"the database login lacks permissions: {'; '.join(lacking)}",
            remedy="Grant them, or let SUPABASE_DB_URL log in as the owner of the tables.",
        )


def driver_url(url: str) -> URL:
    """``url`` for SQLAlchemy with the one driver we use, whichever spelling it came in.

    Raises ConfigurationError, without showing the URL, if it is not one of Postgres.
    """
    remedy = (
        "It reads postgresql://USER@HOST:PORT/DATABASE with :PASSWORD after USER; in the password "
        "write % as %25, @ as %40, / as %2F."
    )
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        raise ConfigurationError("SUPABASE_DB_URL is not a URL.", remedy=remedy) from None
    if parsed.drivername.split("+")[0] not in ("postgres", "postgresql"):
        raise ConfigurationError(
            f"SUPABASE_DB_URL begins with '{parsed.drivername}://', not with 'postgresql://'.",
            remedy=remedy,
        )
    if "@" in (parsed.host or ""):
        raise ConfigurationError(
            "SUPABASE_DB_URL has two @: one of them belongs to the password.",
            remedy=remedy,
        )
    told = parsed.query.get("password", ())
    secrets = {parsed.password or "", *((told,) if isinstance(told, str) else told)}
    remember_secrets(s for secret in secrets for s in (secret, quote(secret, safe="")))
    return parsed.set(drivername="postgresql+psycopg2").difference_update_query(_NOT_FOR_LIBPQ)


_NULL = f"null-{token_hex(4)}"
"""How null is written for COPY: no field is equal to what nobody knows."""

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


class _Pieces:
    """A file for COPY: while the server stores one piece, the next is being made."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._left = iter(rows)

    def read(self, size: int) -> bytes:
        return _copy_text(list(islice(self._left, PIECE))).encode()


def _copy_text(rows: Sequence[Row]) -> str:
    """Rows of ``files`` in the text format of COPY. Column by column, because most of an endpoint's
    columns say the same in every row; escaped only if something in it asks for it."""
    if not rows:
        return ""
    columns = [_column([row[name] for row in rows]) for name in FILE_COLUMNS]
    text = "".join([f"{line}\n" for line in map("\t".join, zip(*columns, strict=True))])
    plain = (len(columns) - 1) * len(rows), len(rows)
    if "\\" in text or "\r" in text or (text.count("\t"), text.count("\n")) != plain:
        columns = [[field.translate(_ESCAPES) for field in column] for column in columns]
        text = "".join([f"{line}\n" for line in map("\t".join, zip(*columns, strict=True))])
    return text


def _column(values: list[Any]) -> list[str]:
    """Values as COPY reads them. What most columns hold, one value in all rows or nothing but text,
    is not asked about row by row."""
    first = values[0]
    if first.__class__ is not dict and values.count(first) == len(values):
        return [_text(first)] * len(values)
    if set(map(type, values)) == {str}:
        return values
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if value.__class__ is str:
        return value
    if value is None:
        return _NULL
    return dumps(value) if isinstance(value, dict) else str(value)


def _objects(columns: Mapping[str, list[Any]]) -> Iterator[Row]:
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _told(column: Column[Any], values: list[Any]) -> list[Any]:
    """``values`` as JSON tells them; one, if all are the same (JSON itself is not asked: to Python,
    1 is true)."""
    if not isinstance(column.type, JsonValue) and values.count(values[0]) == len(values):
        values = values[:1]
    if isinstance(column.type, Moment):
        return [None if value is None else value.isoformat() for value in values]
    return values
