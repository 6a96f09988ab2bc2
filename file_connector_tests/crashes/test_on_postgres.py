"""The same deaths and meetings with rows in Postgres: one of each kind."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from file_connector.sandbox import Sandbox
from file_connector_tests.crashes import test_overlap, test_runs_killed
from file_connector_tests.crashes.child import Death
from file_connector_tests.crashes.house import House
from file_connector_tests.postgres import PostgresServer


@pytest.fixture(scope="module")
def _house(postgres_server: PostgresServer) -> Iterator[House]:
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    name = postgres_server.create(postgres_server.migrated_template())
    with tempfile.TemporaryDirectory(dir=place) as folder, Sandbox() as sandbox:
        counts = {"drive": 12, "autodesk": 12}
        house = House(Path(folder), sandbox, postgres_server.url(name), endpoints=counts)
        yield house
        house.close()
    postgres_server.drop(name)


@pytest.fixture
def house(_house: House) -> Iterator[House]:
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
