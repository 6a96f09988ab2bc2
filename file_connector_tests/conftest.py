"""Fixtures of the whole suite."""

from __future__ import annotations

from file_connector_tests.postgres import empty_postgres_url, postgres_server, postgres_url

__all__ = ["empty_postgres_url", "postgres_server", "postgres_url"]
