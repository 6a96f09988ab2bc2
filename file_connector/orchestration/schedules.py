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
from file_connector.endpoints.catalog import Catalog
from file_connector.endpoints.schema import CronSchedule, Endpoint, IntervalSchedule
from file_connector.errors import FileConnectorError, one_line, redact
from file_connector.models import Mode
from file_connector.orchestration.factory import FIRST_DAY
from file_connector.orchestration.failures import told_to_dagster
from file_connector.orchestration.guards import Hurried, Unopened
from file_connector.orchestration.resources import resource_key
from file_connector.orchestration.runs import (
    ENDPOINT_TAG,
    MODE_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    bury_the_dead,
    count,
    in_flight,
    last_day_told,
    other_writer,
    silent,
    unfinished,
)
from file_connector.orchestration.storage import keep_open
from file_connector.sync.plan import decide
from file_connector.times import utc_now

PROBE_SECONDS = 20.0
MAX_DAYS = 31
"""A scheduled run marks at most this many daily partitions, the latest ones: each costs Dagster two
events (some 20 kB and 50 ms on SQLite), and the very first run would have hundreds."""

DAY_MINUTES = 24 * 60
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
        with told_to_dagster(endpoint.id):
            keep_open(context)
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
    runs = unfinished(instance)
    lost = bury_the_dead(silent([endpoint.id], runs, instance, now), store, instance)
    # Before the provider is asked: five hundred whose answers hang cost the others their ticks.
    if busy := in_flight(endpoint.id, unfinished(instance) if lost else runs):
        return dg.SkipReason("; ".join(filter(None, [lost, busy])))
    died = count(endpoint, store, instance, now) if lost else None
    try:
        connector: Connector = open_connector(endpoint, store)
    except FileConnectorError as error:
        connector = Unopened(error, store.state(endpoint.id))
    with closing(Hurried(connector, PROBE_SECONDS)) as hurried:
        decision = decide(endpoint.identity, hurried, store, now)
        if decision.run and not died:
            died = count(endpoint, store, instance, now)
            if died:
                decision = decide(endpoint.identity, hurried, store, now)
    why = one_line(redact("; ".join([*filter(None, [lost, died]), decision.why])))
    if not decision.run:
        return dg.SkipReason(why)
    if writer := other_writer(endpoint.id, store, instance):
        return dg.SkipReason(f"{writer}; this tick would have launched one: {why}")
    log.info("endpoint '%s': %s", endpoint.id, why)
    first, last = days_to_cover(endpoint, instance, now)
    return dg.RunRequest(
        tags={
            MODE_TAG: Mode.INCREMENTAL.value,
            ENDPOINT_TAG: endpoint.id,
            RANGE_START_TAG: first.isoformat(),
            RANGE_END_TAG: last.isoformat(),
        }
    )


def days_to_cover(
    endpoint: Endpoint, instance: dg.DagsterInstance, now: datetime
) -> tuple[date, date]:
    """The daily partitions a run at ``now`` brings up to date, first and last: from the last day a
    scheduled run told Dagster of, so that neither midnight nor an outage nor what went on without
    Dagster leaves a hole; before the first such run, from the start date."""
    today = now.astimezone(timezone.utc).date()
    start = max(endpoint.start_date or FIRST_DAY, last_day_told(endpoint.id, instance))
    return min(max(start, today - timedelta(days=MAX_DAYS - 1)), today), today


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

    @property
    def wanted(self) -> bool:
        return self._wanted

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
