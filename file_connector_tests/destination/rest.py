"""A Supabase project for tests: the test Postgres behind the real PostgREST."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from file_connector.destination.postgres import PostgresStore
from file_connector.destination.rest import RestStore
from file_connector.errors import FileConnectorError
from file_connector_tests.destination.conftest import Place
from file_connector_tests.postgres import TABLES
from file_connector_tests.postgrest import Project

KEY = "sb_secret_canary-4711"
"""A key of the second generation."""


class WatchedStore(RestStore):
    """A RestStore whose tables tests may look at, past all our code."""

    _engine: Engine


class RestPlace(Place):
    """The project's database, emptied; ``open`` gives a store over REST."""

    def __init__(self, project: Project, home: Path) -> None:
        wipe = "".join(f"delete from {name};" for name in TABLES)
        project.server.execute(
            f"{wipe} insert into change_counter (id, value) values (1, 0)", project.database
        )
        super().__init__(project.database_url, home)
        self.project = project
        self._direct = PostgresStore(project.database_url)

    def open(self, **options: Any) -> Any:
        store = WatchedStore(self.project.url, self.project.key, **options)
        store._engine = self._direct._engine
        self.opened.append(store)  # type: ignore[arg-type]
        return store

    def close(self) -> None:
        for store in (*self.opened, self._direct):
            store.close()


def told(work: Callable[[], object]) -> FileConnectorError:
    """What ``work`` raises; nothing about it may show the key."""
    with pytest.raises(FileConnectorError) as caught:
        work()
    text = "".join(traceback.format_exception(caught.value))
    assert "eyJ" not in text
    assert "canary" not in str(caught.value)
    return caught.value


def never(seconds: float) -> None:
    raise AssertionError("nothing to wait for")
