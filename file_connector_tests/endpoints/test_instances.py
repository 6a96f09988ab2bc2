"""Endpoints from the table ``connectors.instances`` instead of the endpoints file: the same rules,
the same words, and schedules that stay when the database goes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner
from sqlalchemy import make_url

from file_connector.cli import main as cli
from file_connector.deployment import Deployment
from file_connector.deployment_control import COPY_NAME, read_catalog
from file_connector.endpoints.catalog import Catalog
from file_connector.endpoints.loader import load_endpoints, load_instances
from file_connector.orchestration.build import build_definitions
from file_connector.orchestration.schedules import Mirror
from file_connector_tests.destination.proxy import CuttingProxy
from file_connector_tests.endpoints.fakes import a_registry, an_entry
from file_connector_tests.postgres import PostgresServer

TODAY = date(2026, 3, 1)
TOKEN = {"FAKE_TOKEN": "canary-of-the-table"}
ENVIRON = {"FAKE_CREDENTIALS__ACME": '{"token": "canary-of-the-table"}', **TOKEN}


def a_row(name: str = "Tower 42", **values: Any) -> dict[str, Any]:
    """A row as the table gives it: every column, null where nothing was written."""
    empty = dict.fromkeys(("id", "credentials", "schedule", "start_date"))
    bookkeeping = {
        "created_at": "2026-03-01T12:00:00+00:00",
        "updated_at": "x",
        "column_of_later": 1,
    }
    return {"enabled": True, **empty, **bookkeeping, **an_entry(name), **values}


def both(folder: Path, **values: Any) -> tuple[Catalog, Catalog]:
    """The same entry in a file and in the table."""
    path = folder / "endpoints.yaml"
    path.write_text(yaml.safe_dump({"endpoints": [an_entry(**values)]}))
    return (
        load_endpoints(path, a_registry(), ENVIRON, today=TODAY),
        load_instances([a_row(**values)], a_registry(), ENVIRON, today=TODAY),
    )


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"id": "t42", "enabled": False, "credentials": "acme", "start_date": "2026-02-01"},
        {"schedule": {"type": "cron", "cron": "0 6 * * *"}},
        {"schedule": {"type": "manual"}, "credentials": "sandbox"},
        {"credentials": "unset"},
    ],
    ids=str,
)
def test_a_row_is_an_entry(tmp_path: Path, values: dict[str, Any]) -> None:
    file, table = both(tmp_path, **values)
    [one], [other] = file.endpoints, table.endpoints
    assert other == one.model_copy(update={"line": None})
    assert [p.message for p in file.problems] == [p.message for p in table.problems]


MISTAKES: list[dict[str, Any]] = [
    {"endpoint_type": "fak"},
    {"endpoint_type": "broken"},
    {"endpoint_details": {}},
    {"endpoint_details": {"folder_id": "x", "folder": 1}},
    {"endpoint_details": {"folder_id": "x", "filter": {"at_least_bytes": "many"}}},
    {"endpoint_details": {"folder_id": "x", "client_secret": "canary-in-details"}},
    {"schedule": {"type": "interval", "interval_minutes": 1}},
    {"schedule": {"type": "interval", "interval_minutes": "often"}},
    {"schedule": {"type": "hourly"}},
    {"schedule": {"type": "cron", "cron": "61 * * * *"}},
    {"schedule": {}},
    {"schedule": "daily"},
    {"start_date": "2027-01-01"},
    {"project_id": ""},
    {"user_id": " ana"},
    {"name": "  "},
    {"id": "Tower 42"},
    {"credentials": "no good"},
]


@pytest.mark.parametrize("values", MISTAKES, ids=str)
def test_s38_a_bad_row_is_quarantined_in_the_words_of_the_file(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    file, table = both(tmp_path, **values)
    [one], [other] = file.quarantined, table.quarantined
    told = [(p.field, p.message, p.remedy) for p in one.problems]
    assert [(p.field, p.message, p.remedy) for p in other.problems] == told
    assert told
    assert (other.id, other.line) == (one.id, None)
    assert all(p.line is None and p.file == "connectors.instances" for p in table.problems)
    assert "canary" not in str(table)


def test_s38_a_bad_row_names_itself_and_leaves_the_others_alone() -> None:
    rows = [a_row(f"Plans {n}") for n in range(99)]
    rows.insert(40, a_row("Bad", endpoint_details={"folder": "x"}))
    catalog = load_instances(rows, a_registry(), ENVIRON, today=TODAY)
    assert len(catalog.endpoints) == 99
    assert str(catalog.problems[0]).startswith(
        "connectors.instances: endpoint 'bad': unknown key `folder` in `endpoint_details`."
    )


# -- from the database -----------------------------------------------------------------------------


class Control:
    """A deployment whose endpoints are in the table."""

    def __init__(self, server: PostgresServer, url: str, folder: Path) -> None:
        self.server = server
        self.url = url
        self.folder = folder

    def deployment(self, **environ: str) -> Deployment:
        given = {"FILE_CONNECTOR_SOURCE": "control_plane", "SUPABASE_DB_URL": self.url, **ENVIRON}
        return Deployment.from_environ({**given, **environ}, self.folder, a_registry())

    def catalog(self, url: str | None = None, deadline: float = 10.0) -> Catalog:
        deployment = self.deployment(SUPABASE_DB_URL=url or self.url)
        return read_catalog(
            deployment.settings, deployment.registry, ENVIRON, deadline_seconds=deadline
        )

    def insert(self, name: str, kind: str = "fake", details: str = '{"folder_id": "x"}') -> None:
        self.server.execute(
            "insert into connectors.instances (name, endpoint_type, project_id, user_id, "
            f"endpoint_details) values ('{name}', '{kind}', 'tower-42', 'ana', '{details}')",
            make_url(self.url).database,
        )

    @property
    def copy(self) -> Path:
        return self.folder / ".file_connector" / COPY_NAME


@pytest.fixture
def control(postgres_server: PostgresServer, postgres_url: str, tmp_path: Path) -> Control:
    (tmp_path / "endpoints.yaml").write_text(
        yaml.safe_dump({"endpoints": [an_entry("Of the file")]})
    )
    made = Control(postgres_server, postgres_url, tmp_path)
    made.insert("Plans")
    return made


def ids(catalog: Catalog) -> list[str]:
    return [endpoint.id for endpoint in catalog.endpoints]


def test_endpoints_come_from_the_file_or_from_the_table_and_never_from_both(
    control: Control,
) -> None:
    control.insert("Models", "fak")
    catalog = control.deployment().catalog()
    assert ids(catalog) == ["plans"]
    assert [q.id for q in catalog.quarantined] == ["models"]
    assert catalog.readable
    assert ids(control.deployment(FILE_CONNECTOR_SOURCE="YAML").catalog()) == ["of_the_file"]
    assert ids(control.deployment(FILE_CONNECTOR_SOURCE="").catalog()) == ["of_the_file"]


def test_a_new_row_is_there_after_reloading(control: Control) -> None:
    deployment = control.deployment()
    assert ids(deployment.catalog()) == ["plans"]
    control.insert("Models")
    assert ids(deployment.catalog()) == ["plans", "models"]


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"FILE_CONNECTOR_SOURCE": "postgres"}, "neither 'yaml' nor 'control_plane'"),
        ({"SUPABASE_DB_URL": ""}, "Set SUPABASE_DB_URL, or SUPABASE_URL and SUPABASE_SECRET_KEY"),
        ({"SUPABASE_DB_URL": "mysql://x"}, "not with 'postgresql://'"),
        ({"SUPABASE_DB_URL": "", "SUPABASE_URL": "https://x.supabase.co"}, "SUPABASE_SECRET_KEY"),
    ],
)
def test_a_source_that_cannot_be_is_told_and_raises_nothing(
    control: Control, environ: dict[str, str], told: str
) -> None:
    catalog = control.deployment(**environ).catalog()
    assert (catalog.readable, catalog.endpoints) == (False, ())
    assert told in str(catalog.problems[0])


@pytest.fixture
def line(control: Control) -> Iterator[CuttingProxy]:
    """The way to the database; leaving it cuts the way off."""
    with CuttingProxy(control.url, lambda _: False, cut_after=False) as proxy:
        yield proxy


def test_a_database_that_is_gone_takes_no_schedule_with_it(
    control: Control, line: CuttingProxy
) -> None:
    assert ids(control.catalog(line.url)) == ["plans"]
    port = make_url(line.url).port
    line.__exit__(None, None, None)
    refused = control.catalog(line.url)
    with closing(socket.create_server(("127.0.0.1", port or 0))):  # accepts and says nothing
        silent = control.catalog(line.url, deadline=0.3)
    for catalog, why in ((refused, "refuses connections"), (silent, "within 0.3 s")):
        assert ids(catalog) == ["plans"]
        assert not catalog.readable
        [problem] = catalog.problems
        assert why in problem.message
        assert "Until then, the endpoints of 20" in problem.remedy
        assert not problem.quarantines


def test_without_a_copy_the_reason_is_all_there_is(control: Control) -> None:
    catalog = control.catalog("postgresql://u:canary-pw@127.0.0.1:1/x", deadline=0.1)
    assert (catalog.endpoints, catalog.readable) == ((), False)
    assert "canary-pw" not in str(catalog)
    assert catalog.problems[0].quarantines


def test_the_copy_of_another_database_is_not_used(control: Control) -> None:
    control.catalog()
    other = control.catalog("postgresql://u:p@127.0.0.1:1/x", deadline=0.1)
    assert other.endpoints == ()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"of": 1}', None])
def test_a_copy_that_cannot_be_used_is_none(control: Control, content: str | None) -> None:
    control.catalog()
    held = json.loads(control.copy.read_text())
    control.copy.write_text(json.dumps({**held, "rows": [1]}) if content is None else content)
    url = make_url(control.url).set(password="wrong").render_as_string(hide_password=False)
    assert control.catalog(url).endpoints == ()


def test_the_copy_is_ours_alone_and_holds_no_password(control: Control) -> None:
    control.catalog()
    assert control.copy.stat().st_mode & 0o077 == 0
    assert str(make_url(control.url).password) not in control.copy.read_text()
    assert [p.name for p in control.copy.parent.iterdir()] == [COPY_NAME]


def test_a_home_that_cannot_be_written_costs_only_the_copy(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    control.copy.parent.write_text("a file where the home should be")
    assert ids(control.catalog()) == ["plans"]
    assert "no copy of the endpoints is kept" in caplog.text


# -- in Dagster and on the command line ------------------------------------------------------------


def test_instances_become_assets_and_schedules(control: Control) -> None:
    control.insert("Models", "fak")
    deployment = control.deployment()
    defs = build_definitions(deployment.catalog(), deployment=deployment)
    assert [s.name for s in defs.get_repository_def().schedule_defs] == ["plans_schedule"]
    specs = {s.key.path[1]: s for s in defs.resolve_all_asset_specs()}
    assert specs["plans"].group_name == "tower_42"
    assert specs["models"].group_name == "quarantined"
    assert r"Mend table connectors.instances, then reload" in str(specs["models"].description)
    assert "Did you mean 'fake'?" in str(specs["models"].description)


def test_in_an_outage_schedules_stay_and_the_reason_is_shown(control: Control) -> None:
    deployment = control.deployment()
    catalog = replace(
        deployment.catalog(),
        problems=control.deployment(SUPABASE_DB_URL="").catalog().problems,
        readable=False,
    )
    defs = build_definitions(catalog, deployment=deployment)
    assert [s.name for s in defs.get_repository_def().schedule_defs] == ["plans_schedule"]
    [spec] = [s for s in defs.resolve_all_asset_specs() if s.group_name == "quarantined"]
    assert spec.key == dg.AssetKey(["files", "connectors_instances"])
    with deployment.open_store() as store:
        Mirror(catalog).once(store)
        assert store.status("plans") is None, "nothing follows from an old copy"


def test_validate_reads_the_table(control: Control) -> None:
    done = CliRunner().invoke(cli, ["validate"], obj=control.deployment())
    assert (done.exit_code, done.stdout) == (0, "connectors.instances is valid: 1 endpoint.\n")
    control.insert("Models", details="{}")
    done = CliRunner().invoke(cli, ["validate"], obj=control.deployment())
    assert done.exit_code == 1
    assert done.stdout.startswith("connectors.instances: endpoint 'models': ")
    listed = CliRunner().invoke(cli, ["list"], obj=control.deployment())
    assert listed.exit_code == 0
    assert "models" in listed.stdout
    asked = CliRunner().invoke(cli, ["sync", "plan"], obj=control.deployment())
    assert "no endpoint 'plan' in connectors.instances. Did you mean 'plans'?" in asked.stderr
