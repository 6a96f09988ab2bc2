"""Autodesk: many endpoints, many processes, one app: its call budget and its rotating token."""

from __future__ import annotations

import heapq
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from cryptography.fernet import Fernet

from file_connector.connectors.autodesk.api import CONTENTS, TOP_FOLDERS
from file_connector.connectors.autodesk.connector import WORKERS
from file_connector.destination.sqlite import SqliteStore
from file_connector.orchestration.resources import AutodeskResource, current_deployment
from file_connector.orchestration.schedules import evaluate
from file_connector.sync.run import SyncRun
from file_connector.times import utc_now
from file_connector_tests.builders import at
from file_connector_tests.connectors.acc import Site, a_site


@pytest.fixture
def site() -> Iterator[Site]:
    with a_site() as site:
        yield site


def an_endpoint(site: Site) -> str:
    """An endpoints.yaml."""
    entry = {
        "name": "Tower",
        "endpoint_type": "autodesk_construction_cloud",
        "project_id": "tower-42",
        "user_id": "ana",
        "credentials": "ana",
        "endpoint_details": {"project_id": site.project, "hub_id": site.hub},
    }
    return json.dumps({"endpoints": [entry]})


class Simulation:
    """Endpoints that list folders under the store's real budget, on a clock of their own."""

    def __init__(self, folder: Path) -> None:
        self.now = at(12)
        self.asleep = 0.0
        self.store = SqliteStore(
            folder / "supabase.db", clock=lambda: self.now, sleep=self._doze, lease_seconds=0.0
        )
        self.limiter = self.store.limiter()
        self.calls: list[datetime] = []
        self._todo: list[tuple[datetime, int, str, int]] = []

    def _doze(self, seconds: float) -> None:
        self.asleep = seconds

    def lister(self, name: str, begins: datetime, listings: int) -> None:
        heapq.heappush(self._todo, (begins, len(self._todo), name, listings))

    def run(self, latency: float) -> dict[str, datetime]:
        """When each of them had its last answer."""
        done: dict[str, datetime] = {}
        while self._todo:
            self.now, n, name, listings = heapq.heappop(self._todo)
            if not listings:
                done[name] = self.now
                continue
            self.asleep = 0.0
            self.limiter.acquire("aps:app:contents", CONTENTS.per_minute)
            sent = self.now + timedelta(seconds=self.asleep)
            self.calls.append(sent)
            answered = sent + timedelta(seconds=latency)
            heapq.heappush(self._todo, (answered, n, name, listings - 1))
        self.store.close()
        return done


def test_s43_nobody_waits_behind_an_endpoint_with_200_000_files(tmp_path: Path) -> None:
    """Twenty endpoints of one app; one begins with 1,500 folders, the others find 8 changed ones
    each at their own minute of the interval."""
    world = Simulation(tmp_path)
    begins = world.now
    for worker in range(WORKERS):
        world.lister(f"big {worker}", begins, 1_500 // WORKERS)
    wakes = {f"small {n}": begins + timedelta(seconds=15 * n) for n in range(19)}
    for name, wake in wakes.items():
        world.lister(name, wake, 8)
    done = world.run(latency=0.3)

    assert max(done[name] - wake for name, wake in wakes.items()) < timedelta(seconds=15)
    needed = timedelta(minutes=len(world.calls) / CONTENTS.per_minute)
    assert max(done.values()) - begins < 1.15 * needed, "and the budget is used"
    calls = sorted(world.calls)
    for first, later in zip(calls, calls[CONTENTS.per_minute :], strict=False):
        assert later - first >= timedelta(minutes=1)


TWENTY = """
import os, sys
from pathlib import Path
from file_connector.connectors.autodesk import connector
from file_connector.deployment import Deployment

deployment = Deployment.from_environ(os.environ, Path.cwd())
with deployment.open_store():
    pass
[endpoint] = deployment.catalog().endpoints
gate, opened = os.pipe()
for _ in range(20):
    if os.fork() == 0:
        os.close(opened)
        os.read(gate, 1)
        with deployment.open_store() as store:
            deployment.open_connector(endpoint, store).check()
        os._exit(0)
os.close(opened)
failed = sum(os.wait()[1] != 0 for _ in range(20))
sys.exit(failed)
"""


def test_s43_a_tick_for_which_our_budget_is_used_up_says_so_and_is_no_failure(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APS_BASE_URL", site.sandbox.aps_base_url)
    monkeypatch.setenv("APS_CREDENTIALS__ANA", json.dumps(site.sandbox.aps_credentials()))
    (tmp_path / "endpoints.yaml").write_text(an_endpoint(site))
    deployment = current_deployment()
    (endpoint,) = deployment.catalog().endpoints
    with deployment.open_store() as store:
        SyncRun(endpoint.identity, deployment.open_connector(endpoint, store), store).drain()
        waits: list[float] = []
        store._sleep = waits.append  # type: ignore[attr-defined]
        others = store.limiter()
        while not waits or waits[-1] < 15:
            others.acquire("aps:sandbox-client:topFolders", TOP_FOLDERS.per_minute)
        before = store.status(endpoint.id), site.calls()
        instance = dg.DagsterInstance.ephemeral()
        hasty = AutodeskResource().hasty_connector
        answer = evaluate(endpoint, store, hasty, instance, utc_now())
        assert (store.status(endpoint.id), site.calls()) == before
    assert isinstance(answer, dg.SkipReason)
    told = answer.skip_message or ""
    assert told.startswith("not asked: our own budget of 300 calls a minute"), told


def test_s34_twenty_processes_wake_together_and_refresh_once(site: Site, tmp_path: Path) -> None:
    (tmp_path / "endpoints.yaml").write_text(an_endpoint(site))
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "APS_BASE_URL": site.sandbox.aps_base_url,
        "APS_CREDENTIALS__ANA": json.dumps(site.sandbox.aps_credentials("three_legged")),
        "FILE_CONNECTOR_ENCRYPTION_KEY": Fernet.generate_key().decode(),
    }
    done = subprocess.run(
        [sys.executable, "-c", TWENTY],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert site.calls(kind="aps.topFolders") == 20
    assert site.calls(kind="aps.token") == 1
