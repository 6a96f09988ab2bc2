"""Dagster's history of a busy endpoint stays bounded, and no day loses its mark."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef

import file_connector
from file_connector.errors import TransientError
from file_connector.orchestration.factory import asset_key
from file_connector.orchestration.retention import retention, thin_out
from file_connector.orchestration.runs import last_day_told
from file_connector.times import utc_now
from file_connector_tests.orchestration.conftest import House
from file_connector_tests.sync.scripted import listing

CHECKOUT = Path(file_connector.__file__).parent.parent
LATER = timedelta(minutes=1)


@pytest.fixture
def kept(synced: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A synced house whose history rests in files, as shipped."""
    monkeypatch.delenv("DAGSTER_POSTGRES_URL", raising=False)
    memory = synced.instance
    ref = InstanceRef.from_dir(str(synced.folder), config_dir=str(CHECKOUT))
    with dg.DagsterInstance.from_ref(ref) as synced.instance:
        yield synced
    synced.instance = memory


def ids(house: House) -> set[str]:
    return {record.dagster_run.run_id for record in house.instance.get_run_records()}


def marks(house: House) -> set[str]:
    return house.instance.get_materialized_partitions(asset_key("plans"))


def files_of(house: House, run_id: str) -> list[Path]:
    return [p for p in (house.folder / ".file_connector").rglob("*") if run_id in p.name]


def a_sweep(house: House) -> dg.ExecuteInProcessResult:
    house.plans.sweep_script = listing()
    day = {"dagster/partition": "2026-03-01", "file_connector/mode": "sweep"}
    job = house.definitions().resolve_job_def("plans_sync")
    return job.execute_in_process(instance=house.instance, tags=day)


def everything_is_a_month_old(house: House) -> None:
    with sqlite3.connect(
        house.folder / ".file_connector" / "dagster" / "history" / "runs.db"
    ) as database:
        database.execute(
            "update runs set create_timestamp = datetime(create_timestamp, '-31 days')"
        )
    database.close()


def test_s47_old_runs_go_and_every_day_keeps_its_mark(kept: House) -> None:
    repeated = kept.run(days=("2026-03-01", "2026-03-01")).run_id
    alone = kept.run(days=("2026-03-01", "2026-03-02")).run_id
    kept.plans.window_script = listing()
    persons = kept.run(scheduled=False, days=("2026-03-04", "2026-03-04")).run_id
    newest = kept.run(days=("2026-03-02", "2026-03-03")).run_id
    before = marks(kept)
    assert before == {"2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04"}
    assert files_of(kept, repeated)

    assert thin_out("plans", kept.instance, utc_now() + LATER) == 1
    assert ids(kept) == {alone, persons, newest}
    assert marks(kept) == before
    assert files_of(kept, repeated) == [], "neither its events nor what it printed"
    assert thin_out("plans", kept.instance, utc_now() + LATER) == 0


def test_a_sweep_thins_out_what_is_older_than_a_month(kept: House) -> None:
    old = [kept.run().run_id for _ in range(2)]
    everything_is_a_month_old(kept)
    recent = [kept.run().run_id, kept.run().run_id, a_sweep(kept).run_id]
    assert ids(kept) == {old[1], *recent}


@pytest.mark.parametrize("setting", ["0", "for ever"])
def test_nothing_is_deleted_without_a_number_of_days(
    kept: House, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILE_CONNECTOR_RUN_RETENTION_DAYS", setting)
    old = [kept.run().run_id for _ in range(2)]
    everything_is_a_month_old(kept)
    swept = a_sweep(kept).run_id
    assert ids(kept) == {*old, swept}


def test_a_history_that_cannot_be_thinned_out_fails_no_run(
    kept: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run_id: str) -> None:
        raise NotImplementedError(run_id)

    old = [kept.run().run_id for _ in range(2)]
    everything_is_a_month_old(kept)
    monkeypatch.setattr(kept.instance, "delete_run", refuse)
    result = a_sweep(kept)
    assert result.success
    assert ids(kept) == {*old, result.run_id}
    said = [entry.user_message for entry in kept.instance.all_logs(result.run_id)]
    assert "old runs could not be deleted: NotImplementedError" in said


def test_a_run_that_failed_marks_no_day_and_goes(kept: House) -> None:
    kept.plans.change_scripts = [[TransientError("the host is dead.")]]
    failed = kept.run()
    assert not failed.success
    assert thin_out("plans", kept.instance, utc_now() + LATER) == 1
    assert failed.run_id not in ids(kept)


def test_a_long_past_is_thinned_out_over_several_days(kept: House) -> None:
    """A run that deletes for minutes would be taken for dead: it holds no lease any more."""
    old = [kept.run().run_id for _ in range(3)]
    clock = iter([0.0, 0.0, 30.0, 30.1])
    assert thin_out("plans", kept.instance, utc_now() + LATER, lambda: next(clock)) == 1
    assert ids(kept) == {old[0], old[2]}
    assert thin_out("plans", kept.instance, utc_now() + LATER) == 1


def test_the_day_last_told_is_found_whatever_a_person_did_since(kept: House) -> None:
    """A person may give a run the schedule's tag and one day, or none."""
    kept.run(days=("2026-03-01", "2026-03-05"))
    a_sweep(kept)
    job = kept.definitions().resolve_job_def("plans_sync")
    job.execute_in_process(instance=kept.instance, tags={"file_connector/mode": "sweep"})
    assert last_day_told("plans", kept.instance) == date(2026, 3, 5)


def test_what_is_no_number_of_days_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert retention("30") == timedelta(days=30)
        assert retention("0") is None
        assert not caplog.records
        assert retention("-1") is None
    assert "FILE_CONNECTOR_RUN_RETENTION_DAYS is '-1'" in caplog.text
