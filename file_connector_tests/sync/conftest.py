from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from file_connector.destination.base import Store
from file_connector.destination.open import open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A fresh mock Supabase."""
    opened = open_store(None, tmp_path)
    yield opened
    opened.close()
