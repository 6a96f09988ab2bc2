"""The control plane as the code calls it, over each way in: Postgres, directly and through a
transaction pooler, and the real PostgREST."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
from click.testing import CliRunner

from file_connector.cli import main as cli
from file_connector.connectors.registry import Registry
from file_connector.deployment import Deployment
from file_connector.deployment_control import define, definitions
from file_connector.destination.control import ControlPlane, Job, control_plane
from file_connector.destination.open import open_store
from file_connector.destination.postgres import PostgresStore
from file_connector.destination.rest import RestStore
from file_connector.errors import ConfigurationError
from file_connector_tests.destination.rest import KEY
from file_connector_tests.destination.test_connectors_schema import Database
from file_connector_tests.endpoints.fakes import a_registry
from file_connector_tests.pgbouncer import Pooler, find_pgbouncer
from file_connector_tests.postgres import TABLES, PostgresServer
from file_connector_tests.postgrest import NOT_RUN, Project, find_postgrest, key_of

rest = pytest.param("rest", marks=pytest.mark.skipif(find_postgrest() is None, reason=NOT_RUN))


def emptied(project: Project) -> Database:
    database = Database(project.server, project.database)
    database.ask("".join(f"delete from {t};" for t in TABLES if t.startswith("connectors.")))
    return database


@pytest.fixture(params=["postgres", *(["pooler"] if find_pgbouncer() else []), rest])
def way_in(request: pytest.FixtureRequest) -> Iterator[tuple[ControlPlane, Database]]:
    """A control plane, and the database behind it."""
    store: Any
    if request.param == "rest":
        there: Project = request.getfixturevalue("project")
        database = emptied(there)
        store = RestStore(there.url, there.key, sleep=lambda _: None)
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database = Database(server, server.wiped())
        way: Pooler | PostgresServer = server
        if request.param == "pooler":
            way = request.getfixturevalue("pooler")
        store = PostgresStore(way.url(database.name))
    with closing(store):
        control = control_plane(store)
        assert control is not None
        yield control, database


def test_a_job_from_asking_to_its_end(way_in: tuple[ControlPlane, Database]) -> None:
    control, database = way_in
    database.instances("Plans", "Models")
    plans = database.enqueue(kind="window", payload='{"from": "2026-03-01"}')
    models = database.enqueue("models")
    assert control.claim("w", 60, 5, only=[]) == []
    assert control.waiting([]) == ["models", "plans"]
    assert control.waiting(["plans", "other"]) == ["models"]
    [job] = control.claim("w", 60, 5, only=["plans", "other"])
    assert job == Job(plans, "plans", "window", {"from": "2026-03-01"}, 1, job.claim_token)
    assert job.claim_token not in repr(job)
    assert control.held("w") == [job]
    assert control.held("other") == []
    assert control.renew(job, 60)
    assert control.complete(job, {"inserted": 3})
    assert not control.renew(job, 60)
    assert control.held("w") == []
    [failing] = control.claim("w", 60, 5, only=["plans", "models"])
    assert control.fail(failing, "not now", retry=True) == "queued"
    database.expire(models)
    [failing] = control.claim("w", 60, 5, only=["models"])
    assert failing.attempts == 2
    assert control.fail(failing, "never", retry=False) == "failed"
    stale = Job(models, "models", "sync", {}, 1, "00000000-0000-0000-0000-000000000000")
    assert control.fail(stale, "late", retry=True) is None
    assert not control.complete(stale, {})
    assert database.ask("select id, status, result, error from connectors.jobs order by 1") == [
        (plans, "completed", {"inserted": 3}, None),
        (models, "failed", None, "never"),
    ]


def test_jobs_are_claimed_in_the_order_of_asking(way_in: tuple[ControlPlane, Database]) -> None:
    control, database = way_in
    database.instances(*(f"Plans {n}" for n in range(12)))
    ids = [database.enqueue(f"plans_{n}") for n in (7, 3, 11, 0, 5)]
    everyone = [f"plans_{n}" for n in range(12)]
    assert [job.id for job in control.claim("w", 60, 3, everyone)] == ids[:3]
    assert [job.id for job in control.claim("w", 60, 9, everyone)] == ids[3:]


@pytest.mark.skipif(find_postgrest() is None, reason=NOT_RUN)
def test_over_rest_a_user_asks_for_own_instances_only(request: pytest.FixtureRequest) -> None:
    there: Project = request.getfixturevalue("project")
    database = emptied(there)
    database.instances("Plans")

    def ask(user: str | None, path: str, body: object = None) -> requests.Response:
        token = key_of("authenticated", sub=user) if user else key_of("anon")
        headers = {"Authorization": f"Bearer {token}"}
        headers |= {"Content-Profile": "connectors", "Accept-Profile": "connectors"}
        method = "get" if body is None else "post"
        return requests.request(
            method, f"{there.url}/{path}", json=body, headers=headers, timeout=30
        )

    asked = {"instance_id": "plans", "kind": "sweep"}
    mine = ask("ana", "rpc/enqueue_connector_job", asked)
    assert mine.status_code == 200, mine.text
    [job] = ask("ana", "jobs").json()
    assert (job["id"], job["status"], job["user_id"]) == (mine.json(), "queued", "ana")
    theirs = ask("ben", "rpc/enqueue_connector_job", asked)
    assert (theirs.status_code, theirs.json()["code"]) == (403, "42501")
    assert [ask("ben", table).json() for table in ("jobs", "instances")] == [[], []]
    assert ask(None, "rpc/enqueue_connector_job", asked).status_code == 401
    assert ask("ana", "rpc/claim_connector_job", {"worker": "ana"}).status_code == 403
    assert ask("ana", "secrets").status_code == 403


def test_all_instances_are_listed(way_in: tuple[ControlPlane, Database]) -> None:
    control, database = way_in
    assert control.instances() == []
    database.ask(
        "insert into connectors.instances (name, endpoint_type, project_id, user_id, schedule, "
        "start_date, endpoint_details) select 'Plans ' || n, 'google_drive', 'p', 'ana', "
        """'{"type": "manual"}', '2026-03-01', '{"folder_id": "x"}' """
        "from generate_series(1, 1200) n"
    )
    rows = control.instances()
    assert len(rows) == 1200, "a limit on rows over REST would cut this"
    first = next(row for row in rows if row["id"] == "plans_1")
    assert first["start_date"] == "2026-03-01"
    assert first["schedule"] == {"type": "manual"}
    assert first["endpoint_details"] == {"folder_id": "x"}
    assert first["credentials"] is None


def test_definitions_are_those_of_the_registry(way_in: tuple[ControlPlane, Database]) -> None:
    control, database = way_in
    assert define(control, Registry(plug_ins=())) == 2
    assert define(control, Registry(plug_ins=())) == 0
    columns = "type, title, streams, minimum_interval_minutes, details_schema -> 'properties'"
    found = database.ask(f"select {columns} from connectors.definitions order by 1")
    assert [row[:4] for row in found] == [
        ("autodesk_construction_cloud", "Autodesk Construction Cloud", ["files"], 1),
        ("google_drive", "Google Drive", ["files"], 1),
    ]
    assert "folder_id" in found[1][4]
    assert define(control, a_registry()) == 3, "two gone, one new; the broken one is left out"
    assert database.ask("select type from connectors.definitions") == [("fake",)]
    assert [row["type"] for row in definitions(a_registry())] == ["fake"]


def test_migrate_writes_the_definitions(own_postgres_url: str, tmp_path: Path) -> None:
    deployment = Deployment.from_environ(
        {"SUPABASE_DB_URL": own_postgres_url}, tmp_path, a_registry()
    )
    for _ in range(2):
        done = CliRunner().invoke(cli, ["migrate"], obj=deployment)
        assert (done.exit_code, done.stderr) == (0, "")
    with deployment.open_store() as store:
        control = control_plane(store)
        assert control is not None
        assert define(control, deployment.registry) == 0


def test_a_schema_that_is_not_exposed_is_told() -> None:
    url = "https://abcdef.supabase.co/rest/v1"
    with responses.RequestsMock() as api, closing(RestStore(url, KEY)) as store:
        api.post(f"{url}/rpc/list_instances", status=406, json={"code": "PGRST106"})
        control = control_plane(store)
        assert control is not None
        with pytest.raises(ConfigurationError, match="Add `connectors` to the exposed schemas"):
            control.instances()
        assert api.calls[0].request.headers["Content-Profile"] == "connectors"


def test_the_mock_has_no_control_plane(tmp_path: Path) -> None:
    with closing(open_store(None, tmp_path)) as store:
        assert control_plane(store) is None


def test_an_old_database_asks_for_its_migration(empty_postgres_url: str) -> None:
    with closing(PostgresStore(empty_postgres_url)) as store:
        control = control_plane(store)
        assert control is not None
        with pytest.raises(ConfigurationError, match="file-connector migrate"):
            control.instances()
