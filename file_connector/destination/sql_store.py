"""The Store over SQLAlchemy: everything SQLite and Postgres have in common.

Nothing here depends on session state, so transaction poolers are fine: every transaction sets what
it needs for itself, locks are rows, and nothing is prepared.
"""

from __future__ import annotations

import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Select,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import Row as SqlRow

from file_connector.connectors.base import Known, RateLimiter, TokenVault
from file_connector.destination import applying, owed
from file_connector.destination.base import EndpointStatus, RunRow, Turn
from file_connector.destination.failures import RefusedError
from file_connector.destination.known import (
    PAGE,
    SqlKnown,
    known_among,
    known_file,
    known_files,
    pages,
    unmet_by,
)
from file_connector.destination.rows import Row, clean_id, clean_state, clean_text
from file_connector.destination.tables import (
    endpoints,
    files,
    sync_folders,
    sync_leases,
    sync_met,
    sync_runs,
    sync_state,
)
from file_connector.destination.transactions import Transactions
from file_connector.errors import BusyError, ConflictError
from file_connector.models import (
    Commit,
    CommitResult,
    Identity,
    Json,
    KnownFile,
    Mode,
    Outcome,
    RunCounts,
    SyncState,
)
from file_connector.times import iso

LEASE_SECONDS = 90.0

_STATE_FIELDS = tuple(f.name for f in fields(SyncState))
_COUNTS = tuple(f.name for f in fields(RunCounts))
_COUNTED = ("inserted", "updated", "unchanged", "tombstoned")
"""What a commit adds to the counts of its run."""

# Statements of every commit are built once: that takes longer than the database needs for them.

_LOCKED_STATE = (
    select(sync_state).where(sync_state.c.endpoint_id == bindparam("endpoint")).with_for_update()
)
_PUT_STATE = update(sync_state).where(sync_state.c.endpoint_id == bindparam("endpoint"))
_HOLDER = select(sync_leases.c.run_id).where(sync_leases.c.endpoint_id == bindparam("endpoint"))
_MET = insert(sync_met)
_COUNT = (
    update(sync_runs)
    .where(sync_runs.c.run_id == bindparam("run"), sync_runs.c.ended_at.is_(None))
    .values({name: sync_runs.c[name] + bindparam(f"did_{name}") for name in _COUNTED})
)


class SqlStore(owed.InPieces, Transactions):
    """See ``destination.base.Store`` for what each method promises.

    Args:
        engine: made by the subclass; opens nothing before first use.
        encryption_key: Fernet key used by ``vault`` when it is not given another.
        lease_seconds: how long a run that stopped renewing keeps its endpoint.
        piece: how many rows follow a folder or a tenant in one transaction.
        clock: now, in UTC; None takes the database's clock (Postgres) or this machine's (SQLite).
        sleep: waits, in seconds; only ever called outside transactions.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        encryption_key: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
        piece: int = owed.PIECE,
        clock: Callable[[], datetime] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(engine, sleep)
        self._encryption_key = encryption_key
        self._lease = timedelta(seconds=lease_seconds)
        self._piece = piece
        self._clock = clock

    # -- what differs between databases ----------------------------------------------------------

    @abstractmethod
    def migrate(self, *, dry_run: bool = False) -> Sequence[str]:
        """Bring the tables to this version; names of what was applied (empty: nothing to do).

        Args:
            dry_run: change nothing; names of what would be applied.
        """

    @abstractmethod
    def _now(self, conn: Connection) -> datetime:
        """The time all processes of the deployment agree on."""

    @abstractmethod
    def _merge(
        self, conn: Connection, table: Table, rows: Sequence[Row], keep: Collection[str] = ()
    ) -> None:
        """Insert ``rows``; where one with the same primary key is there, replace all its columns
        but those in ``keep``."""

    @abstractmethod
    def _ensure_row(self, conn: Connection, table: Table, row: Row) -> None:
        """Insert ``row`` unless one with its primary key is there."""

    @abstractmethod
    def _insert_files(self, conn: Connection, rows: Iterable[Row]) -> None:
        """Insert new rows of ``files``."""

    # -- the state's row --------------------------------------------------------------------------

    def _lock_state(self, conn: Connection, endpoint_id: str) -> SqlRow[Any]:
        """The endpoint's row of ``sync_state``, locked until the transaction ends."""
        asked = {"endpoint": endpoint_id}
        row = conn.execute(_LOCKED_STATE, asked).one_or_none()
        if row is None:
            # Begun anew, perhaps because somebody deleted the row: nothing has been met.
            self._ensure_row(conn, sync_state, _fresh_state(endpoint_id))
            row = conn.execute(_LOCKED_STATE, asked).one()
            if not row.version:
                conn.execute(delete(sync_met).where(sync_met.c.endpoint_id == endpoint_id))
        return row

    def _put_state(
        self, conn: Connection, state: SyncState, commit_id: str, now: datetime
    ) -> SyncState:
        """Replace the state; what was stored (its version raised by one)."""
        stored = clean_state(replace(state, version=state.version + 1))
        row = {name: getattr(stored, name) for name in _STATE_FIELDS}
        row["blind"] = [dict(b) for b in stored.blind]
        row |= {"commit_id": commit_id, "stored_at": now, "endpoint": state.endpoint_id}
        conn.execute(_PUT_STATE, row)
        return stored

    def _landed(self, endpoint_id: str, commit_id: str) -> Callable[[Connection], bool]:
        def ask(conn: Connection) -> bool:
            return commit_id == conn.scalar(
                select(sync_state.c.commit_id)
                .where(sync_state.c.endpoint_id == endpoint_id)
                .with_for_update()
            )

        return ask

    def check(self) -> None:
        self.forget_seen("")  # writes nothing, and is refused where nothing may be written

    # -- state and rows --------------------------------------------------------------------------

    def state(self, endpoint_id: str) -> SyncState:
        row = self._read(
            lambda conn: conn.execute(
                select(sync_state).where(sync_state.c.endpoint_id == endpoint_id)
            ).one_or_none()
        )
        return SyncState(endpoint_id) if row is None else _state(row)

    def known(self, endpoint_id: str) -> Known:
        return SqlKnown(self, endpoint_id)

    def _apply(self, commit: Commit) -> tuple[CommitResult, Commit | None]:
        endpoint_id, commit_id = commit.identity.endpoint_id, uuid.uuid4().hex

        def work(conn: Connection, *, sift: bool = False) -> tuple[CommitResult, Commit | None]:
            held = self._claim(conn, endpoint_id, commit.run_id, commit.state.version)
            if held.owed:
                return CommitResult(commit.state), owed.rest(commit, -1)
            now = self._now(conn)
            change = applying.Applying(
                conn,
                commit,
                now,
                insert=self._insert_files,
                overwrite=self._overwrite_files,
                save_folders=self._save_folders,
                piece=self._piece,
                sift=sift,
            )
            stopped = change.apply()
            result = CommitResult(
                state=commit.state,
                inserted=change.inserted,
                updated=len(change.updated),
                unchanged=change.unchanged,
                tombstoned=change.tombstoned,
                changed_ids=frozenset(change.changed),
                refused=change.refused,
            )
            self._count(conn, commit.run_id, result)
            if stopped is not None:
                self._owe(conn, endpoint_id, change.owed, commit_id)
                return result, owed.rest(commit, stopped)
            if commit.mark_seen:
                met = {
                    "endpoint_id": endpoint_id,
                    "pass_no": commit.state.pass_no,
                    "part": commit.state.version,
                    "ids": sorted({*change.told, *map(clean_id, commit.seen)}),
                }
                conn.execute(_MET, met)
            return replace(result, state=self._put_state(conn, commit.state, commit_id, now)), None

        landed = self._landed(endpoint_id, commit_id)
        try:
            return self._write(work, landed)
        except RefusedError:
            return self._write(partial(work, sift=True), landed)

    def _settle_piece(self, endpoint_id: str, run_id: str) -> tuple[CommitResult, bool]:
        commit_id = uuid.uuid4().hex

        def work(conn: Connection) -> tuple[CommitResult, bool]:
            held = self._claim(conn, endpoint_id, run_id)
            state = _state(held)
            if not held.owed:
                return CommitResult(state), False
            result, left = owed.settle(conn, state, held.owed, self._now(conn), self._piece)
            self._owe(conn, endpoint_id, left, commit_id)
            self._count(conn, run_id, result)
            return result, bool(left)

        return self._write(work, self._landed(endpoint_id, commit_id))

    def _owe(
        self, conn: Connection, endpoint_id: str, parts: Sequence[Json], commit_id: str
    ) -> None:
        row = {"owed": parts or None, "commit_id": commit_id, "endpoint": endpoint_id}
        conn.execute(_PUT_STATE, row)

    def _claim(
        self, conn: Connection, endpoint_id: str, run_id: str, version: int | None = None
    ) -> SqlRow[Any]:
        """Lock the endpoint's row for this transaction; ConflictError unless the run holds the
        lease and the stored state has the version it was derived from."""
        held = self._lock_state(conn, endpoint_id)
        holder = conn.scalar(_HOLDER, {"endpoint": endpoint_id})
        if holder != run_id:
            taken = f"run {holder} took it over" if holder else "nobody holds it"
            raise ConflictError(
                f"run {run_id} no longer holds the endpoint ({taken}); nothing was written"
            )
        if version is not None and held.version != version:
            raise ConflictError(
                f"the stored state is at version {held.version}, this run started from {version}; "
                "nothing was written"
            )
        return held

    def _count(self, conn: Connection, run_id: str, result: CommitResult) -> None:
        did = {f"did_{name}": getattr(result, name) for name in _COUNTED}
        if any(did.values()):
            conn.execute(_COUNT, {"run": run_id, **did})

    def _overwrite_files(self, conn: Connection, rows: Iterable[Row]) -> None:
        self._merge(conn, files, list(rows), keep=("first_seen_at",))

    def _save_folders(self, conn: Connection, rows: Sequence[Row]) -> None:
        self._merge(conn, sync_folders, rows)

    def advance(self, state: SyncState) -> SyncState | None:
        commit_id = uuid.uuid4().hex

        def work(conn: Connection) -> SyncState | None:
            stored = self._lock_state(conn, state.endpoint_id)
            now = self._now(conn)
            lease = self._lease_of(conn, state.endpoint_id)
            if lease is not None and living(lease.expires_at, now, self._lease):
                return None
            if stored.version != state.version:
                return None
            return self._put_state(conn, state, commit_id, now)

        return self._write(work, self._landed(state.endpoint_id, commit_id))

    def _change_tenant(self, identity: Identity, run_id: str) -> bool:
        endpoint_id, commit_id = identity.endpoint_id, uuid.uuid4().hex

        def work(conn: Connection) -> bool:
            held = self._claim(conn, endpoint_id, run_id)
            if held.owed:
                return False
            former = _state(held)
            stamped = replace(former, project_id=identity.project_id, user_id=identity.user_id)
            self._put_state(conn, stamped, commit_id, self._now(conn))
            self._owe(conn, endpoint_id, [owed.tenant(former)], commit_id)
            return True

        return self._write(work, self._landed(endpoint_id, commit_id))

    def unseen(
        self, endpoint_id: str, pass_no: int, after: str = "", limit: int = PAGE
    ) -> Sequence[KnownFile]:
        def ask(conn: Connection) -> Sequence[KnownFile]:
            unmet = unmet_by(conn, endpoint_id, pass_no, after)
            ids = conn.scalars(unmet.order_by("external_id").limit(limit)).all()
            return known_among(conn, endpoint_id, ids)

        return self._read(ask)

    def unseen_count(self, endpoint_id: str, pass_no: int) -> int:
        return self._read(
            lambda conn: conn.execute(
                select(func.count()).select_from(unmet_by(conn, endpoint_id, pass_no).subquery())
            ).scalar_one()
        )

    def forget_seen(self, endpoint_id: str) -> None:
        self._write(
            lambda conn: conn.execute(
                delete(sync_met).where(sync_met.c.endpoint_id == endpoint_id)
            ),
        )

    def live_between(self, endpoint_id: str, start: datetime, end: datetime) -> Iterator[KnownFile]:
        def page(after: str, conn: Connection) -> Sequence[SqlRow[Any]]:
            return conn.execute(
                known_files(endpoint_id)
                .where(
                    files.c.gone_at.is_(None),
                    files.c.updated_at >= start,
                    files.c.updated_at < end,
                    files.c.external_id > after,
                )
                .order_by(files.c.external_id)
                .limit(PAGE)
            ).all()

        return map(known_file, pages(self, page, "external_id"))

    def newest(self, endpoint_id: str, limit: int = 10) -> Sequence[Mapping[str, Json]]:
        rows = self._read(
            lambda conn: conn.execute(
                select(files)
                .where(files.c.endpoint_id == endpoint_id, files.c.gone_at.is_(None))
                .order_by(files.c.change_seq.desc())
                .limit(limit)
            ).all()
        )
        return [_plain(row) for row in rows]

    def row(self, endpoint_id: str, external_id: str) -> Mapping[str, Json] | None:
        row = self._read(
            lambda conn: conn.execute(
                select(files).where(
                    files.c.endpoint_id == endpoint_id, files.c.external_id == external_id
                )
            ).one_or_none()
        )
        return None if row is None else _plain(row)

    def reset(self, endpoint_id: str) -> None:
        commit_id = uuid.uuid4().hex

        def work(conn: Connection) -> None:
            state = _state(self._lock_state(conn, endpoint_id))
            fresh = SyncState(
                endpoint_id,
                version=state.version,
                pass_no=state.pass_no,
                project_id=state.project_id,
                user_id=state.user_id,
            )
            self._put_state(conn, fresh, commit_id, self._now(conn))
            for table in (sync_folders, sync_met):
                conn.execute(delete(table).where(table.c.endpoint_id == endpoint_id))

        self._write(work, self._landed(endpoint_id, commit_id))

    # -- runs and leases -------------------------------------------------------------------------

    def begin_run(self, identity: Identity, mode: Mode, run_id: str, dead: str = "") -> None:
        """As in ``Store``; ``dead`` is a run known to have died, whose lease counts no more."""
        endpoint_id = identity.endpoint_id

        def work(conn: Connection) -> None:
            self._lock_state(conn, endpoint_id)
            now = self._now(conn)
            lease = self._lease_of(conn, endpoint_id)
            if lease is None:
                silent = "it ended without closing its row"
            elif lease.run_id == dead:
                silent = "its process died"
            elif living(lease.expires_at, now, self._lease):
                raise busy(lease.run_id, lease.acquired_at, lease.expires_at)
            else:
                at = iso(lease.expires_at)
                silent = f"its process stopped answering, the lease ran out at {at}"
            conn.execute(
                update(sync_runs)
                .where(sync_runs.c.endpoint_id == endpoint_id, sync_runs.c.ended_at.is_(None))
                .values(ended_at=now, outcome=Outcome.FAILED.value, reason=f"lost: {silent}")
            )
            conn.execute(
                insert(sync_runs).values(
                    run_id=run_id,
                    endpoint_id=endpoint_id,
                    started_at=now,
                    mode=mode.value,
                    reason="",
                    **dict.fromkeys(_COUNTS, 0),
                )
            )
            self._merge(
                conn,
                sync_leases,
                [
                    {
                        "endpoint_id": endpoint_id,
                        "run_id": run_id,
                        "acquired_at": now,
                        "expires_at": now + self._lease,
                    }
                ],
            )

        def landed(conn: Connection) -> bool:
            self._lock_state(conn, endpoint_id)
            lease = self._lease_of(conn, endpoint_id)
            return lease is not None and lease.run_id == run_id

        self._write(work, landed)

    def _lease_of(self, conn: Connection, endpoint_id: str) -> SqlRow[Any] | None:
        return conn.execute(
            select(sync_leases).where(sync_leases.c.endpoint_id == endpoint_id)
        ).one_or_none()

    def turn(self, endpoint_id: str) -> Turn:
        def ask(conn: Connection) -> Turn:
            ends = conn.scalars(
                select(sync_runs.c.ended_at)
                .where(sync_runs.c.endpoint_id == endpoint_id, sync_runs.c.ended_at.is_not(None))
                .order_by(sync_runs.c.started_at.desc())
                .limit(5)
            ).all()
            lease = self._lease_of(conn, endpoint_id)
            now = self._now(conn)
            if lease is None:
                return Turn(free_for=_since_latest(ends, now))
            if living(lease.expires_at, now, self._lease):
                return Turn(lease.run_id, lease.acquired_at, timedelta())
            free_for = _since_latest([*ends, lease.expires_at], now)
            return Turn(lease.run_id, lease.acquired_at, free_for)

        return self._read(ask)

    def renew(self, endpoint_id: str, run_id: str) -> bool:
        def work(conn: Connection) -> bool:
            renewed = conn.execute(
                update(sync_leases)
                .where(sync_leases.c.endpoint_id == endpoint_id, sync_leases.c.run_id == run_id)
                .values(expires_at=self._now(conn) + self._lease)
            )
            return renewed.rowcount == 1

        return self._write(work, durable=False)

    def finish_run(
        self, run_id: str, outcome: Outcome, reason: str, api_calls: int, missed: int
    ) -> None:
        def work(conn: Connection) -> None:
            conn.execute(
                update(sync_runs)
                .where(sync_runs.c.run_id == run_id, sync_runs.c.ended_at.is_(None))
                .values(
                    ended_at=self._now(conn),
                    outcome=outcome.value,
                    reason=clean_text(reason),
                    api_calls=api_calls,
                    missed_by_fast_path=missed,
                )
            )
            conn.execute(delete(sync_leases).where(sync_leases.c.run_id == run_id))

        self._write(work)

    def runs(self, endpoint_id: str, limit: int = 20) -> Sequence[RunRow]:
        rows = self._read(
            lambda conn: conn.execute(
                select(sync_runs)
                .where(sync_runs.c.endpoint_id == endpoint_id)
                .order_by(sync_runs.c.started_at.desc(), sync_runs.c.run_id.desc())
                .limit(limit)
            ).all()
        )
        return [
            RunRow(
                run_id=row.run_id,
                endpoint_id=row.endpoint_id,
                started_at=row.started_at,
                ended_at=row.ended_at,
                mode=Mode(row.mode),
                outcome=None if row.outcome is None else Outcome(row.outcome),
                counts=RunCounts(**{name: getattr(row, name) for name in _COUNTS}),
                reason=row.reason,
            )
            for row in rows
        ]

    # -- endpoints -------------------------------------------------------------------------------

    def mirror(self, endpoints_now: Sequence[EndpointStatus]) -> None:
        listed = {e.endpoint_id: e for e in endpoints_now}
        in_order = select(endpoints).order_by(endpoints.c.endpoint_id)

        def news(conn: Connection, held: Select[Any] = in_order) -> list[Row]:
            stored = {row.endpoint_id: _status(row) for row in conn.execute(held)}
            wanted = [_mirrored(e, stored.get(e.endpoint_id)) for e in listed.values()]
            wanted += [
                replace(e, status="removed") for e in stored.values() if e.endpoint_id not in listed
            ]
            return [
                _status_row(e)
                for e in sorted(wanted, key=lambda e: e.endpoint_id)
                if stored.get(e.endpoint_id) != e
            ]

        if not self._read(news):
            return
        locked = in_order.with_for_update()  # how a run ends meanwhile is not overwritten
        self._write(lambda conn: self._merge(conn, endpoints, news(conn, locked)))

    def status(self, endpoint_id: str) -> EndpointStatus | None:
        row = self._read(
            lambda conn: conn.execute(
                select(endpoints).where(endpoints.c.endpoint_id == endpoint_id)
            ).one_or_none()
        )
        return None if row is None else _status(row)

    def _status_to_change(self, conn: Connection, identity: Identity) -> EndpointStatus:
        row = conn.execute(
            select(endpoints)
            .where(endpoints.c.endpoint_id == identity.endpoint_id)
            .with_for_update()
        ).one_or_none()
        return _unmirrored(identity) if row is None else _status(row)

    def note_success(self, identity: Identity, at: datetime) -> None:
        def work(conn: Connection) -> None:
            held = self._status_to_change(conn, identity)
            status = replace(
                held,
                status="ok" if held.in_order else held.status,
                last_success_at=at,
                failing_since=None,
                failures=0,
                retry_at=None,
                message="",
            )
            self._merge(conn, endpoints, [_status_row(status)])

        self._write(work)

    def note_failure(
        self, identity: Identity, at: datetime, message: str, retry_at: datetime | None
    ) -> EndpointStatus:
        def work(conn: Connection) -> EndpointStatus:
            held = self._status_to_change(conn, identity)
            status = replace(
                held,
                status="failing" if held.in_order else held.status,
                failing_since=held.failing_since or at,
                failures=held.failures + 1,
                retry_at=retry_at,
                message=clean_text(message),
            )
            self._merge(conn, endpoints, [_status_row(status)])
            return status

        return self._write(work)

    # -- lent to connectors ----------------------------------------------------------------------

    def limiter(self, patience_seconds: float = 120.0) -> RateLimiter:
        from file_connector.destination.lent import SqlRateLimiter

        return SqlRateLimiter(self, patience_seconds)

    def vault(self, key: str | None = None) -> TokenVault | None:
        from file_connector.destination.lent import SqlTokenVault

        key = key or self._encryption_key
        return None if key is None else SqlTokenVault(self, key)

    def close(self) -> None:
        self._engine.dispose()


def living(expires_at: datetime, now: datetime, taken_for: timedelta) -> bool:
    """Whether a lease or a lock still holds. One that ends later than any can was taken by a clock
    that was wrong, and is not renewed: a living holder's would be right again by now."""
    longest = max(taken_for, timedelta(seconds=LEASE_SECONDS))
    return now < expires_at <= now + longest + timedelta(minutes=1)


def _since_latest(moments: Iterable[datetime], now: datetime) -> timedelta | None:
    """How long ago the latest was. One still to come was noted by a clock that was wrong."""
    return min((now - moment for moment in moments if moment <= now), default=None)


def busy(run_id: str, acquired_at: datetime | None, expires_at: datetime | None) -> BusyError:
    """A living run holds the endpoint."""
    error = BusyError(
        f"run {run_id} is writing this endpoint since {iso(acquired_at)}",
        remedy=f"It is left to finish; if it died, the endpoint is free at {iso(expires_at)}.",
    )
    error.free_at = expires_at
    return error


def _fresh_state(endpoint_id: str) -> Row:
    """The columns of a state row that may not be null."""
    return {
        "endpoint_id": endpoint_id,
        "version": 0,
        "pass_no": 0,
        "rescoped": False,
        "held_back": 0,
        "confirmed": False,
        "blind": [],
    }


def _state(row: SqlRow[Any]) -> SyncState:
    values = {name: getattr(row, name) for name in _STATE_FIELDS}
    values["blind"] = tuple(values["blind"])
    return SyncState(**values)


def _plain(row: SqlRow[Any]) -> dict[str, Json]:
    return {
        name: iso(value) if isinstance(value, datetime) else value
        for name, value in row._mapping.items()
    }


def _status(row: SqlRow[Any]) -> EndpointStatus:
    return EndpointStatus(**row._mapping)


def _status_row(status: EndpointStatus) -> Row:
    return {f.name: getattr(status, f.name) for f in fields(EndpointStatus)}


def _unmirrored(identity: Identity) -> EndpointStatus:
    """An endpoint that runs before the YAML was mirrored."""
    return EndpointStatus(
        identity.endpoint_id,
        identity.called,
        identity.source,
        identity.project_id,
        identity.user_id,
    )


def _mirrored(listed: EndpointStatus, held: EndpointStatus | None) -> EndpointStatus:
    """The YAML's columns over how the endpoint was doing."""
    if held is None:
        return listed
    told: dict[str, Any] = {
        "name": listed.name,
        "endpoint_type": listed.endpoint_type,
        "project_id": listed.project_id,
        "user_id": listed.user_id,
    }
    if listed.status in ("quarantined", "disabled"):
        return replace(held, **told, status=listed.status, message=listed.message)
    return replace(held.taken_up(), **told)
