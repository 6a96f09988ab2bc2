"""Opens the store the operator's environment asks for."""

from __future__ import annotations

from pathlib import Path

from file_connector.destination.sql_store import SqlStore
from file_connector.destination.sqlite import SqliteStore

FILE_NAME = "supabase.db"


def open_store(url: str | None, home: Path, encryption_key: str | None = None) -> SqlStore:
    """The store at ``url`` (Postgres), or the file ``supabase.db`` in ``home`` if there is no URL.

    Opens no connection: the first use of the store does. It creates and migrates the SQLite file;
    on Postgres it raises ConfigurationError if the tables are missing or old (only ``migrate``
    needs no tables). ``encryption_key``: Fernet key of the token vault.
    """
    if not url:
        return SqliteStore(home / FILE_NAME, encryption_key=encryption_key)
    from file_connector.destination.postgres import PostgresStore

    return PostgresStore(url, encryption_key=encryption_key)
