"""Secrets by name, for ``credentials: vault:NAME``: Supabase's Vault where the database has it,
else a table of ours in which every secret is encrypted.

Both only over a direct connection. Over REST there is no such door, on purpose: it would open the
whole Vault to whoever holds the project's secret key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from cryptography.fernet import InvalidToken
from sqlalchemy import Connection, text

from file_connector.destination.base import Store
from file_connector.destination.sealing import needed
from file_connector.destination.tables import dumps
from file_connector.errors import ConfigurationError, remember_secrets

if TYPE_CHECKING:  # it drags in its client library
    from file_connector.destination.postgres import PostgresStore


class SecretStore(Protocol):
    """Raises what the store raises (TransientError, ConfigurationError); never shows a secret."""

    def get(self, name: str) -> str | None:
        """The secret, or None if there is none of that name."""
        ...

    def put(self, name: str, secret: str) -> None:
        """Store it, in the place of an earlier one of that name."""
        ...

    def remove(self, name: str) -> bool:
        """False if there was none."""
        ...

    def names(self) -> Mapping[str, str]:
        """Name -> when it was saved (ISO 8601)."""
        ...


class Vault:
    """Supabase's Vault, by its documented view; read only. Written to, a secret would stand in a
    statement, and statements are logged."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def get(self, name: str) -> str | None:
        asked = text("select decrypted_secret from vault.decrypted_secrets where name = :name")
        try:
            secret: str | None = self._store._read(lambda conn: conn.scalar(asked, {"name": name}))
        except ConfigurationError as error:
            raise ConfigurationError(
                f"Vault cannot be read: {error.message}",
                remedy="Let SUPABASE_DB_URL log in as a role that may select from "
                "vault.decrypted_secrets (on Supabase: postgres).",
            ) from None
        return secret

    def put(self, name: str, secret: str) -> None:
        raise _kept_by_vault()

    def remove(self, name: str) -> bool:
        raise _kept_by_vault()

    def names(self) -> Mapping[str, str]:
        raise _kept_by_vault()


class SealedTable:
    """Table ``connectors.secrets``. Each row is sealed together with its name: moved to another
    name, it is worth nothing."""

    def __init__(self, store: PostgresStore, key: str | None) -> None:
        self._store = store
        self._key = key

    def get(self, name: str) -> str | None:
        asked = text("select sealed from connectors.secrets where name = :name")
        sealed = self._store._read(lambda conn: conn.scalar(asked, {"name": name}))
        if sealed is None:
            return None
        try:
            held = json.loads(needed(self._key).decrypt(sealed.encode()))
        except InvalidToken:
            held = {}
        if held.get("name") != name:
            raise ConfigurationError(
                f"the stored secret '{name}' was encrypted with another key, or as another secret",
                remedy="Give the encryption key it was saved with, or save it again with "
                f"`file-connector secret {name}`.",
            )
        return str(held["secret"])

    def put(self, name: str, secret: str) -> None:
        remember_secrets([secret])
        sealed = needed(self._key).encrypt(dumps({"name": name, "secret": secret}).encode())
        stored = text(
            "insert into connectors.secrets (name, sealed, saved_at) "
            "values (:name, :sealed, clock_timestamp()) on conflict (name) do update set "
            "sealed = excluded.sealed, saved_at = excluded.saved_at"
        )
        self._store._write(
            lambda conn: conn.execute(stored, {"name": name, "sealed": sealed.decode()})
        )

    def remove(self, name: str) -> bool:
        asked = text("delete from connectors.secrets where name = :name")

        def work(conn: Connection) -> bool:
            return bool(conn.execute(asked, {"name": name}).rowcount)

        return self._store._write(work)

    def names(self) -> Mapping[str, str]:
        asked = text("select name, saved_at from connectors.secrets order by name")
        rows = self._store._read(lambda conn: conn.execute(asked).all())
        return {row.name: row.saved_at.isoformat() for row in rows}


def secret_store(store: Store, encryption_key: str | None) -> SecretStore:
    """The secrets beside ``store``: of Vault if the database has one, else the sealed table, which
    needs ``encryption_key`` (Fernet).

    Raises ConfigurationError if ``store`` is not on a direct connection to Postgres.
    """
    from file_connector.destination.postgres import PostgresStore

    if not isinstance(store, PostgresStore):
        raise ConfigurationError(
            "credentials of the form vault:NAME are read over a direct connection only",
            remedy="Set SUPABASE_DB_URL, or name a credential set of the environment.",
        )
    has_vault = store._read(lambda conn: conn.scalar(_HAS_VAULT))
    return Vault(store) if has_vault else SealedTable(store, encryption_key)


_HAS_VAULT = text(
    "select exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n "
    "on n.oid = c.relnamespace where n.nspname = 'vault' and c.relname = 'decrypted_secrets')"
)


def _kept_by_vault() -> ConfigurationError:
    return ConfigurationError(
        "this database has Supabase's Vault, which keeps its secrets itself",
        remedy="Use the dashboard (Vault), or vault.create_secret and vault.update_secret in SQL.",
    )
