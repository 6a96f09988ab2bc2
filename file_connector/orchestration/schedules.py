"""One endpoint -> its schedule: when it ticks, and what a tick does.

A tick asks one cheap question and either launches a run or says why not. It never waits long for
anybody: the provider has ``PROBE_SECONDS`` to answer.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import date, datetime, timedelta, timezone

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from file_connector.connectors.base import Connector
from file_connector.destination.base import EndpointStatus, Store
from file_connector.endpoints.loader import Catalog
from file_connector.endpoints.schema import CronSchedule, Endpoint, IntervalSchedule
from file_connector.errors import FileConnectorError, one_line, redact
from file_connector.models import Mode, SyncState
from file_connector.orchestration.factory import (
    ENDPOINT_TAG,
    FIRST_DAY,
    MODE_TAG,
)
from file_connector.orchestration.failures import told_to_dagster
from file_connector.orchestration.guards import Hurried, Unopened
from file_connector.orchestration.resources import resource_key
from file_connector.sync.plan import backoff, decide
from file_connector.times import utc_now

PROBE_SECONDS = 20.0
MAX_DAYS = 31
"""A scheduled run marks at most this many daily partitions, the latest ones: each costs Dagster two
events (some 20 kB and 50 ms on SQLite), and the very first run would have hundreds."""

DAY_MINUTES = 24 * 60
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
MAX_RETRIES_TAG = "dagster/max_retries"
_IN_PROGRESS = (
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
_WAITING = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)
GRACE = timedelta(minutes=3)
"""A run in progress for longer than this that holds no living lease has lost its process."""

log = logging.getLogger(__name__)


def build_schedule(
    endpoint: Endpoint,
    job: UnresolvedAssetJobDefinition,
    mirror: Mirror,
    now: Callable[[], datetime] = utc_now,
) -> dg.ScheduleDefinition | None:
    """The schedule ``<id>_schedule``, on by default; None for an endpoint that runs on demand."""
    crons = cron_schedule(endpoint)
    if crons is None:
        return None
    status = (
        dg.DefaultScheduleStatus.RUNNING if endpoint.enabled else dg.DefaultScheduleStatus.STOPPED
    )
    connector_key = resource_key(endpoint)

    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if not endpoint.enabled:
            return dg.SkipReason(f"switched off in {mirror.place(endpoint)}")
        with told_to_dagster():
            store: Store = context.resources.supabase.store()
            connectors = getattr(context.resources, connector_key)
            mirror.once(store)
            return evaluate(endpoint, store, connectors.hasty_connector, context.instance, now())

    return dg.ScheduleDefinition(
        name=f"{endpoint.id}_schedule",
        job=job,
        cron_schedule=crons,
        execution_timezone="UTC",
        execution_fn=tick,
        default_status=status,
        required_resource_keys={connector_key, "supabase"},
        description=f"Looks for changes in {one_line(endpoint.name)}; runs only if there are any.",
    )


# -- one tick ------------------------------------------------------------------------------------


def evaluate(
    endpoint: Endpoint,
    store: Store,
    open_connector: Callable[[Endpoint, Store], Connector],
    instance: dg.DagsterInstance,
    now: datetime,
) -> dg.RunRequest | dg.SkipReason:
    """What the tick at ``now`` leads to. Raises what the store raises: that is a failed tick."""
    state = store.state(endpoint.id)
    try:
        connector: Connector = open_connector(endpoint, store)
    except FileConnectorError as error:
        connector = Unopened(error, state)
    lost = bury_the_dead(endpoint, store, instance, now)
    with closing(Hurried(connector, PROBE_SECONDS)) as hurried:
        decision = decide(endpoint.identity, hurried, store, now)
    why = one_line(redact(f"{lost}; {decision.why}" if lost else decision.why))
    if not decision.run:
        return dg.SkipReason(why)
    busy = in_flight(endpoint.id, instance)
    if busy is not None:
        return dg.SkipReason(f"{busy}; this tick would have launched one: {why}")
    log.info("endpoint '%s': %s", endpoint.id, why)
    first, last = days_to_cover(endpoint, store.status(endpoint.id), state, now)
    return dg.RunRequest(
        tags={
            MODE_TAG: Mode.INCREMENTAL.value,
            ENDPOINT_TAG: endpoint.id,
            RANGE_START_TAG: first.isoformat(),
            RANGE_END_TAG: last.isoformat(),
        }
    )


def days_to_cover(
    endpoint: Endpoint, status: EndpointStatus | None, state: SyncState, now: datetime
) -> tuple[date, date]:
    """The daily partitions a run at ``now`` brings up to date, first and last: from the day of the
    last success, so that midnight and outages leave no hole; for the first sync, from the start
    date."""
    today = now.astimezone(timezone.utc).date()
    start = endpoint.start_date or FIRST_DAY
    covered = status.last_success_at if status else None
    if covered is not None and state.cursor is not None:
        start = max(start, covered.astimezone(timezone.utc).date())
    start = min(max(start, today - timedelta(days=MAX_DAYS - 1)), today)
    return start, today


def bury_the_dead(
    endpoint: Endpoint, store: Store, instance: dg.DagsterInstance, now: datetime
) -> str | None:
    """Declare failed what is in progress but has no process any more; what it found, in words.

    A run whose whole process tree was killed stays "started" in Dagster for good and would block
    its endpoint's pool, other people's runs included; so every tick looks, whatever the provider
    says. A lost scheduled run counts as a failed one: the first is followed by another at once,
    later ones in a row after a back-off. Lost runs that a person asked for are
    for Dagster to retry.
    """
    lost = None
    for record in _running(endpoint.id, instance):
        run = record.dagster_run
        if not _is_dead(record, store, instance, now):
            continue
        lost = f"run {run.run_id[:8]} lost its process"
        log.warning("endpoint '%s': %s", endpoint.id, lost)
        if MODE_TAG in run.tags:
            status = store.status(endpoint.id)
            failures = status.failures if status else 0
            retry_at = now + backoff(failures) if failures else now
            store.note_failure(endpoint.identity, now, lost, retry_at)
            instance.add_run_tags(run.run_id, {MAX_RETRIES_TAG: "0"})
        instance.report_run_failed(
            run,
            "The run's process is gone: it holds no lease and says nothing. Nothing that"
            " it stored is lost; the next run goes on from there.",
        )
    return lost


def in_flight(endpoint_id: str, instance: dg.DagsterInstance) -> str | None:
    """What already waits or runs for this endpoint, in words; None if the way is free."""
    for record in _running(endpoint_id, instance):
        run = record.dagster_run
        return f"run {run.run_id[:8]} is {run.status.value.lower()}"
    waiting = instance.get_run_records(
        dg.RunsFilter(statuses=_WAITING, tags={ENDPOINT_TAG: endpoint_id}), limit=1
    )
    if waiting:
        return f"run {waiting[0].dagster_run.run_id[:8]} waits in the queue"
    return None


def _running(endpoint_id: str, instance: dg.DagsterInstance) -> Sequence[dg.RunRecord]:
    return [
        record
        for record in instance.get_run_records(dg.RunsFilter(statuses=_IN_PROGRESS))
        if endpoint_id in _endpoints_of(record.dagster_run)
    ]


def _endpoints_of(run: dg.DagsterRun) -> set[str]:
    keys = run.asset_selection or ()
    found = {key.path[1] for key in keys if len(key.path) == 2 and key.path[0] == "files"}
    return found | {value for key, value in run.tags.items() if key == ENDPOINT_TAG}


def _is_dead(
    record: dg.RunRecord, store: Store, instance: dg.DagsterInstance, now: datetime
) -> bool:
    """Whether nobody works on a run any more: no event for a while, and none of its endpoints has
    a living lease (a working run renews it every few seconds)."""
    run = record.dagster_run
    events = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
    newest = events[0].timestamp if events else record.create_timestamp.timestamp()
    if now.timestamp() - newest < GRACE.total_seconds():
        return False
    return not any(_leased(store, endpoint_id) for endpoint_id in _endpoints_of(run))


def _leased(store: Store, endpoint_id: str) -> bool:
    """Whether a living run holds the endpoint: then, and only then, a state read just now cannot
    be put back (another writer in between counts as alive, too)."""
    return store.advance(store.state(endpoint_id)) is None


class Mirror:
    """Keeps table ``endpoints`` like the endpoints file: written by the first tick after loading,
    because loading itself must not need the database."""

    def __init__(self, catalog: Catalog) -> None:
        self._rows = [
            EndpointStatus(
                endpoint_id=e.id,
                name=e.name,
                endpoint_type=e.endpoint_type,
                project_id=e.project_id,
                user_id=e.user_id,
                status="new" if e.enabled else "disabled",
            )
            for e in catalog.endpoints
        ] + [
            EndpointStatus(
                endpoint_id=q.id,
                name=q.name,
                endpoint_type=q.endpoint_type,
                project_id=q.project_id,
                user_id=q.user_id,
                status="quarantined",
                message=" ".join(str(problem) for problem in q.problems),
            )
            for q in catalog.quarantined
            if q.id is not None
        ]
        self._wanted = catalog.readable
        self._place = catalog.place
        self._lock = threading.Lock()

    def place(self, endpoint: Endpoint) -> str:
        """Where an endpoint is declared, for people."""
        return self._place(endpoint.line)

    def once(self, store: Store) -> None:
        with self._lock:
            if self._wanted:
                store.mirror(self._rows)
                self._wanted = False


# -- when it ticks -------------------------------------------------------------------------------


def cron_schedule(endpoint: Endpoint) -> str | Sequence[str] | None:
    """Cron expressions (UTC) of an endpoint's ticks; None if it runs only on demand."""
    schedule = endpoint.schedule
    if isinstance(schedule, CronSchedule):
        return schedule.cron
    if not isinstance(schedule, IntervalSchedule):
        return None
    crons = interval_crons(schedule.interval_minutes, _hash(endpoint.id))
    return crons[0] if len(crons) == 1 else crons


def interval_crons(interval: int, seed: int) -> list[str]:
    """Cron expressions that fire every ``interval`` minutes (1 to 1440), shifted by ``seed`` so
    that not all endpoints tick in the same minute.

    An interval that does not divide the day begins anew at midnight UTC; then the last gap of the
    day is shorter, never longer.
    """
    offset = seed % interval
    if 60 % interval == 0:
        if interval == 60:
            return [f"{offset} * * * *"]
        minutes_of_hour = f"{offset}-59/{interval}" if offset else f"*/{interval}"
        return [f"{minutes_of_hour} * * * *" if interval > 1 else "* * * * *"]
    minutes = set(range(offset, DAY_MINUTES, interval))
    wrapped = max(minutes) + interval - DAY_MINUTES
    if wrapped < offset:
        minutes.add(wrapped)
    hours_by_minutes: dict[tuple[int, ...], list[int]] = {}
    for hour in range(24):
        of_hour = tuple(sorted(m % 60 for m in minutes if m // 60 == hour))
        if of_hour:
            hours_by_minutes.setdefault(of_hour, []).append(hour)
    return [
        f"{','.join(map(str, of_hour))} {','.join(map(str, hours))} * * *"
        for of_hour, hours in hours_by_minutes.items()
    ]


def _hash(endpoint_id: str) -> int:
    """The same number for the same id in every process and release."""
    return int.from_bytes(hashlib.sha256(endpoint_id.encode()).digest()[:8], "big")
