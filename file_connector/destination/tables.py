"""The tables of the destination, as the code reads and writes them, on SQLite and Postgres alike.

SQLite is created from this metadata; Postgres from ``supabase/migrations``. A test proves that both
agree with it. Times are UTC: ``timestamptz`` on Postgres, text that sorts on SQLite.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine

from file_connector.models import GoneReason, Json, Mode, Outcome
from file_connector.times import iso


class Moment(TypeDecorator[datetime]):
    """An instant: aware UTC datetimes in Python, microseconds kept."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return iso(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, str):
            return datetime.fromisoformat(f"{value[:-1]}+00:00")
        moment: datetime = value
        return moment.astimezone(timezone.utc)


class JsonValue(TypeDecorator[Json]):
    """A JSON value: ``jsonb`` on Postgres, text with sorted keys on SQLite. None is SQL NULL."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.JSONB(none_as_null=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: Json, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Json:
        if value is None or dialect.name == "postgresql":
            return value
        return json.loads(value)


dumps = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
"""The one JSON spelling we store: sorted keys, no blanks, no escapes without need."""


class Key(TypeDecorator[str]):
    """An identifier: text in code point order on every database (Postgres: ``collate "C"``), which
    is also the order in which Python sorts and writers take their locks."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        collation = "C" if dialect.name == "postgresql" else None
        return dialect.type_descriptor(Text(collation=collation))


def _one_of(column: str, values: type[GoneReason] | type[Mode] | type[Outcome]) -> str:
    return f"{column} in ({', '.join(repr(v.value) for v in values)})"


metadata = MetaData()

files = Table(
    "files",
    metadata,
    Column("endpoint_id", Key, primary_key=True),
    Column("external_id", Key, primary_key=True),
    Column("source", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("link", Text),
    Column("created_at", Moment),
    Column("updated_at", Moment),
    Column("mime_type", Text),
    Column("size_bytes", BigInteger),
    Column("version", BigInteger),
    Column("path", Text, nullable=False),
    Column("parent_id", Key),
    Column("gone_at", Moment),
    Column("gone_reason", Text),
    Column("first_seen_at", Moment, nullable=False),
    Column("changed_at", Moment, nullable=False),
    Column("change_seq", BigInteger, nullable=False),
    Column("raw", JsonValue, nullable=False),
    CheckConstraint(_one_of("gone_reason", GoneReason), name="files_gone_reason_check"),
    CheckConstraint("(gone_at is null) = (gone_reason is null)", name="files_gone_check"),
)
FILE_COLUMNS = files.columns.keys()
Index("files_change_seq_key", files.c.change_seq, unique=True)
Index("files_endpoint_change_seq_idx", files.c.endpoint_id, files.c.change_seq)
Index("files_endpoint_parent_idx", files.c.endpoint_id, files.c.parent_id)
Index("files_user_project_idx", files.c.user_id, files.c.project_id)
Index("files_project_idx", files.c.project_id)

change_counter = Table(
    "change_counter",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="change_counter_one_row_check"),
)
"""The last ``change_seq`` given out. Its row stays locked until the transaction ends, so numbers
become visible in the order in which they were given."""

sync_state = Table(
    "sync_state",
    metadata,
    Column("endpoint_id", Key, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("cursor", JsonValue),
    Column("sweep", JsonValue),
    Column("pass_no", Integer, nullable=False),
    Column("pass_started_at", Moment),
    Column("swept_at", Moment),
    Column("scope", Text),
    Column("principal", Text),
    Column("rescoped", Boolean, nullable=False),
    Column("synced_at", Moment),
    Column("held_back", Integer, nullable=False),
    Column("confirmed", Boolean, nullable=False),
    Column("blind", JsonValue, nullable=False),
    Column("project_id", Text),
    Column("user_id", Text),
    Column("commit_id", Text),
    Column("stored_at", Moment),
    Column("answer", JsonValue),
    Column("owed", JsonValue),
)
"""``commit_id`` names the last transaction that wrote the row, so that a writer whose connection
was cut while it said COMMIT can find out whether it did; ``answer`` is what that transaction told a
writer over REST; ``owed`` says which rows still have to follow a change of very many (``owed.py``),
null if there are none."""

sync_folders = Table(
    "sync_folders",
    metadata,
    Column("endpoint_id", Key, primary_key=True),
    Column("folder_id", Key, primary_key=True),
    Column("parent_id", Key),
    Column("name", Text, nullable=False),
    Column("state", JsonValue, nullable=False),
)
Index("sync_folders_parent_idx", sync_folders.c.endpoint_id, sync_folders.c.parent_id)

sync_met = Table(
    "sync_met",
    metadata,
    Column("endpoint_id", Key, primary_key=True),
    Column("pass_no", Integer, primary_key=True, autoincrement=False),
    Column("part", BigInteger, primary_key=True, autoincrement=False),
    Column("ids", JsonValue, nullable=False),
)
"""What a complete listing has met so far, one row per commit: ``part`` is the version of the state
it was derived from. Emptied when its pass ends."""

sync_runs = Table(
    "sync_runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("endpoint_id", Key, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("mode", Text, nullable=False),
    Column("outcome", Text),
    Column("inserted", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("unchanged", BigInteger, nullable=False),
    Column("tombstoned", BigInteger, nullable=False),
    Column("api_calls", BigInteger, nullable=False),
    Column("missed_by_fast_path", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    CheckConstraint(_one_of("mode", Mode), name="sync_runs_mode_check"),
    CheckConstraint(_one_of("outcome", Outcome), name="sync_runs_outcome_check"),
    CheckConstraint("(ended_at is null) = (outcome is null)", name="sync_runs_ended_check"),
)
Index("sync_runs_endpoint_started_idx", sync_runs.c.endpoint_id, sync_runs.c.started_at)

sync_leases = Table(
    "sync_leases",
    metadata,
    Column("endpoint_id", Key, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("acquired_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
)
"""Who writes an endpoint. A row and not a session lock: it works through poolers and outlives
connections, but not its holder."""

endpoints = Table(
    "endpoints",
    metadata,
    Column("endpoint_id", Key, primary_key=True),
    Column("name", Text, nullable=False),
    Column("endpoint_type", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("last_success_at", Moment),
    Column("failing_since", Moment),
    Column("failures", Integer, nullable=False),
    Column("retry_at", Moment),
    Column("message", Text, nullable=False),
)

rate_limits = Table(
    "rate_limits",
    metadata,
    Column("key", Key, primary_key=True),
    Column("free_at", Moment, nullable=False),
)
"""When the bucket of a provider identity will be full again."""

tokens = Table(
    "tokens",
    metadata,
    Column("key", Key, primary_key=True),
    Column("secret", Text, nullable=False),
    Column("saved_at", Moment, nullable=False),
)
"""Rotating refresh tokens, encrypted (Fernet); never plain."""

token_locks = Table(
    "token_locks",
    metadata,
    Column("key", Key, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_at", Moment, nullable=False),
)
