"""The IO manager ``supabase_io_manager``: drains what an asset found into the store, batch by
batch, and tells Dagster how it went."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from json import dumps
from typing import Any, NoReturn

import dagster as dg

from file_connector.connectors.base import Connector
from file_connector.destination.base import Store
from file_connector.errors import BusyError, one_line, redact
from file_connector.models import Identity, Json, Mode, Outcome, RunCounts, RunReport
from file_connector.orchestration.failures import told_to_dagster
from file_connector.orchestration.resources import SupabaseResource
from file_connector.sync.run import SyncRun

BUSY_PATIENCE_SECONDS = 150.0
"""A run waits this long for another writer of its endpoint; the lease of a dead one ends sooner."""

BUSY_POLL_SECONDS = 5.0
PROGRESS_SECONDS = 30.0
NEWEST = 6
_TABLE_SCHEMA = dg.TableSchema([dg.TableColumn(name) for name in ("file", "changed", "in")])


@dataclass(frozen=True)
class ChangeSet:
    """What an asset hands over: whose files, where to find them, and which part is asked for.
    Nothing has been read yet; the IO manager draws the batches one after the other."""

    identity: Identity
    connector: Connector = field(repr=False)
    mode: Mode
    window: tuple[datetime, datetime] | None = None


class SupabaseIOManager(dg.ConfigurableIOManager):
    """Writes files to the destination: each batch in one transaction together with the cursor it
    makes true. A run succeeds only if everything it found is stored."""

    supabase: dg.ResourceDependency[SupabaseResource]

    def handle_output(self, context: dg.OutputContext, obj: ChangeSet) -> None:
        """Drain ``obj``; metadata on success. Raises dg.Failure, never retried by Dagster, if the
        run failed or could see only a part; what was stored before stays."""
        with told_to_dagster():
            try:
                store = self.supabase.store()
                began = time.monotonic()
                report = _drain(context, obj, store)
                metadata = _metadata(report, store, time.monotonic() - began)
            finally:
                obj.connector.close()
        if report.outcome is not Outcome.COMPLETE:
            raise dg.Failure(
                f"endpoint '{report.endpoint_id}': {report.outcome.value}: {report.reason}",
                metadata=metadata,
                allow_retries=False,
            )
        context.add_output_metadata(metadata)

    def load_input(self, context: dg.InputContext) -> NoReturn:
        raise dg.DagsterInvariantViolationError(
            "Files are rows of table `files`: query them there, by endpoint_id."
        )


def _drain(context: dg.OutputContext, changes: ChangeSet, store: Store) -> RunReport:
    """One run, begun as soon as the endpoint is free."""
    give_up = time.monotonic() + BUSY_PATIENCE_SECONDS
    while True:
        run = SyncRun(
            changes.identity,
            changes.connector,
            store,
            changes.mode,
            window=changes.window,
            run_id=f"{context.run_id}:{changes.identity.endpoint_id}",
            on_commit=_Progress(context),
        )
        try:
            return run.drain()
        except BusyError as busy:
            if time.monotonic() >= give_up:
                raise
            context.log.info(f"waiting: {busy}")
        time.sleep(BUSY_POLL_SECONDS)


class _Progress:
    """Says now and then how far the run is; seldom enough to keep the event log small."""

    def __init__(self, context: dg.OutputContext) -> None:
        self._log = context.log
        self._next = time.monotonic() + PROGRESS_SECONDS

    def __call__(self, counts: RunCounts) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_SECONDS
            self._log.info(
                f"so far {counts.inserted} inserted, {counts.updated} updated, "
                f"{counts.unchanged} unchanged, {counts.tombstoned} gone, "
                f"{counts.api_calls} API calls"
            )


def _metadata(report: RunReport, store: Store, seconds: float) -> dict[str, Any]:
    """How the run went, in types whose numbers Dagster can plot."""
    counts = report.counts
    newest = store.newest(report.endpoint_id, NEWEST)
    metadata: dict[str, Any] = {
        "outcome": report.outcome.value,
        "mode": report.mode.value,
        "rows_inserted": counts.inserted,
        "rows_updated": counts.updated,
        "rows_unchanged": counts.unchanged,
        "rows_gone": counts.tombstoned,
        "newest_files": dg.MetadataValue.table([_record(row) for row in newest], _TABLE_SCHEMA),
        "newest_links": dg.MetadataValue.md("\n".join(_linked(row) for row in newest) or "none"),
        "api_calls": counts.api_calls,
        "missed_by_fast_path": counts.missed_by_fast_path,
        "duration_seconds": round(seconds, 3),
        "cursor_before": _cursor(report.cursor_before),
        "cursor_after": _cursor(report.cursor_after),
        "dagster/row_count": store.known(report.endpoint_id).live_count(),
    }
    if report.notes:
        metadata["notes"] = _short(redact("; ".join(report.notes)), 500)
    return metadata


def _cursor(cursor: Json) -> str:
    """A cursor in words: a position, not a secret, though providers like to call it a token."""
    if isinstance(cursor, dict):
        told = {k: v for k, v in sorted(cursor.items()) if v is not None}
        text = ", ".join(f"{k} {v if isinstance(v, str) else dumps(v)}" for k, v in told.items())
    else:
        text = "none" if cursor is None else dumps(cursor)
    return _short(redact(text), 200)


def _record(row: Mapping[str, Json]) -> dg.TableRecord:
    title, folder = _title(row), str(row.get("path") or "")
    return dg.TableRecord(
        {
            "file": _short(title, 80),
            "changed": str(row.get("updated_at") or "")[:16].replace("T", " "),
            "in": _short(folder.removesuffix(title).rstrip("/") or "/", 80),
        }
    )


def _linked(row: Mapping[str, Json]) -> str:
    title, link = escaped(_title(row)), quoted_link(str(row.get("link") or ""))
    return f"- [{title}]({link})" if link else f"- {title}"


def _title(row: Mapping[str, Json]) -> str:
    return one_line(str(row.get("title") or row.get("external_id")))


def _short(text: str, limit: int) -> str:
    text = one_line(text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def escaped(text: str) -> str:
    """``text`` as literal markdown: no line breaks, no HTML, no link of its own."""
    return re.sub(r"([\\`*_\[\](){}<>#|~!&:])", r"\\\1", _short(text, 120))


def quoted_link(link: str) -> str:
    """``link`` for use in markdown if it is plain http(s), else nothing."""
    return link if re.fullmatch(r"https?://[^\s()<>\[\]\"'`|\\]+", link) else ""
