"""How long Dagster remembers an endpoint's runs: what its schedule launched is thinned out after a
month, so that a busy endpoint's history stays bounded and no day loses its mark.

Dagster prunes ticks by itself (``retention`` in ``dagster.yaml``), runs and their events never.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from file_connector.orchestration.runs import days_marked, launched_by_itself
from file_connector.settings import RUN_RETENTION_VARIABLE

AT_ONCE = 2000
"""Runs looked at each time; a longer past is thinned out over several days."""

LONGEST_SECONDS = 30.0
"""The same for deleting them. The run that does it has given its endpoint's lease back, and if it
said nothing for long it would be taken for dead."""

log = logging.getLogger(__name__)


def retention(text: str) -> timedelta | None:
    """How long runs are kept, from the setting's text in days; None, and nothing is ever deleted,
    for 0 and for what is no number."""
    if text.isdecimal():
        days = int(text)
        return timedelta(days=days) if 0 < days < 36500 else None
    log.warning(
        "%s is '%s', which is no number of days: no run is deleted. Set it to 30, say, or to 0 to"
        " keep all.",
        RUN_RETENTION_VARIABLE,
        text[:40],
    )
    return None


def thin_out(
    endpoint_id: str,
    instance: dg.DagsterInstance,
    before: datetime,
    monotonic: Callable[[], float] = time.monotonic,
) -> int:
    """Delete the runs this endpoint's schedule launched before a moment, with their events and what
    they printed, except the last success of every day; how many were deleted. Runs that people
    asked for stay."""
    give_up = monotonic() + LONGEST_SECONDS
    marked: set[date] = set()
    old = instance.get_run_records(
        dg.RunsFilter(tags=launched_by_itself(endpoint_id), created_before=before), limit=AT_ONCE
    )
    deleted = 0
    for record in old:  # newest first
        if monotonic() > give_up:
            break
        run = record.dagster_run
        days = days_marked(run)
        if run.is_finished and days <= marked:
            instance.delete_run(run.run_id)
            _forget_files(run.run_id, instance)
            deleted += 1
        marked |= days
    return deleted


def _forget_files(run_id: str, instance: dg.DagsterInstance) -> None:
    """What Dagster leaves of a deleted run."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    events = instance.event_log_storage
    if isinstance(events, SqliteEventLogStorage):
        for suffix in ("", "-wal", "-shm"):
            Path(events.path_for_shard(run_id) + suffix).unlink(missing_ok=True)
