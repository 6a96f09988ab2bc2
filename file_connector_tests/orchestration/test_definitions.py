"""The shape of what Dagster sees, and what loading it may not need."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.definitions_load_context import (
    DefinitionsLoadContext,
    DefinitionsLoadType,
)

import file_connector
from file_connector.connectors.registry import Registry
from file_connector.deployment import Deployment
from file_connector.endpoints.catalog import Catalog, Quarantined
from file_connector.endpoints.loader import load_endpoints
from file_connector.orchestration.build import build_definitions
from file_connector.orchestration.factory import group_name, owner, tag_value
from file_connector.orchestration.resources import resource_key
from file_connector_tests.endpoints.fakes import SPEC, Only, load
from file_connector_tests.orchestration.conftest import House

CHECKOUT = Path(file_connector.__file__).parent.parent


def shape(defs: dg.Definitions) -> list[str]:
    """One line per thing, in words; a change here is a change people see."""
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    lines = []
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        parts = [f"asset {key.to_user_string()}", f"group {node.group_name}"]
        if node.partitions_def is not None:
            first = node.partitions_def.get_first_partition_key()
            policy = node.backfill_policy
            single = policy is not None and policy.max_partitions_per_run is None
            parts += [f"daily from {first}", "single run" if single else "many runs"]
            parts += [f"pools {sorted(node.pools or ())}", f"owners {list(node.owners)}"]
        parts.append(f"kinds {sorted(node.kinds)}")
        lines.append(", ".join(parts))
    lines += [
        f"schedule {s.name}, {s.cron_schedule}, {s.execution_timezone}, {s.default_status.value}, "
        f"job {s.job_name}"
        for s in sorted(repository.schedule_defs, key=lambda s: s.name)
    ]
    lines.append(f"resources {sorted(repository.get_top_level_resources())}")
    return lines


def test_the_shipped_example() -> None:
    catalog = load_endpoints(CHECKOUT / "endpoints.yaml", Registry())
    told = """
        asset files/tower_42_documents, group tower_42, daily from 2026-01-01, single run, \
pools ['tower_42_documents'], owners ['team:ana'], kinds ['googledrive', 'supabase']
        asset files/tower_42_models, group tower_42, daily from 2026-01-01, single run, \
pools ['tower_42_models'], owners ['team:ana'], kinds ['autodesk', 'supabase']
        schedule tower_42_documents_schedule, */5 * * * *, UTC, RUNNING, \
job tower_42_documents_sync
        schedule tower_42_models_schedule, 2-59/5 * * * *, UTC, RUNNING, job tower_42_models_sync
        resources ['autodesk', 'google_drive', 'supabase', 'supabase_io_manager']
    """
    assert shape(build_definitions(catalog)) == dedent(told).strip().splitlines()


def test_keys_of_the_surface_are_there(house: House) -> None:
    defs = house.definitions()
    assert {"google_drive", "autodesk", "supabase", "supabase_io_manager"} <= set(
        defs.resources or {}
    )


def test_every_kind_of_schedule(house: House) -> None:
    def crons(more: str) -> list[object]:
        repository = house.definitions(house.catalog(more=more)).get_repository_def()
        return [(s.cron_schedule, s.default_status.value) for s in repository.schedule_defs]

    assert crons("") == [("*/5 * * * *", "RUNNING")]
    assert crons(', schedule: {type: cron, cron: "0 6 * * *"}') == [("0 6 * * *", "RUNNING")]
    assert crons(", schedule: {type: manual}") == []
    assert crons(", enabled: false") == [("*/5 * * * *", "STOPPED")]


def five_hundred(folder: Path) -> Catalog:
    types = {
        "google_drive": {"folder_id": "1AbCdEfGhIjKlMnOpQrStUvWxYz012345"},
        "autodesk_construction_cloud": {"project_id": "b.6c2cffb0-e8c8-43d3-b415-e53f4377cedb"},
    }
    names = list(types)
    entries = [
        {
            "name": f"Endpoint {n}",
            "endpoint_type": names[n % 2],
            "project_id": f"project-{n % 40}",
            "user_id": f"user{n % 90}@example.com",
            "endpoint_details": types[names[n % 2]],
            "credentials": "sandbox",
            "schedule": {"type": "interval", "interval_minutes": (5, 7, 90)[n % 3]},
        }
        for n in range(500)
    ]
    path = folder / "endpoints.yaml"
    path.write_text(yaml.safe_dump({"endpoints": entries}))
    catalog = load_endpoints(path, Registry())
    assert len(catalog.endpoints) == 500
    return catalog


def test_500_endpoints_no_two_collide(tmp_path: Path) -> None:
    repository = build_definitions(five_hundred(tmp_path)).get_repository_def()
    nodes = {f"files__{key.path[-1]}" for key in repository.asset_graph.get_all_asset_keys()}
    assert len(nodes) == 500
    assert len({s.name for s in repository.schedule_defs}) == 500
    assert len(set(repository.job_names)) == 501


LOADING = """
import socket, sys
def no_network(*args, **kwargs):
    raise AssertionError("loading definitions must not use the network")
socket.socket.connect = no_network
socket.create_connection = no_network
socket.getaddrinfo = no_network
from file_connector.definitions import defs
assert len(defs.get_repository_def().schedule_defs) == 500
client_libraries = {"googleapiclient", "requests", "psycopg2", "pandas", "file_connector.sandbox"}
print(sorted(client_libraries & set(sys.modules)))
"""


def test_500_endpoints_load_without_network_database_and_client_libraries(tmp_path: Path) -> None:
    five_hundred(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LOADING],
        cwd=tmp_path,
        env={"PYTHONPATH": str(CHECKOUT), "SUPABASE_DB_URL": "postgresql://u:p@127.0.0.1:1/no"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["endpoints.yaml"]


BAD = """
endpoints:
  - {name: Plans, endpoint_type: fake, project_id: p, user_id: u, endpoint_details: {folder_id: x}}
  - {name: Broken, endpoint_type: fak, project_id: p, user_id: u, endpoint_details: {}}
  - {name: Plans, endpoint_type: fake, project_id: p, user_id: u, endpoint_details: {folder_id: y}}
"""


def test_s38_a_bad_entry_is_visible_and_the_others_load(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loading = DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION)
    with (
        caplog.at_level(logging.WARNING, logger="file_connector"),
        DefinitionsLoadContext.scoped(loading),
    ):
        defs = house.definitions(load(tmp_path, BAD))
    repository = defs.get_repository_def()
    assert [s.name for s in repository.schedule_defs] == ["plans_schedule"]
    specs = {s.key.path[1]: s for s in defs.resolve_all_asset_specs()}
    assert set(specs) == {"plans", "broken", "entry_in_line_5"}
    for name in ("broken", "entry_in_line_5"):
        assert specs[name].group_name == "quarantined"
        assert not repository.asset_graph.get(specs[name].key).is_executable
    broken = specs["broken"]
    assert "line 4" in str(broken.description)
    assert "Did you mean 'fake'?" in str(broken.description)
    assert broken.metadata["remedy"] != ""
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert any("endpoints.yaml:4" in e and "fak" in e for e in errors)


def test_a_run_does_not_repeat_what_is_wrong_with_other_endpoints(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = load(tmp_path, BAD)
    reload = DefinitionsLoadContext(DefinitionsLoadType.RECONSTRUCTION)
    with DefinitionsLoadContext.scoped(reload):
        defs = house.definitions(catalog)
    assert "Broken" in str([s.description for s in defs.resolve_all_asset_specs()])
    assert caplog.text == ""


def test_s38_the_problems_of_an_entry_come_in_the_order_of_their_lines(
    house: House, tmp_path: Path
) -> None:
    text = """
    endpoints:
      - name: Odd
        endpoint_type: fak
        project_id: p
        user_id: [u]
    """
    catalog = load(tmp_path, text)
    assert [p.line for p in catalog.quarantined[0].problems] == [4, 6]
    [spec] = house.definitions(catalog).resolve_all_asset_specs()
    assert ".;" not in str(spec.metadata)
    assert "is not known. `user_id` is a list" in str(spec.metadata["reason"])


def test_s38_bad_entries_of_one_id_are_all_visible(house: House, tmp_path: Path) -> None:
    entries = [Quarantined("plans", "Plans", "fake", "p", "u", line, ()) for line in (2, 5)]
    catalog = replace(house.catalog("plans"), quarantined=tuple(entries))
    keys = {s.key.path[1] for s in house.definitions(catalog).resolve_all_asset_specs()}
    assert keys == {"plans", "entry_in_line_2", "entry_in_line_5"}


def test_s38_a_file_that_cannot_be_read_is_visible_too(house: House, tmp_path: Path) -> None:
    defs = house.definitions(load(tmp_path, "endpoints: ["))
    [spec] = defs.resolve_all_asset_specs()
    assert spec.key == dg.AssetKey(["files", "endpoints_file"])
    assert spec.group_name == "quarantined"


def test_s39_reordering_entries_changes_no_name_and_no_time(house: House) -> None:
    forth = shape(house.definitions(house.catalog("plans", "models", "site")))
    back = shape(house.definitions(house.catalog("site", "models", "plans")))
    assert forth == back


def test_s39_appending_an_entry_changes_nothing_else(house: House) -> None:
    before = shape(house.definitions(house.catalog("plans")))
    after = shape(house.definitions(house.catalog("plans", "models")))
    assert set(before) < set(after)
    assert all("models" in line for line in set(after) - set(before))


def test_names_become_what_dagster_allows() -> None:
    assert group_name("tower-42 / süd") == "tower_42_s_d"
    assert group_name("***") == "project"
    assert owner("ana@example.com") == "ana@example.com"
    assert owner("ana") == "team:ana"
    assert owner("an a@example.com") == "team:an a@example.com"
    assert tag_value("ana@example.com") == "ana-example.com"
    assert len(tag_value("x" * 100)) == 63


def test_odd_tenants_load(house: House, tmp_path: Path) -> None:
    odd = """
    endpoints:
      - {name: "A [link](javascript:x) *b*", endpoint_type: fake, project_id: "ünïcode 42",
         user_id: "../../etc", endpoint_details: {folder_id: x}}
      - {name: B, endpoint_type: fake, project_id: "***", user_id: "%%%",
         endpoint_details: {folder_id: x}}
    """
    defs = house.definitions(load(tmp_path, odd))
    [first, _] = sorted(defs.resolve_all_asset_specs(), key=lambda s: str(s.key))
    assert r"A \[link\]" in str(first.description)


@pytest.mark.parametrize(
    ("type_name", "key"),
    [
        ("google_drive", "google_drive"),
        ("autodesk_construction_cloud", "autodesk"),
        ("sharepoint", "sharepoint"),
        ("share-point", "share_point"),
        ("supabase", "source_supabase"),
        ("autodesk", "source_autodesk"),
        ("4shared", "source_4shared"),
    ],
)
def test_every_type_has_a_resource_of_its_own(house: House, type_name: str, key: str) -> None:
    endpoint = house.endpoint().model_copy(update={"endpoint_type": type_name})
    assert resource_key(endpoint) == key


def test_s38_an_entry_dagster_refuses_takes_no_other_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd_kind = Only(SPEC, replace(SPEC, type="odd", kind="not a kind!"))
    text = """
    endpoints:
      - {name: Good, endpoint_type: fake, project_id: p, user_id: u,
         endpoint_details: {folder_id: x}}
      - {name: Odd, endpoint_type: odd, project_id: p, user_id: u,
         endpoint_details: {folder_id: x}}
    """
    path = tmp_path / "endpoints.yaml"
    path.write_text(dedent(text))
    defs = build_definitions(
        load_endpoints(path, odd_kind),
        deployment=Deployment.from_environ({}, tmp_path, odd_kind),
    )
    groups = {s.key.path[1]: s.group_name for s in defs.resolve_all_asset_specs()}
    assert groups == {"good": "p", "odd": "quarantined"}
    assert [s.name for s in defs.get_repository_def().schedule_defs] == ["good_schedule"]
    assert "Dagster does not accept it" in caplog.text


def test_the_deployment_can_be_given(tmp_path: Path) -> None:
    catalog = load_endpoints(CHECKOUT / "endpoints.yaml", Registry())
    deployment = Deployment.from_environ({}, tmp_path)
    assert (
        len(build_definitions(catalog, deployment=deployment).get_repository_def().job_names) == 3
    )
