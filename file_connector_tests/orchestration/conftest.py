"""A small deployment without providers: real store, real Dagster, scripted connectors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from file_connector.connectors.base import Connector
from file_connector.deployment import Deployment
from file_connector.destination.base import Store
from file_connector.destination.open import FILE_NAME, open_store
from file_connector.endpoints.catalog import Catalog
from file_connector.endpoints.schema import Endpoint
from file_connector.errors import FileConnectorError
from file_connector.orchestration.build import build_definitions
from file_connector.orchestration.schedules import evaluate
from file_connector.times import iso, utc_now
from file_connector_tests.builders import a_file
from file_connector_tests.endpoints.fakes import a_registry, load
from file_connector_tests.sync.scripted import ScriptedConnector, listing

ENTRY = """
  - {{name: Plans, id: {id}, endpoint_type: fake, project_id: tower-42, user_id: ana,
     endpoint_details: {{folder_id: root-1}}, credentials: acme{more}}}
"""


@dataclass
class Connectors:
    """Stands for a connector resource: hands out scripted connectors, or refuses."""

    refuses: FileConnectorError | None = None
    scripted: dict[str, ScriptedConnector] = field(default_factory=dict)

    def connector(self, endpoint: Endpoint, store: object) -> Connector:
        if self.refuses is not None:
            raise self.refuses
        return self.of(endpoint.id)

    hasty_connector = connector

    def of(self, endpoint_id: str) -> ScriptedConnector:
        return self.scripted.setdefault(endpoint_id, ScriptedConnector())


class House:
    """One deployment in a folder. ``instance`` is Dagster's memory of it."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.environ = environ
        self.connectors = Connectors()
        self.instance = dg.DagsterInstance.ephemeral()
        self.store: Store = open_store(None, folder / ".file_connector")

    def catalog(self, *ids: str, more: str = "") -> Catalog:
        text = "endpoints:\n" + "".join(ENTRY.format(id=i, more=more) for i in ids or ("plans",))
        return load(self.folder, text, self.environ)

    def definitions(self, catalog: Catalog | None = None) -> dg.Definitions:
        return build_definitions(
            catalog or self.catalog(),
            resources={"fake": self.connectors},
            deployment=self.deployment(),
        )

    def deployment(self) -> Deployment:
        return Deployment.from_environ(self.environ, self.folder, a_registry())

    @property
    def plans(self) -> ScriptedConnector:
        """The scripted connector of endpoint ``plans``."""
        return self.connectors.of("plans")

    def endpoint(self, more: str = "") -> Endpoint:
        return self.catalog(more=more).endpoints[0]

    def run(
        self, *, scheduled: bool = True, days: tuple[str, str] = ("2026-03-01", "2026-03-01")
    ) -> dg.ExecuteInProcessResult:
        """One run of endpoint ``plans``, as its schedule or as a person would start it."""
        tags = {
            "dagster/asset_partition_range_start": days[0],
            "dagster/asset_partition_range_end": days[1],
        }
        if scheduled:
            tags["file_connector/mode"] = "incremental"
        job = self.definitions().resolve_job_def("plans_sync")
        return job.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)

    def tick(self, now: Any, endpoint: Endpoint | None = None) -> dg.RunRequest | dg.SkipReason:
        return evaluate(
            endpoint or self.endpoint(),
            self.store,
            self.connectors.hasty_connector,
            self.instance,
            now,
        )

    def age(self, table: str, column: str, by: timedelta) -> None:
        """What the store noted in ``column`` was so long ago, by its own clock."""
        with closing(sqlite3.connect(self.folder / ".file_connector" / FILE_NAME)) as file:
            file.execute(f"update {table} set {column} = ?", [iso(utc_now() - by)])
            file.commit()

    def rows(self) -> set[str]:
        return {str(row["external_id"]) for row in self.store.newest("plans", 1000)}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    environ = {"FAKE_CREDENTIALS__ACME": '{"token": "canary-of-the-house"}'}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for name in ("SUPABASE_DB_URL", "FILE_CONNECTOR_HOME", "FILE_CONNECTOR_ENDPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    house = House(tmp_path, environ)
    yield house
    house.store.close()
    house.instance.dispose()


@pytest.fixture
def synced(house: House) -> House:
    """A house whose endpoint ``plans`` has had its first sync: files a and b."""
    house.plans.sweep_script = listing(a_file("a"), a_file("b"))
    assert house.run().success
    return house
