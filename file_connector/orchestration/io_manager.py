"""The IO manager ``supabase_io_manager``: drains what an asset found into the store, batch by
batch, and tells Dagster how it went; hands rows to assets downstream as a pandas data frame."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from json import dumps
from typing import TYPE_CHECKING, Any

import dagster as dg

from file_connector.connectors.base import Connector
from file_connector.destination.base import Store
from file_connector.destination.tables import FILE_COLUMNS
from file_connector.errors import BusyError, one_line, redact
from file_connector.models import Identity, Json, Mode, Outcome, RunCounts, RunReport
from file_connector.orchestration.failures import told_to_dagster
from file_connector.orchestration.resources import SupabaseResource, current_deployment
from file_connector.orchestration.retention import retention, thin_out
from file_connector.orchestration.runs import COUNTED_TAG, run_id_of
from file_connector.sync.run import SyncRun
from file_connector.sync.turn import take_turn
from file_connector.times import utc_now

if TYPE_CHECKING:
    import pandas as pd

BUSY_PATIENCE_SECONDS = 150.0
"""How long a run waits for a living writer of its endpoint: a command, most likely a short one."""

RUN_SECONDS = 5 * 3600.0
"""A run of a huge endpoint ends by itself, with an outcome of its own, before Dagster's
``max_runtime_seconds`` ends it; the next one goes on."""

PROGRESS_SECONDS = 30.0
NEWEST = 6
RECENT = 60
"""Of so many rows written last, the newest are shown."""

_TIMES = ("created_at", "updated_at", "gone_at", "first_seen_at", "changed_at")
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
        with told_to_dagster(obj.identity.endpoint_id):
            try:
                store = self.supabase.store()
                began = time.monotonic()
                report = _drain(context, obj, store)
                if report.swept:
                    _thin_out_history(context, report.endpoint_id)
                metadata = _metadata(report, store, time.monotonic() - began)
            finally:
                obj.connector.close()
        context.log.info(_summary(report))
        if report.outcome is not Outcome.COMPLETE:
            raise dg.Failure(
                f"endpoint '{report.endpoint_id}': {report.outcome.value}: {report.reason}",
                metadata=metadata,
                allow_retries=False,
            )
        context.add_output_metadata(metadata)

    def load_input(self, context: dg.InputContext) -> "pd.DataFrame":
        """The live rows of an endpoint for an asset that depends on it, as columns of ``files``; in
        a partitioned run, those whose ``updated_at`` lies in the days asked for. All at once in
        memory: for an endpoint of millions of files, query the table instead."""
        import pandas as pd

        endpoint_id = context.asset_key.path[-1]
        with told_to_dagster(endpoint_id):
            store = self.supabase.store()
            rows = store.newest(endpoint_id, max(store.known(endpoint_id).live_count(), 1))
        frame = pd.DataFrame.from_records(list(rows), columns=FILE_COLUMNS)
        for name in _TIMES:
            frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
        if context.step_context.has_partitions and context.has_asset_partitions:
            window = context.asset_partitions_time_window
            asked = (frame["updated_at"] >= window.start) & (frame["updated_at"] < window.end)
            frame = frame[asked].reset_index(drop=True)
        return frame


def _drain(context: dg.OutputContext, changes: ChangeSet, store: Store) -> RunReport:
    """One run, begun as soon as the endpoint is free."""

    def drain() -> RunReport:
        return SyncRun(
            changes.identity,
            changes.connector,
            store,
            changes.mode,
            window=changes.window,
            time_limit_seconds=RUN_SECONDS,
            run_id=run_id_of(context.run_id, changes.identity.endpoint_id),
            on_commit=_Progress(context),
        ).drain()

    try:
        return take_turn(
            drain,
            lambda busy: context.log.info(f"waiting: {busy}"),
            patience_seconds=BUSY_PATIENCE_SECONDS,
        )
    except BusyError:
        counted = {COUNTED_TAG: context.run_id}
        context.step_context.instance.add_run_tags(context.run_id, counted)
        raise


def _thin_out_history(context: dg.OutputContext, endpoint_id: str) -> None:
    """Once a day, with the sweep. A history that cannot be thinned out is no failure of the run."""
    keep = retention(current_deployment().settings.run_retention)
    if keep is None:
        return
    try:
        deleted = thin_out(endpoint_id, context.step_context.instance, utc_now() - keep)
    except Exception as error:  # noqa: BLE001 - whatever Dagster's storage, or Dagster+, raises
        context.log.warning(f"old runs could not be deleted: {type(error).__name__}")
        return
    if deleted:
        context.log.info(f"deleted {deleted} runs older than {keep.days} days")


class _Progress:
    """Says now and then how far the run is; seldom enough to keep the event log small."""

    def __init__(self, context: dg.OutputContext) -> None:
        self._log = context.log
        self._next = time.monotonic() + PROGRESS_SECONDS

    def __call__(self, counts: RunCounts) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_SECONDS
            self._log.info(f"so far {_totals(counts)}")


def _summary(report: RunReport) -> str:
    return f"endpoint '{report.endpoint_id}': {report.outcome.value}: {_totals(report.counts)}"


def _totals(counts: RunCounts) -> str:
    return (
        f"{counts.inserted} inserted, {counts.updated} updated, {counts.unchanged} unchanged, "
        f"{counts.tombstoned} gone, {counts.api_calls} API calls"
    )


def _metadata(report: RunReport, store: Store, seconds: float) -> dict[str, Any]:
    """How the run went, in types whose numbers Dagster can plot."""
    counts = report.counts
    newest = _newest(store.newest(report.endpoint_id, RECENT))
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


def _newest(recent: Sequence[Mapping[str, Json]]) -> Sequence[Mapping[str, Json]]:
    """What was written in the latest minute first, and of that what the provider changed last."""

    def when(row: Mapping[str, Json]) -> tuple[str, str]:
        return str(row.get("changed_at") or "")[:16], str(row.get("updated_at") or "")

    return sorted(recent, key=when, reverse=True)[:NEWEST]


def _cursor(cursor: Json) -> str:
    """A cursor in words: a position, not a secret, though providers like to call it a token."""
    if isinstance(cursor, dict):
        told = {k: v for k, v in sorted(cursor.items()) if v is not None}
        text = ", ".join(f"{k} {_worded(v)}" for k, v in told.items())
    else:
        text = "none" if cursor is None else dumps(cursor)
    return _short(redact(text), 200)


def _worded(value: Json) -> str:
    """A part of a cursor; a long word is cut in its middle, because the UI cannot break it."""
    if isinstance(value, list):
        return " ".join(_worded(part) for part in value)
    if not isinstance(value, str):
        return dumps(value)
    return value if len(value) <= 40 else f"{value[:20]}…{value[-12:]}"


def _record(row: Mapping[str, Json]) -> dg.TableRecord:
    title, folder = _title(row), str(row.get("path") or "")
    return dg.TableRecord(
        {
            "file": _short(title, 80),
            "changed": str(row.get("updated_at") or "")[:16].replace("T", " "),
            # With blanks, so that the UI can break a long one into lines.
            "in": _short(" / ".join(folder.removesuffix(title).strip("/").split("/")), 80) or "/",
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
