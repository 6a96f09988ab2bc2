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
from file_connector_tests.histories.stages import STAGES, Stage, World

HISTORIES = int(os.environ.get("HISTORIES", "150"))
"""Per case; more by hand: ``HISTORIES=5000 pytest file_connector_tests/histories``."""

CASES = [(s, n) for s in STAGES for n in range({"autodesk": 3, "autodesk_silent": 1}.get(s, 4))]
"""Each case explores other histories (its own seed), so that they spread over the workers."""


@pytest.fixture
def world() -> Iterator[World]:
    with Sandbox() as sandbox:
        yield World(sandbox)


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    """In memory-backed storage where there is any: thousands of histories need not reach a disk."""
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        # A lease that is over at once: the next run after a death need not wait for it.
        opened = SqliteStore(Path(folder) / "supabase.db", lease_seconds=0.0)
        yield opened
        opened.close()


@pytest.mark.parametrize(("source", "case"), CASES)
def test_s17_random_histories(source: str, case: int, world: World, store: SqliteStore) -> None:
    @seed(case)
    class Machine(History):
        def stage_of(self, world: World) -> Stage:
            return STAGES[source](world)

    Machine.world, Machine.store = world, store
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=14,
            deadline=None,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
