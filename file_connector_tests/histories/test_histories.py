"""Every source, thousands of random histories: in the end the table equals the truth."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from file_connector.destination.sqlite import SqliteStore
from file_connector.sandbox import Sandbox
from file_connector_tests.histories.machine import History
from file_connector_tests.histories.memory import MemoryStore, TwinStore
from file_connector_tests.histories.stages import STAGES, Stage, World

HISTORIES = {"drive": 1000, "shared_drive": 1000, "autodesk": 1500, "autodesk_silent": 500}
"""Per source; more by hand: ``HISTORIES=5 pytest file_connector_tests/histories`` runs five times
as many."""

FACTOR = float(os.environ.get("HISTORIES", "1"))
CASES = [(source, n) for source, count in HISTORIES.items() for n in range(count // 250)]
"""Each case explores other histories (its own seed), so that they spread over the workers."""

TWINS = 40
"""So many of each source run on a real store, compared with the double of the others at every
commit."""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in os.environ.keys() - {"PYTEST_CURRENT_TEST"}:
        monkeypatch.delenv(name)  # requests reads all of it before each request
    with Sandbox() as sandbox:
        yield World(sandbox)


@pytest.fixture
def twins() -> Iterator[TwinStore]:
    """In memory-backed storage where there is any: histories need not reach a disk."""
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        # A lease that is over at once: the next run after a death need not wait for it.
        opened = SqliteStore(Path(folder) / "supabase.db", lease_seconds=0.0)
        yield TwinStore(opened)
        opened.close()


def explore(
    source: str, case: int, count: float, world: World, store: MemoryStore | TwinStore
) -> None:
    @seed(case)
    class Machine(History):
        def stage_of(self, world: World) -> Stage:
            return STAGES[source](world)

    Machine.world, Machine.store = world, store
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=max(1, int(count * FACTOR)),
            stateful_step_count=14,
            deadline=None,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize(("source", "case"), CASES)
def test_s17_random_histories(source: str, case: int, world: World) -> None:
    explore(source, case, 250, world, MemoryStore())


@pytest.mark.parametrize("source", STAGES)
def test_s17_random_histories_in_a_database(source: str, world: World, twins: TwinStore) -> None:
    explore(source, 99, TWINS, world, twins)
