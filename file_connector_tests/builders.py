"""Small makers of values: a test says only what matters to it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from file_connector.models import FileRecord, Identity

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)


def at(hour: int, minute: int = 0, *, day: int = 1) -> datetime:
    """A moment in March 2026, UTC."""
    return datetime(2026, 3, day, hour, minute, tzinfo=timezone.utc)


def a_file(external_id: str, **values: Any) -> FileRecord:
    """A record with believable defaults."""
    defaults: dict[str, Any] = {
        "title": f"{external_id}.pdf",
        "link": f"https://files.example/{external_id}",
        "created_at": at(8),
        "updated_at": at(9),
        "mime_type": "application/pdf",
        "size_bytes": 100,
        "version": 1,
        "parent_id": "root",
    }
    return FileRecord(external_id=external_id, **{**defaults, **values})


def an_identity(endpoint_id: str = "plans", **values: str) -> Identity:
    defaults = {"source": "google_drive", "project_id": "tower-42", "user_id": "ana"}
    return Identity(endpoint_id=endpoint_id, **{**defaults, **values})
