"""The contract suite once more, over the real PostgREST: the same tests, another ``place``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from file_connector_tests.destination import (
    test_change_seq,
    test_histories,
    test_lent,
    test_rows,
    test_store,
)
from file_connector_tests.destination.rest import Project, RestPlace, project

__all__ = ["project"]

for _module in (test_store, test_rows, test_lent, test_histories, test_change_seq):
    for _name, _test in vars(_module).items():
        if _name.startswith("test_"):
            assert _name not in globals(), f"{_name} is in two modules"
            globals()[_name] = _test


@pytest.fixture
def place(project: Project, tmp_path: Path) -> Iterator[RestPlace]:
    here = RestPlace(project, tmp_path)
    yield here
    here.close()
