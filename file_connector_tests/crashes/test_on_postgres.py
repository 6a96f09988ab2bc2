"""The same deaths and meetings with everything in Postgres, rows and Dagster's history: one of each
kind. And what only a server does to its clients: it restarts, or is gone for a while."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from file_connector.sandbox import Sandbox
from file_connector_tests.crashes import test_overlap, test_runs_killed
from file_connector_tests.crashes.child import Death
from file_connector_tests.crashes.house import House, wait_for
from file_connector_tests.destination.proxy import CuttingProxy
from file_connector_tests.postgres import PostgresServer

AWAY = threading.Event()
"""Set: the server of Dagster's history lets nobody finish a sentence."""


@pytest.fixture(scope="module")
def line(postgres_server: PostgresServer) -> Iterator[CuttingProxy]:
    """To the database of Dagster's history."""
    name = postgres_server.create()
    with CuttingProxy(
        postgres_server.url(name), lambda _: AWAY.is_set(), cut_after=False, times=10**6
    ) as line:
        yield line
    postgres_server.drop(name)


@pytest.fixture(scope="module")
def _house(postgres_server: PostgresServer, line: CuttingProxy) -> Iterator[House]:
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    name = postgres_server.create(postgres_server.migrated_template())
    with tempfile.TemporaryDirectory(dir=place) as folder, Sandbox() as sandbox:
        counts = {"drive": 14, "autodesk": 12}
        house = House(Path(folder), sandbox, postgres_server.url(name), line.url, endpoints=counts)
        yield house
        house.close()
    postgres_server.drop(name)


@pytest.fixture
def house(_house: House) -> Iterator[House]:
    AWAY.clear()
    with _house.entered():
        yield _house


@pytest.mark.parametrize(
    ("source", "story", "death"),
    [
        ("drive", "first_sync", Death("commit", 1, before=False)),
        ("drive", "changes", Death("commit", 2)),
        ("drive", "sweep", Death("finish_run", before=False)),
        ("autodesk", "first_sync", Death("commit", 3)),
        ("autodesk", "changes", Death("begin_run", before=False)),
        ("autodesk", "sweep", Death("commit", 2, before=False)),
    ],
    ids=str,
)
def test_s17_killed_around_a_write(house: House, source: str, story: str, death: Death) -> None:
    plot = test_runs_killed.tell(house, source, story)
    assert test_runs_killed.launch(house, plot, death).wait() == -signal.SIGKILL
    test_runs_killed.healed(house, plot)


def test_s17_sigterm_closes_the_run_at_once(house: House) -> None:
    test_runs_killed.test_s17_sigterm_closes_the_run_at_once(house)


def test_s41_two_commands_and_a_run_at_once(house: House) -> None:
    test_overlap.test_s41_two_commands_and_a_run_at_once(house, "autodesk")


def test_s50_a_backfill_of_thirty_days_while_the_schedule_runs(house: House) -> None:
    test_overlap.test_s50_a_backfill_of_thirty_days_while_the_schedule_runs(house, "drive")


def test_s17_killed_around_an_event_of_dagster(house: House) -> None:
    test_runs_killed.test_s17_killed_around_an_event_of_dagster(
        house, Death("event:ASSET_MATERIALIZATION")
    )


def test_dagsters_history_restarts_between_two_ticks(
    house: House, postgres_server: PostgresServer
) -> None:
    plot = house.plot("drive", synced=True)
    for _ in range(2):
        tick = house.tick(plot)
        assert str(tick.skip_reason).startswith("no change since ")
        postgres_server.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where pid <> pg_backend_pid() and backend_type = 'client backend'"
        )
    assert house.heals(plot) == 0


def test_dagsters_history_is_gone_for_a_moment_in_the_middle_of_a_run(
    house: House, line: CuttingProxy
) -> None:
    plot = test_runs_killed.tell(house, "drive", "changes")
    house.tick(plot)
    stuck = house.hold()
    (child,) = house.dequeue()
    stuck.reached()
    AWAY.set()
    before = line.cuts
    stuck.let_go()
    wait_for(lambda: line.cuts >= before + 2, "the run's second attempt to tell Dagster something")
    AWAY.clear()
    child.wait()
    assert house.heals(plot) <= 1
