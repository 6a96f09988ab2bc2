"""Where a store under test lives: every test that asks for ``place`` or ``store`` runs on SQLite,
on two versions of Postgres, and through a transaction pooler where one is installed (the rules it
asks for are proven everywhere, by listening: test_faults.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from file_connector.destination.open import FILE_NAME
from file_connector.destination.postgres import PostgresStore
from file_connector.destination.sql_store import SqlStore
from file_connector.destination.sqlite import SqliteStore
from file_connector_tests.builders import at
from file_connector_tests.pgbouncer import Pooler, find_pgbouncer, running_pooler
from file_connector_tests.postgres import PostgresServer, running_postgres

Row = dict[str, Any]


class Clock:
    """A clock that moves when told to, or when somebody sleeps by it."""

    def __init__(self) -> None:
        self.now = at(12)
        self.slept: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_by(seconds)


@dataclass
class Place:
    """One database; ``open`` gives a store on it, as another process would."""

    url: str | None
    home: Path
    opened: list[SqlStore] = field(default_factory=list)

    def open(self, **options: Any) -> SqlStore:
        store = (
            SqliteStore(self.home / FILE_NAME, **options)
            if self.url is None
            else PostgresStore(self.url, **options)
        )
        self.opened.append(store)
        return store

    def query(self, sql: str, **values: Any) -> list[Row]:
        """What a reader sees, past all our code."""
        store = self.opened[0] if self.opened else self.open()
        with store._engine.connect() as conn:
            return [dict(row) for row in conn.execute(text(sql), values).mappings()]

    def counter(self) -> int:
        value: int = self.query("select value from change_counter")[0]["value"]
        return value

    def files(self, endpoint_id: str = "plans") -> dict[str, Row]:
        rows = self.query(
            "select * from files where endpoint_id = :e order by external_id", e=endpoint_id
        )
        return {row["external_id"]: row for row in rows}


@pytest.fixture(scope="session")
def postgres_16() -> Iterator[PostgresServer]:
    yield from running_postgres("16")


@pytest.fixture(scope="session")
def pooler(postgres_server: PostgresServer) -> Iterator[Pooler]:
    program = find_pgbouncer()
    assert program is not None, "NOT RUN: there is no PgBouncer"
    with running_pooler(program, postgres_server) as running:
        yield running


PLACES = ["sqlite", "postgres_18", "postgres_16", *(["pooler"] if find_pgbouncer() else [])]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty, migrated database. On Postgres it is one per session, wiped before each test."""
    url = None
    if request.param != "sqlite":
        fixture = "postgres_16" if request.param == "postgres_16" else "postgres_server"
        server: PostgresServer = request.getfixturevalue(fixture)
        way_in = request.getfixturevalue("pooler") if request.param == "pooler" else server
        url = way_in.url(server.wiped())
    here = Place(url, tmp_path)
    yield here
    for store in here.opened:
        store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(place: Place, clock: Clock) -> SqlStore:
    return place.open(clock=clock, sleep=clock.sleep)
