"""Where Dagster keeps its history: SQLite beside the checkout, or Postgres when the environment
names one, so that one dagster.yaml serves laptop and production."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from file_connector.locks import lock
from file_connector.settings import Settings

POSTGRES_VARIABLE = "DAGSTER_POSTGRES_URL"


class HistoryStorage(DagsterStorage, ConfigurableClass):
    """Named by dagster.yaml under ``storage: custom``. Never made itself: each process makes one of
    Dagster's own storages instead."""

    @classmethod
    def config_type(cls) -> Mapping[str, Any]:
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> DagsterStorage:
        url, folder = _history()
        if not url:
            with _one_at_a_time(folder):
                return DagsterSqliteStorage.from_local(str(folder), inst_data)
        from dagster_postgres import DagsterPostgresStorage

        return DagsterPostgresStorage(psycopg2_url(url), inst_data=inst_data)


def _history() -> tuple[str, Path]:
    """Where Dagster's history is: a Postgres URL, or without one (empty) a folder."""
    home = Settings.from_environ(os.environ, Path.cwd()).home
    return os.environ.get(POSTGRES_VARIABLE, "").strip(), home / "dagster"


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Webserver and daemon start together; whoever comes first makes the tables, which Dagster does
    not expect to find half made."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".opening").open("w") as door:
        lock(door.fileno(), wait=True)
        yield


def psycopg2_url(url: str) -> str:
    """``url`` with its driver named: from SQLAlchemy 2.1 on a plain ``postgresql://`` means psycopg
    3, with which dagster-postgres does not work."""
    return re.sub(r"^postgres(ql)?(\+psycopg2?)?://", "postgresql+psycopg2://", url)


class _Kept:
    """The instance of this process's evaluations, opened by the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: tuple[object, dg.DagsterInstance] | None = None

    def instance(self, ref: InstanceRef) -> dg.DagsterInstance:
        wanted = ref, _history()
        with self._lock:
            if self._opened is None or self._opened[0] != wanted:
                self._opened = wanted, dg.DagsterInstance.from_ref(ref)
            return self._opened[1]


_kept = _Kept()


def keep_open(context: dg.ScheduleEvaluationContext | dg.SensorEvaluationContext) -> None:
    """Let an evaluation use the instance that an earlier one opened. Left alone, Dagster opens and
    inspects its storages for each: more than half the cost of a tick, and on SQLite 2 kB that stay
    in the process for ever, 288 times a day for each endpoint. Sensors with resources are beyond
    help: Dagster opens its storages before it calls them."""
    if context.instance_ref is not None and context._instance is None:
        # Set there, it is not on the context's list of what to close.
        context._instance = _kept.instance(context.instance_ref)
