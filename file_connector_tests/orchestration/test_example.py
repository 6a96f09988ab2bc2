"""The shipped example as a newcomer meets it: real clients, real HTTP, sandbox, mock Supabase."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

import file_connector
from file_connector.orchestration.build import build_definitions
from file_connector.orchestration.resources import current_deployment
from file_connector.times import utc_now

CHECKOUT = Path(file_connector.__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SUPABASE_DB_URL", "FILE_CONNECTOR_HOME", "FILE_CONNECTOR_ENDPOINTS"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(CHECKOUT / "endpoints.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("endpoint_id", ["tower_42_documents", "tower_42_models"])
def test_the_first_tick_fills_the_table(folder: Path, endpoint_id: str) -> None:
    defs = build_definitions(current_deployment().catalog())
    with (
        dg.instance_for_test() as daemon,
        dg.build_schedule_context(
            instance=daemon,
            repository_def=defs.get_repository_def(),
            resources=defs.resources,
            scheduled_execution_time=utc_now(),
        ) as context,
    ):
        ticked = defs.resolve_schedule_def(f"{endpoint_id}_schedule").evaluate_tick(context)
        [request] = ticked.run_requests or []
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_job_def(f"{endpoint_id}_sync")
        result = job.execute_in_process(instance=instance, tags=request.tags)
    assert result.success
    days = [e.partition for e in result.get_asset_materialization_events()]
    assert days[-1] == utc_now().date().isoformat()
    assert len(days) <= 31
    with closing(sqlite3.connect(folder / ".file_connector" / "supabase.db")) as db:
        rows = db.execute(
            "select endpoint_id, project_id, user_id, title, link, updated_at from files"
        ).fetchall()
    assert len(rows) > 10
    for endpoint, project, user, *rest in rows:
        assert (endpoint, project, user) == (endpoint_id, "tower-42", "ana")
        assert all(rest), "title, link and date are there"
