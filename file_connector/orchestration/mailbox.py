"""The mailbox of the control plane, emptied: the sensor ``connector_jobs`` claims jobs, launches a
run for each, and tells the mailbox how the run ended.

One sensor does it all, and remembers nothing: what is claimed stands in the mailbox, what became of
it in Dagster's history, and each evaluation brings the two together. So a daemon that was down or a
message that was lost leaves no job open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime, timezone

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.tags import WILL_RETRY_TAG

from file_connector.deployment import Deployment
from file_connector.destination.base import RunRow, Store
from file_connector.destination.control import ControlPlane, Job, control_plane
from file_connector.endpoints.catalog import Catalog
from file_connector.endpoints.schema import Endpoint
from file_connector.errors import ConfigurationError, one_line, redact
from file_connector.models import Json, Mode, Outcome
from file_connector.orchestration.factory import FIRST_DAY
from file_connector.orchestration.failures import told_to_dagster
from file_connector.orchestration.runs import (
    ENDPOINT_TAG,
    MODE_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    run_id_of,
)
from file_connector.orchestration.schedules import Mirror, days_to_cover
from file_connector.orchestration.storage import keep_open
from file_connector.times import utc_now

NAME = "connector_jobs"
JOB_TAG = "file_connector/job"
"""Run tag: job and claim, ``17.1`` for the first claim of job 17."""

WORKER = "dagster"
EVERY_SECONDS = 20
LEASE_SECONDS = 180
"""Renewed by every evaluation while Dagster says that the run waits or works."""

AT_ONCE = 20
"""Jobs claimed by one evaluation; the rest wait for the next."""

_MODES = {"sync": Mode.INCREMENTAL, "sweep": Mode.SWEEP}
"""Windows go without a mode, like a person's choice of days."""

log = logging.getLogger(__name__)


def build_sensor(
    catalog: Catalog,
    jobs: Sequence[UnresolvedAssetJobDefinition],
    mirror: Mirror,
    deployment: Deployment,
    *,
    running: bool,
    now: Callable[[], datetime] = utc_now,
) -> dg.SensorDefinition:
    """The sensor ``connector_jobs``. ``running``: on by default."""

    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        with told_to_dagster():
            keep_open(context)
            with deployment.open_store() as store:
                control = control_plane(store)
                if control is None:
                    return dg.SkipReason("the mock has no mailbox")
                mirror.once(store)  # whom jobs may be about
                return empty_mailbox(catalog, control, store, context.instance, now())

    return dg.SensorDefinition(
        name=NAME,
        evaluation_fn=tick,
        jobs=list(jobs) or None,
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=(
            dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED
        ),
        description="Runs what the application asks for with `connectors.enqueue_connector_job`.",
    )


def empty_mailbox(
    catalog: Catalog,
    control: ControlPlane,
    store: Store,
    instance: dg.DagsterInstance,
    now: datetime,
) -> dg.SensorResult | dg.SkipReason:
    """Settle what was claimed, then claim what is due. Jobs of endpoints that this code location
    does not know are left to others, or to the day it is reloaded."""
    endpoints = {endpoint.id: endpoint for endpoint in catalog.endpoints}
    refusals = {
        entry.id: "; ".join(map(str, entry.problems))
        for entry in catalog.quarantined
        if entry.id is not None and entry.id not in endpoints
    }
    told = [
        _settle(job, endpoints[job.instance_id], control, store, instance)
        for job in control.held(WORKER)
        if job.instance_id in endpoints
    ]
    requests = []
    mine = [*endpoints, *refusals]
    for job in control.claim(WORKER, LEASE_SECONDS, AT_ONCE, mine):
        try:
            if job.instance_id in refusals:
                raise ConfigurationError(f"quarantined: {refusals[job.instance_id]}")
            requests.append(_run_request(job, endpoints[job.instance_id], instance, now))
        except ConfigurationError as error:
            status = control.fail(job, redact(error), retry=False)
            told.append(f"job {job.id} is {status}: {error}")
    if waiting := control.waiting(mine):
        told.append(
            f"jobs wait for {', '.join(waiting)}, which this code location does not know: reload it"
        )
    for sentence in told:
        log.info("%s", one_line(redact(sentence)))
    if requests:
        return dg.SensorResult(run_requests=requests)
    return dg.SkipReason(one_line(redact("; ".join(told[:20]))) or "no job waits")


# -- a claimed job -> a run ----------------------------------------------------------------------


def _run_request(
    job: Job, endpoint: Endpoint, instance: dg.DagsterInstance, now: datetime
) -> dg.RunRequest:
    """Raises ConfigurationError if there can be no such run."""
    tags = {JOB_TAG: _key(job), ENDPOINT_TAG: endpoint.id}
    if job.kind in _MODES:
        tags[MODE_TAG] = _MODES[job.kind].value
        first, last = days_to_cover(endpoint, instance, now)
    else:
        first, last = _days(job.payload, endpoint, now)
    tags |= {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}
    return dg.RunRequest(run_key=f"job-{_key(job)}", job_name=f"{endpoint.id}_sync", tags=tags)


def _days(payload: Mapping[str, Json], endpoint: Endpoint, now: datetime) -> tuple[date, date]:
    """The days (UTC) of a window, both included; none of them in the future."""
    start, today = endpoint.start_date or FIRST_DAY, now.astimezone(timezone.utc).date()
    given = [str(payload.get("from")), str(payload.get("to") or payload.get("from"))]
    try:
        first, last = (date.fromisoformat(day) for day in given)
    except ValueError:
        raise ConfigurationError(
            f"'{given[0]}' to '{given[1]}' are no days.",
            remedy="Give `from` and `to` like 2026-01-31.",
        ) from None
    if not start <= first <= min(last, today):
        raise ConfigurationError(
            f"the days {first} to {last} are not between {start} and today, in this order.",
            remedy="An endpoint's days begin with its `start_date`; older files are stored too.",
        )
    return first, min(last, today)


# -- a run -> what became of the job ---------------------------------------------------------------


def _settle(
    job: Job,
    endpoint: Endpoint,
    control: ControlPlane,
    store: Store,
    instance: dg.DagsterInstance,
) -> str:
    """Bring the mailbox up to what Dagster knows of a claimed job; in words."""
    run = _run_of(job, instance)
    if run is None:
        return f"job {job.id} has no run yet"  # if none comes, its lease ends
    name = f"job {job.id}, run {run.run_id[:8]},"
    if not run.is_finished:
        control.renew(job, LEASE_SECONDS)
        return f"{name} is {run.status.value.lower()}"
    mine = run_id_of(run.run_id, endpoint.id)
    row = next((r for r in store.runs(endpoint.id) if r.run_id == mine), None)
    if run.is_success or (row is not None and row.outcome is Outcome.COMPLETE):
        control.complete(job, _result(run, row))
        return f"{name} is complete"
    if run.tags.get(WILL_RETRY_TAG) == "true":
        return f"{name} is started again by Dagster"  # if not, its lease ends
    why, retry = _why(run, row)
    status = control.fail(job, redact(why), retry=retry)
    return f"{name} {why} ({status or 'taken over by somebody else'})"


def _why(run: dg.DagsterRun, row: RunRow | None) -> tuple[str, bool]:
    """What a run that did not succeed says, and whether to try again. A run that came to a verdict
    is believed: the next scheduled one knows better when to try. One that died has said nothing."""
    if row is not None and row.outcome is not None and not row.reason.startswith("lost:"):
        return f"{row.outcome.value}: {row.reason}", False
    if run.status is dg.DagsterRunStatus.CANCELED:
        return "was canceled in Dagster", False
    return "ended without a verdict; its log in Dagster tells more", True


def _result(run: dg.DagsterRun, row: RunRow | None) -> dict[str, Json]:
    told: dict[str, Json] = {"run_id": run.run_id}
    if row is not None and row.outcome is not None:
        told |= {"mode": row.mode.value, "outcome": row.outcome.value, **asdict(row.counts)}
    return told


def _run_of(job: Job, instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    """The newest run of this very claim."""
    found = instance.get_run_records(dg.RunsFilter(tags={JOB_TAG: _key(job)}), limit=1)
    return found[0].dagster_run if found else None


def _key(job: Job) -> str:
    return f"{job.id}.{job.attempts}"
