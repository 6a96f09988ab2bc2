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


Stores = dict[str, tuple[SqlStore, SqlStore]]
"""By kind of database: the store of the runs, and another one to look with."""


@pytest.fixture(scope="session")
def stores(postgres_server: PostgresServer) -> Iterator[Stores]:
    """One SQLite file and one Postgres database for all cases; each case is its own endpoint. A
    lease ends at once, so that a case need not wait for its dead; nor need it wait for an attempt
    to be repeated."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        file, url = Path(folder) / "supabase.db", postgres_server.url(postgres_server.create())

        def pause(seconds: float) -> None:
            return None

        opened: Stores = {
            "sqlite": (
                SqliteStore(file, lease_seconds=0.0, sleep=pause),
                SqliteStore(file),
            ),
            "postgres": (
                PostgresStore(url, lease_seconds=0.0, sleep=pause),
                PostgresStore(url),
            ),
        }
        opened["postgres"][0].migrate()
        yield opened
        for store in itertools.chain(*opened.values()):
            store.close()


@pytest.fixture
def identity() -> Identity:
    return Identity(f"case_{os.getpid()}_{next(_numbers)}", "faults", "tower-42", "ana")
