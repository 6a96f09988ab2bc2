from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from file_connector.sandbox import Sandbox
from file_connector_tests.crashes.house import House


@pytest.fixture(scope="session")
def _house() -> Iterator[House]:
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder, Sandbox() as sandbox:
        house = House(Path(folder), sandbox)
        yield house
        house.close()


@pytest.fixture
def house(_house: House) -> Iterator[House]:
    """One deployment for all tests; each takes endpoints of its own from it."""
    with _house.entered():
        yield _house
