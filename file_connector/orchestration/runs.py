"""What has become of an endpoint's runs: which are under way, which have lost their process, which
failed without a word.

Dagster knows its runs, the store knows who holds an endpoint's lease; only both together tell a
long run from a dead one.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta

import dagster as dg

from file_connector.destination.base import Store
from file_connector.endpoints.schema import Endpoint
from file_connector.models import Mode, Outcome
from file_connector.sync.plan import backoff

MODE_TAG = "file_connector/mode"
"""Run tag of scheduled runs. A run without it was asked for by a person and re-reads its days."""

ENDPOINT_TAG = "file_connector/endpoint"

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
PARTITION_TAG = "dagster/partition"
MAX_RETRIES_TAG = "dagster/max_retries"
_STARTING = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING)
_WORKING = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
_WAITING = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)

SILENCE = timedelta(seconds=90)
"""A run at work that says nothing for longer than this and holds no living lease has lost its
process."""

START_SILENCE = timedelta(minutes=5)
"""The same for one that is still being started: as long as dagster.yaml gives it."""

COUNTED_TAG = "file_connector/counted"
"""Run tag: the failure of the run of this id is noted, or is none of the endpoint's."""

log = logging.getLogger(__name__)


def run_id_of(dagster_run_id: str, endpoint_id: str) -> str:
    """How a run of Dagster is called in ``sync_runs``: one run may serve several endpoints."""
    return f"{dagster_run_id}:{endpoint_id}"


def last_day_told(endpoint_id: str, instance: dg.DagsterInstance) -> date:
    """Up to which day a scheduled run told Dagster that all is well."""
    done = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], tags=launched_by_itself(endpoint_id)),
        limit=5,
    )
    return max(
        (day for record in done for day in days_marked(record.dagster_run)), default=date.min
    )


def days_marked(run: dg.DagsterRun) -> set[date]:
    """The daily partitions a run materialized."""
    if run.status is not dg.DagsterRunStatus.SUCCESS:
        return set()
    first = run.tags.get(RANGE_START_TAG) or run.tags.get(PARTITION_TAG)
    last = run.tags.get(RANGE_END_TAG) or first
    if first is None or last is None:
        return set()
    count = (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
    return {date.fromisoformat(first) + timedelta(days=n) for n in range(count)}


def launched_by_itself(endpoint_id: str) -> dict[str, str | list[str]]:
    """Tags of the runs that no person asked for by choosing days."""
    return {ENDPOINT_TAG: endpoint_id, MODE_TAG: [Mode.INCREMENTAL.value, Mode.SWEEP.value]}


def unfinished(instance: dg.DagsterInstance) -> Sequence[dg.RunRecord]:
    """Every run that waits or works, whoever's, newest first."""
    statuses = [dg.DagsterRunStatus.QUEUED, *_STARTING, *_WORKING]
    return instance.get_run_records(dg.RunsFilter(statuses=statuses))


def silent(
    endpoint_ids: Collection[str],
    records: Sequence[dg.RunRecord],
    instance: dg.DagsterInstance,
    now: datetime,
) -> Sequence[dg.DagsterRun]:
    """Those of the unfinished runs that serve these endpoints and have left the queue, but have
    said nothing for a while. Without those that do other people's work as well: how long that may
    be silent is not known here."""
    found = []
    for record in records:
        run = record.dagster_run
        if run.status is dg.DagsterRunStatus.QUEUED:
            continue
        if not _endpoints_of(run) & set(endpoint_ids) or not _is_ours_alone(run):
            continue
        events = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        newest = events[0].timestamp if events else record.create_timestamp.timestamp()
        patience = START_SILENCE if run.status in _STARTING else SILENCE
        if abs(now.timestamp() - newest) >= patience.total_seconds():
            found.append(run)
    return found


def bury_the_dead(
    runs: Sequence[dg.DagsterRun], store: Store, instance: dg.DagsterInstance
) -> str | None:
    """Declare failed those of the silent ``runs`` that nobody works on: none of their endpoints has
    a living lease (a working run renews it every few seconds), nor had one a moment ago. Which
    ones, in words.

    A run whose whole process tree was killed stays "started" in Dagster for good and would block
    its endpoint's pool. What follows a lost scheduled run is for the next tick to say; lost runs
    that a person asked for are for Dagster to retry.
    """
    lost = []
    for run in runs:
        if any(_at_work(run, endpoint_id, store) for endpoint_id in _endpoints_of(run)):
            continue
        lost.append(f"run {run.run_id[:8]} lost its process")
        log.warning("endpoint '%s': %s", ", ".join(sorted(_endpoints_of(run))), lost[-1])
        if MODE_TAG in run.tags:
            instance.add_run_tags(run.run_id, {MAX_RETRIES_TAG: "0"})
        instance.report_run_failed(
            run,
            "The run's process is gone: it holds no lease and says nothing. Nothing that"
            " it stored is lost; the next run goes on from there.",
        )
    return "; ".join(lost) or None


def _at_work(run: dg.DagsterRun, endpoint_id: str, store: Store) -> bool:
    """Whether a run lives, or may: Dagster has not been told yet that it ended, or it waits and is
    about to take over what another left. A lease that lapsed says that its own run is dead."""
    turn = store.turn(endpoint_id)
    if turn.free_for is None or turn.free_for >= SILENCE:
        return False
    return not turn.free_for or turn.holder != run_id_of(run.run_id, endpoint_id)


def count(
    endpoint: Endpoint, store: Store, instance: dg.DagsterInstance, now: datetime
) -> str | None:
    """Note the failure of a scheduled run that could not do so itself (killed, out of memory, an
    error before its first request), or there would be another such run each tick. The first is
    followed by another at once, later ones in a row after a back-off."""
    recent = now - timedelta(days=2)
    for record in instance.get_run_records(
        dg.RunsFilter(tags=launched_by_itself(endpoint.id), updated_after=recent), limit=1
    ):
        run = record.dagster_run
        if run.status is not dg.DagsterRunStatus.FAILURE:
            return None
        if run.tags.get(COUNTED_TAG) == run.run_id or _told(run, endpoint.id, store):
            return None
        what = f"run {run.run_id[:8]} ended without a verdict"
        status = store.status(endpoint.id)
        failures = status.failures if status else 0
        retry_at = now + backoff(failures) if failures else now
        store.note_failure(endpoint.identity, now, f"{what}; its log is in Dagster", retry_at)
        instance.add_run_tags(run.run_id, {COUNTED_TAG: run.run_id})
        return what
    return None


def _told(run: dg.DagsterRun, endpoint_id: str, store: Store) -> bool:
    """Whether a failed run closed its own row as such, having noted its failure. If the row says
    complete, Dagster was not told of the days that are right now."""
    mine = run_id_of(run.run_id, endpoint_id)
    return any(
        row.run_id == mine
        and row.outcome in (Outcome.PARTIAL, Outcome.FAILED)
        and not row.reason.startswith("lost: ")
        for row in store.runs(endpoint_id, limit=5)
    )


def in_flight(endpoint_id: str, records: Sequence[dg.RunRecord]) -> str | None:
    """Which of the unfinished runs works, or waits, for this endpoint, in words; None if the way is
    free. A job of somebody's own may wait for its own reasons and holds up nobody."""
    runs = [record.dagster_run for record in records]
    for run in runs:
        if run.status not in _WAITING and endpoint_id in _endpoints_of(run):
            return f"run {run.run_id[:8]} is {run.status.value.lower()}"
    for run in runs:
        if run.tags.get(ENDPOINT_TAG) == endpoint_id:
            return f"run {run.run_id[:8]} waits in the queue"
    return None


def _endpoints_of(run: dg.DagsterRun) -> set[str]:
    found = {key.path[1] for key in run.asset_selection or () if _is_ours(key)}
    return found | {value for key, value in run.tags.items() if key == ENDPOINT_TAG}


def _is_ours_alone(run: dg.DagsterRun) -> bool:
    return all(map(_is_ours, run.asset_selection or ()))


def _is_ours(key: dg.AssetKey) -> bool:
    return len(key.path) == 2 and key.path[0] == "files"


def other_writer(endpoint_id: str, store: Store, instance: dg.DagsterInstance) -> str | None:
    """Who writes this endpoint without being one of Dagster's living runs (the command line, say),
    in words: a run launched now could only wait for it."""
    turn = store.turn(endpoint_id)
    if turn.holder is None or turn.since is None or turn.free_for:
        return None
    run = instance.get_run_by_id(turn.holder.partition(":")[0])
    if run is not None and run.is_finished:
        return None
    return f"run {turn.holder} is writing since {turn.since:%H:%M} UTC"
