"""What one tick of an endpoint's schedule should do: launch a run, or skip and say why.

The cheapest reasons come first; the provider is asked only when nothing else decides.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta, timezone

from file_connector.connectors.base import Connector
from file_connector.destination.base import EndpointStatus, Store
from file_connector.errors import BudgetError, FileConnectorError, TransientError
from file_connector.models import Identity, Mode, SyncState

FIRST_RETRY = timedelta(minutes=5)
LONGEST_RETRY = timedelta(hours=1)
LONGEST_SWEEP_GAP = timedelta(hours=25)
BLIND_TRIES = 3
"""What could not be seen is tried again at once so often, then after 1, 2, 4, 8 ... hours."""
LAST_RESORT = timedelta(days=1)
"""A tick asks in haste. If that is all that fails, a run gets through, because it has patience: so
often in an episode, one is launched although the question fails."""
HELD_BACK_RETRY = timedelta(hours=1)
"""After a mass disappearance the confirming passes come hourly, not daily, and count hourly."""


@dataclass(frozen=True, slots=True)
class Decision:
    """``run`` with a reason a person can read; ``failed`` when the question itself failed."""

    run: bool
    why: str
    failed: bool = False


def decide(identity: Identity, connector: Connector, store: Store, now: datetime) -> Decision:
    """What a tick at ``now`` should do. At most one question to the provider, none in most cases;
    while an endpoint fails, a check as well.

    Writes only the state (a later cursor the probe learnt) and, when an episode of failure goes on,
    the endpoint's status. Raises what the store raises.
    """
    state = store.state(identity.endpoint_id)
    status = store.status(identity.endpoint_id)
    if (
        status is not None
        and status.failures
        and status.retry_at
        and _ahead(status.retry_at, now, 2 * LONGEST_RETRY)
    ):
        return Decision(False, _failing(status, status.retry_at, now))
    failing = status is not None and status.failures > 0 and status.retry_at is not None
    pending = pending_work(identity, connector, state, now)
    if pending is None and _look_again(state, status.failures if status else 0, now):
        pending = f"{len(state.blind)} folder(s) could not be seen last time"
    if pending is not None and not failing:
        return Decision(True, pending)
    try:
        if failing:
            _check(connector, state)
        if state.cursor is None:
            return Decision(True, pending or "first sync")
        probe = connector.probe(state.cursor, store.known(identity.endpoint_id))
    except BudgetError as error:
        return Decision(False, f"not asked: {error}")
    except FileConnectorError as error:
        error.endpoint = identity.endpoint_id
        if not failing:
            return Decision(True, f"the probe failed, the run will tell the story: {error}", True)
        if isinstance(error, TransientError) and _another_day(status, now):
            return Decision(True, f"a run has more patience than a tick: {error}")
        failures = status.failures if status else 0
        retry_at = now + backoff(failures + 1)
        noted = store.note_failure(identity, now, str(error), retry_at)
        return Decision(False, _failing(noted, retry_at, now), True)
    if pending is not None:
        return Decision(True, pending)
    if probe.changed or failing:
        return Decision(True, probe.why if probe.changed else "the provider answers again")
    if probe.cursor is not None and probe.cursor != state.cursor:
        store.advance(replace(state, cursor=probe.cursor))
    since = state.synced_at or state.swept_at
    return Decision(False, _no_change(since, next_sweep_at(identity.endpoint_id, state), now))


def _check(connector: Connector, state: SyncState) -> None:
    """What a person has to mend fails here, and not in one more run. What is only slow does not, if
    there is something cheaper to ask."""
    try:
        connector.check()
    except TransientError:
        if state.cursor is None:
            raise


def _another_day(status: EndpointStatus | None, now: datetime) -> bool:
    """Whether one more day of the episode has ended since its last failure was noted."""
    if status is None or status.failing_since is None or status.retry_at is None:
        return False
    noted = status.retry_at - backoff(status.failures)
    since = status.failing_since
    return (now - since) // LAST_RESORT > (noted - since) // LAST_RESORT


def pending_work(
    identity: Identity, connector: Connector, state: SyncState, now: datetime
) -> str | None:
    """Why a run is needed whatever the provider says, or None. No network."""
    if state.cursor is None:
        return "first sync" if state.sweep is None else "the first listing goes on"
    if scope_changed(connector, state):
        return "the endpoint's scope changed: everything is listed anew"
    if principal_changed(connector, state):
        return "another account is connected: everything is listed anew"
    if tenant_changed(identity, state):
        return "project or user changed: rows are stamped anew"
    if state.sweep is not None:
        return "the sweep goes on"
    if sweep_due(identity.endpoint_id, state, now):
        return "the daily sweep is due"
    return None


def _look_again(state: SyncState, failures: int, now: datetime) -> bool:
    """Whether a run is due for nothing but what the last ones could not see. Runs that have other
    reasons look as well, and so does the daily sweep: a folder forbidden for ever costs no more."""
    if not state.blind:
        return False
    if state.synced_at is None or 0 < failures < BLIND_TRIES:
        return True
    doublings = min(max(failures - BLIND_TRIES, 0), 5)
    return abs(now - state.synced_at) >= timedelta(hours=1 << doublings)


def baseline_missing(connector: Connector, state: SyncState) -> bool:
    """Whether there is no complete listing of this scope by this account."""
    return state.cursor is None or relists(connector, state)


def scope_changed(connector: Connector, state: SyncState) -> bool:
    return state.scope is not None and state.scope != connector.scope


def principal_changed(connector: Connector, state: SyncState) -> bool:
    return state.principal is not None and state.principal != connector.principal


def relists(connector: Connector, state: SyncState) -> bool:
    """Whether other files are meant than those held: another scope, or another account's view."""
    return scope_changed(connector, state) or principal_changed(connector, state)


def tenant_changed(identity: Identity, state: SyncState) -> bool:
    if state.project_id is None or state.user_id is None:
        return False
    return (state.project_id, state.user_id) != (identity.project_id, identity.user_id)


def next_sweep_at(endpoint_id: str, state: SyncState) -> datetime | None:
    """When the next complete listing is due (UTC): the endpoint's own minute of the day, so that
    sweeps of many endpoints spread; never more than 24 h after the last one. None before the
    first."""
    if state.swept_at is None:
        return None
    if state.held_back:
        return state.swept_at + HELD_BACK_RETRY
    digest = hashlib.sha256(endpoint_id.encode()).digest()
    minute = int.from_bytes(digest[:4], "big") % (24 * 60)
    slot = datetime.combine(
        state.swept_at.astimezone(timezone.utc).date(), time(tzinfo=timezone.utc)
    ) + timedelta(minutes=minute)
    return slot if slot > state.swept_at else slot + timedelta(days=1)


def independent(state: SyncState, mode: Mode, now: datetime) -> bool:
    """Whether a complete pass that ends at ``now`` says more than the one before it. Passes that
    follow each other within minutes, because the provider rejects every cursor, may all tell of one
    outage; a person who asks for another has looked."""
    before = state.swept_at
    asked_for = mode is Mode.SWEEP
    return before is None or asked_for or abs(now - before) >= HELD_BACK_RETRY


def sweep_due(endpoint_id: str, state: SyncState, now: datetime) -> bool:
    due = next_sweep_at(endpoint_id, state)
    return due is not None and (state.confirmed or not _ahead(due, now, LONGEST_SWEEP_GAP))


def _ahead(moment: datetime, now: datetime, at_most: timedelta) -> bool:
    """Whether ``moment`` is still to come. One further off than it can be was noted by a clock that
    was wrong, and nothing may wait for it."""
    return now < moment <= now + at_most


def backoff(failures: int) -> timedelta:
    """How long to wait after so many failures in a row: 5, 10, 20, 40, 60, 60 ... minutes."""
    doublings = min(max(failures - 1, 0), 10)
    return min(FIRST_RETRY * (1 << doublings), LONGEST_RETRY)


def _failing(status: EndpointStatus, retry_at: datetime, now: datetime) -> str:
    since = f" since {_clock(status.failing_since, now)}" if status.failing_since else ""
    return (
        f"failing{since} ({status.failures} in a row), next attempt {_clock(retry_at, now)}: "
        f"{status.message}"
    )


def _no_change(since: datetime | None, sweep: datetime | None, now: datetime) -> str:
    parts = "no change"
    if since is not None:
        minutes = max(int((now - since).total_seconds() // 60), 0)
        parts += f" since {_clock(since, now)} UTC, {minutes} min ago"
    if sweep is not None:
        parts += f"; next sweep {_clock(sweep, now)} UTC"
    return parts


def _clock(moment: datetime, now: datetime) -> str:
    moment = moment.astimezone(timezone.utc)
    same_day = moment.date() == now.astimezone(timezone.utc).date()
    return moment.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M")
