"""Fixtures of the whole suite."""

from __future__ import annotations

from file_connector_tests.postgres import (
    empty_postgres_url,
    own_postgres_url,
    postgres_server,
    postgres_url,
)
from file_connector_tests.postgrest import project

# Imported here and nowhere else: every other place would start a server of its own.
__all__ = ["empty_postgres_url", "own_postgres_url", "postgres_server", "postgres_url", "project"]
