from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from file_connector.destination.postgres import PostgresStore
from file_connector.destination.sql_store import SqlStore
from file_connector.destination.sqlite import SqliteStore
from file_connector.models import Identity
from file_connector.sandbox import Sandbox
from file_connector_tests.histories.stages import World
from file_connector_tests.postgres import PostgresServer

_numbers = itertools.count()


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with Sandbox() as sandbox:
        yield World(sandbox)


@pytest.fixture(scope="session")
def stores(postgres_server: PostgresServer) -> Iterator[dict[str, SqlStore]]:
    """One SQLite file and one Postgres database for all cases; each case is its own endpoint. A
    lease ends at once, so that a case need not wait for its dead."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        opened: dict[str, SqlStore] = {
            "sqlite": SqliteStore(Path(folder) / "supabase.db", lease_seconds=0.0),
            "postgres": PostgresStore(
                postgres_server.url(postgres_server.create()), lease_seconds=0.0
            ),
        }
        opened["postgres"].migrate()
        yield opened
        for store in opened.values():
            store.close()


@pytest.fixture
def identity() -> Identity:
    return Identity(f"case_{os.getpid()}_{next(_numbers)}", "faults", "tower-42", "ana")
