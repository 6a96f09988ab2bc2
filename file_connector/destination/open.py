"""Opens the store the operator's environment asks for."""

from __future__ import annotations

from pathlib import Path
from typing import overload

from file_connector.destination.base import Store
from file_connector.destination.sql_store import SqlStore
from file_connector.destination.sqlite import SqliteStore
from file_connector.errors import ConfigurationError

FILE_NAME = "supabase.db"


@overload
def open_store(url: str | None, home: Path, encryption_key: str | None = None) -> SqlStore: ...


@overload
def open_store(
    url: str | None,
    home: Path,
    encryption_key: str | None = None,
    *,
    rest_url: str | None,
    rest_key: str | None,
) -> Store: ...


def open_store(
    url: str | None,
    home: Path,
    encryption_key: str | None = None,
    *,
    rest_url: str | None = None,
    rest_key: str | None = None,
) -> Store:
    """The store at ``url`` (Postgres); without it, over Supabase's REST API at ``rest_url``;
    without either, in the file ``supabase.db`` in ``home``.

    Opens no connection: the first use of the store does. It creates and migrates the SQLite file;
    elsewhere it raises ConfigurationError if the tables are missing or old (only ``migrate`` needs
    no tables).

    Args:
        rest_url: the project's address, ``https://<project>.supabase.co``.
        rest_key: a secret key or a service_role key.
        encryption_key: Fernet key of the token vault.

    Raises:
        ConfigurationError: an address or key cannot be one, or one of ``rest_url`` and ``rest_key``
            is missing.
    """
    if url:
        from file_connector.destination.postgres import PostgresStore

        return PostgresStore(url, encryption_key=encryption_key)
    if rest_url and rest_key:
        from file_connector.destination.rest import RestStore

        return RestStore(f"{rest_url.rstrip('/')}/rest/v1", rest_key, encryption_key=encryption_key)
    if rest_url or rest_key:
        there, lacking = ("URL", "SECRET_KEY") if rest_url else ("SECRET_KEY", "URL")
        raise ConfigurationError(
            f"SUPABASE_{there} is set, but SUPABASE_{lacking} is not.",
            remedy="Set both, or SUPABASE_DB_URL, or none of them for the mock.",
        )
    return SqliteStore(home / FILE_NAME, encryption_key=encryption_key)
