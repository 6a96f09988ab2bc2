"""dagster.yaml as shipped, and where Dagster keeps its history."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.instance.ref import InstanceRef
from dagster._core.test_utils import create_run_for_test

import file_connector
from file_connector.orchestration.io_manager import BUSY_PATIENCE_SECONDS, RUN_SECONDS
from file_connector.orchestration.storage import POSTGRES_VARIABLE, HistoryStorage, psycopg2_url

CHECKOUT = Path(file_connector.__file__).parent.parent


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (POSTGRES_VARIABLE, "FILE_CONNECTOR_HOME", "FILE_CONNECTOR_ENDPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def open_instance(folder: Path) -> dg.DagsterInstance:
    """As `dagster dev` would with DAGSTER_HOME at the checkout."""
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder), config_dir=str(CHECKOUT)))


def test_history_rests_in_the_home_and_survives(home: Path) -> None:
    with open_instance(home) as first:
        run = create_run_for_test(first)
    assert sorted(p.name for p in home.iterdir()) == [".file_connector"]
    assert (home / ".file_connector" / "dagster" / "history" / "runs.db").exists()
    with open_instance(home) as second:
        assert second.has_run(run.run_id)
        copy = dg.DagsterInstance.from_ref(second.get_ref())
        assert copy.has_run(run.run_id), "other processes get the same storage from the reference"
        copy.dispose()


def test_who_opens_a_new_history_at_the_same_moment_shares_it(home: Path) -> None:
    together = Barrier(4)

    def open_it(_: int) -> None:
        together.wait(30)
        storage = HistoryStorage.from_config_value(None, {})
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            part.dispose()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(open_it, range(4)))


def test_the_settings_that_let_dagster_survive(home: Path) -> None:
    with open_instance(home) as instance:
        assert instance.run_monitoring_enabled
        longest = RUN_SECONDS + BUSY_PATIENCE_SECONDS
        assert longest + 1800 <= instance.run_monitoring_max_runtime_seconds
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.get_settings("schedules")["use_threads"]
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.python_log_level == "INFO", "not a line for every event"
        concurrency = instance.get_concurrency_config()
        assert concurrency.pool_config.default_pool_limit == 1
        assert str(concurrency.pool_config.pool_granularity) == "PoolGranularity.RUN"
        retention = instance.get_tick_retention_settings(InstigatorType.SCHEDULE)
        assert all(0 < days <= 14 for days in retention.values())


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p@h/d",
        "postgresql://u:p@h/d",
        "postgresql+psycopg2://u:p@h/d",
        "postgresql+psycopg://u:p@h/d",
    ],
)
def test_any_postgres_url_gets_the_driver_that_works(url: str) -> None:
    assert psycopg2_url(url) == "postgresql+psycopg2://u:p@h/d"


def test_a_url_in_the_environment_selects_postgres(
    home: Path, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(POSTGRES_VARIABLE, empty_postgres_url)
    with open_instance(home) as first:
        run = create_run_for_test(first)
        shown = str(first.info_dict()) + str(first.get_ref())
    assert not (home / ".file_connector" / "dagster" / "history").exists()
    assert empty_postgres_url not in shown
    with open_instance(home) as second:
        assert second.has_run(run.run_id)
    assert os.environ[POSTGRES_VARIABLE] == empty_postgres_url
