"""The store over Supabase's REST API: the same promises without a database password.

What happens to the tables is written in ``supabase/migrations``; a commit is one call.
Rows are cleaned here, by the same code as everywhere.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime, timedelta
from operator import itemgetter

from file_connector.connectors.base import Known, RateLimiter, TokenVault
from file_connector.destination import migrations, owed
from file_connector.destination.base import EndpointStatus, RunRow, Turn
from file_connector.destination.known import PAGE
from file_connector.destination.lent import Limiter, Vault
from file_connector.destination.rest_calls import MIGRATE, READ_SECONDS, Calls
from file_connector.destination.rows import Row, clean_id, clean_state, clean_text, row_of
from file_connector.destination.sql_store import LEASE_SECONDS, busy
from file_connector.destination.tables import Moment, endpoints, files, sync_runs, sync_state
from file_connector.destination.tree import clean_folder
from file_connector.errors import ConfigurationError
from file_connector.models import (
    Commit,
    CommitResult,
    Folder,
    Gone,
    GoneReason,
    Identity,
    Json,
    KnownFile,
    Mode,
    Outcome,
    RunCounts,
    SyncState,
)
from file_connector.times import iso, parse_time

_COUNTS = tuple(f.name for f in fields(RunCounts))
_MOMENTS = {
    table.name: [column.name for column in table.columns if isinstance(column.type, Moment)]
    for table in (endpoints, files, sync_runs, sync_state)
}


class RestStore(owed.InPieces):
    """See ``destination.base.Store`` for what each method promises.

    Args:
        url: root of the REST API, ``https://<project>.supabase.co/rest/v1``.
        key: a secret key or a service_role key.
        encryption_key: Fernet key used by ``vault`` when it is not given another.
        lease_seconds: how long a run that stopped renewing keeps its endpoint.
        piece: how many rows follow a folder or a tenant in one call.
        clock: now, in UTC; None takes the database's clock.
        sleep: waits, in seconds.
        read_seconds: how long to wait for an answer.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        encryption_key: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
        piece: int = owed.PIECE,
        clock: Callable[[], datetime] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self._calls = Calls(url, key, sleep=sleep, read_seconds=read_seconds)
        self._encryption_key = encryption_key
        self._lease = _seconds(timedelta(seconds=lease_seconds))
        self._piece = piece
        self._clock = clock
        self._sleep = sleep

    def migrate(self, *, dry_run: bool = False) -> Sequence[str]:
        """Names of what is missing, with ``dry_run``. Tables cannot be changed over REST: without
        it, raises ConfigurationError if something is."""
        applied = set(self._call("applied"))
        missing = [m.name for m in migrations.shipped() if m.name not in applied]
        if missing and not dry_run:
            raise ConfigurationError(
                f"the database lacks {', '.join(missing)}, and REST cannot change tables",
                remedy=MIGRATE,
            )
        return missing

    def check(self) -> None:
        if self.migrate(dry_run=True):
            self.migrate()  # says what is missing
        self.forget_seen("")  # writes nothing, and is refused where nothing may be written

    # -- state and rows --------------------------------------------------------------------------

    def state(self, endpoint_id: str) -> SyncState:
        row = self._call("state", endpoint=endpoint_id)
        if row is None:
            return SyncState(endpoint_id)
        return SyncState(**{**_timed(row, sync_state.name), "blind": tuple(row["blind"])})

    def known(self, endpoint_id: str) -> Known:
        return RestKnown(self, endpoint_id)

    def _apply(self, commit: Commit) -> tuple[CommitResult, Commit | None]:
        state = clean_state(commit.state)
        rows = {
            row["external_id"]: (row, record.version_is_content)
            for record in commit.records
            for row in [row_of(commit.identity, record, "")]
        }
        payload = {
            **asdict(commit.identity),
            "run_id": commit.run_id,
            "commit_id": uuid.uuid4().hex,
            "state": _state_row(state),
            "records": [_record(*row) for row in rows.values()],
            "folders": [asdict(f) for f in _latest(map(clean_folder, commit.folders))],
            "folders_gone": [[clean_id(f.folder_id), f.reason.value] for f in commit.folders_gone],
            "gone": _leaving(commit.gone),
            "seen": sorted(set(map(clean_id, commit.seen))),
            "mark_seen": commit.mark_seen,
            "forget_folders": commit.forget_folders,
            "piece": self._piece,
            **self._now(),
        }
        answer = self._call("commit", payload=payload)
        if "stopped" in answer:
            return _result(state, answer), owed.rest(commit, answer["stopped"])
        return _result(replace(state, version=state.version + 1), answer), None

    def _settle_piece(self, endpoint_id: str, run_id: str) -> tuple[CommitResult, bool]:
        answer = self._call(
            "settle",
            endpoint=endpoint_id,
            run=run_id,
            commit=uuid.uuid4().hex,
            piece=self._piece,
            **self._now(),
        )
        return _result(SyncState(endpoint_id), answer), answer["owed"]

    def advance(self, state: SyncState) -> SyncState | None:
        state = clean_state(state)
        stored = self._put_state(state, idle=True, forget=False)
        return replace(state, version=state.version + 1) if stored else None

    def _change_tenant(self, identity: Identity, run_id: str) -> bool:
        changed: bool = self._call(
            "change_tenant",
            endpoint=identity.endpoint_id,
            project=identity.project_id,
            owner=identity.user_id,
            run=run_id,
            commit=uuid.uuid4().hex,
            **self._now(),
        )
        return changed

    def reset(self, endpoint_id: str) -> None:
        while True:  # until nobody changes the state in between
            state = self.state(endpoint_id)
            fresh = SyncState(
                endpoint_id,
                version=state.version,
                pass_no=state.pass_no,
                project_id=state.project_id,
                user_id=state.user_id,
            )
            if self._put_state(fresh, idle=False, forget=True):
                return

    def _put_state(self, state: SyncState, *, idle: bool, forget: bool) -> bool:
        stored: bool = self._call(
            "put_state",
            state=_state_row(state),
            commit=uuid.uuid4().hex,
            idle=idle,
            forget=forget,
            lease=self._lease,
            **self._now(),
        )
        return stored

    def unseen(
        self, endpoint_id: str, pass_no: int, after: str = "", limit: int = PAGE
    ) -> Sequence[KnownFile]:
        return self._files(endpoint_id, unseen=pass_no, after=after, page=limit)

    def unseen_count(self, endpoint_id: str, pass_no: int) -> int:
        count: int = self._call("count", endpoint=endpoint_id, unseen=pass_no)
        return count

    def forget_seen(self, endpoint_id: str) -> None:
        self._call("forget_seen", endpoint=endpoint_id)

    def live_between(self, endpoint_id: str, start: datetime, end: datetime) -> Iterator[KnownFile]:
        after = ""
        while True:
            found = self._files(
                endpoint_id, since=start.isoformat(), until=end.isoformat(), after=after, page=PAGE
            )
            yield from found
            if len(found) < PAGE:
                return
            after = found[-1].external_id

    def newest(self, endpoint_id: str, limit: int = 10) -> Sequence[Mapping[str, Json]]:
        return self._rows(endpoint=endpoint_id, page=limit)

    def row(self, endpoint_id: str, external_id: str) -> Mapping[str, Json] | None:
        return next(iter(self._rows(endpoint=endpoint_id, id=external_id)), None)

    def _rows(self, **which: Json) -> list[dict[str, Json]]:
        return [
            {
                name: iso(value) if isinstance(value, datetime) else value
                for name, value in r.items()
            }
            for r in (_timed(row, files.name) for row in self._call("rows", **which))
        ]

    def _files(self, endpoint_id: str, **which: Json) -> list[KnownFile]:
        return [
            KnownFile(
                row["external_id"],
                row["title"],
                row["parent_id"],
                row["version"],
                parse_time(row["updated_at"]),
                None if row["gone_reason"] is None else GoneReason(row["gone_reason"]),
            )
            for row in self._call("files", endpoint=endpoint_id, **which)
        ]

    # -- runs and leases -------------------------------------------------------------------------

    def begin_run(self, identity: Identity, mode: Mode, run_id: str) -> None:
        holder = self._call(
            "begin_run",
            tell=True,
            endpoint=identity.endpoint_id,
            run=run_id,
            run_mode=mode.value,
            lease=self._lease,
            **self._now(),
        )
        if holder is not None:
            acquired_at, expires_at = (parse_time(holder[n]) for n in ("acquired_at", "expires_at"))
            raise busy(holder["run_id"], acquired_at, expires_at)

    def turn(self, endpoint_id: str) -> Turn:
        told = self._call("turn", endpoint=endpoint_id, lease=self._lease, **self._now())
        free_for = told["free_for"]
        return Turn(
            told["holder"],
            parse_time(told["since"]),
            None if free_for is None else timedelta(seconds=free_for),
        )

    def renew(self, endpoint_id: str, run_id: str) -> bool:
        held: bool = self._call(
            "renew", endpoint=endpoint_id, run=run_id, lease=self._lease, **self._now()
        )
        return held

    def finish_run(
        self, run_id: str, outcome: Outcome, reason: str, api_calls: int, missed: int
    ) -> None:
        self._call(
            "finish_run",
            run=run_id,
            ending=outcome.value,
            why=clean_text(reason),
            calls=api_calls,
            missed=missed,
            **self._now(),
        )

    def runs(self, endpoint_id: str, limit: int = 20) -> Sequence[RunRow]:
        found = self._call("runs", endpoint=endpoint_id, page=limit)
        return [
            RunRow(
                run_id=row["run_id"],
                endpoint_id=row["endpoint_id"],
                started_at=row["started_at"],
                ended_at=row["ended_at"],
                mode=Mode(row["mode"]),
                outcome=None if row["outcome"] is None else Outcome(row["outcome"]),
                counts=RunCounts(**{name: row[name] for name in _COUNTS}),
                reason=row["reason"],
            )
            for row in (_timed(row, sync_runs.name) for row in found)
        ]

    # -- endpoints -------------------------------------------------------------------------------

    def mirror(self, endpoints_now: Sequence[EndpointStatus]) -> None:
        listed = {e.endpoint_id: e for e in endpoints_now}
        self._call("mirror", listed=[_sent(asdict(e)) for e in listed.values()])

    def status(self, endpoint_id: str) -> EndpointStatus | None:
        row = self._call("status", endpoint=endpoint_id)
        return None if row is None else EndpointStatus(**_timed(row, endpoints.name))

    def note_success(self, identity: Identity, at: datetime) -> None:
        self._note(identity, at)

    def note_failure(
        self, identity: Identity, at: datetime, message: str, retry_at: datetime | None
    ) -> EndpointStatus:
        return self._note(
            identity,
            at,
            said=clean_text(message),
            retry=None if retry_at is None else retry_at.isoformat(),
        )

    def _note(self, identity: Identity, at: datetime, **failure: Json) -> EndpointStatus:
        row = self._call(
            "note",
            tell=True,
            endpoint=identity.endpoint_id,
            source=identity.source,
            project=identity.project_id,
            owner=identity.user_id,
            called=identity.called,
            at=at.isoformat(),
            **failure,
        )
        return EndpointStatus(**_timed(row, endpoints.name))

    # -- lent to connectors ----------------------------------------------------------------------

    def limiter(self, patience_seconds: float = 120.0) -> RateLimiter:
        return RestLimiter(self, patience_seconds)

    def vault(self, key: str | None = None) -> TokenVault | None:
        key = key or self._encryption_key
        return None if key is None else RestVault(self, key)

    def close(self) -> None:
        self._calls.close()

    def _call(self, function: str, *, tell: bool = False, **arguments: Json) -> Json:
        return self._calls.call(function, arguments, tell=tell)

    def _now(self) -> dict[str, Json]:
        return {} if self._clock is None else {"moment": self._clock().isoformat()}


class RestKnown:
    """What is held of one endpoint; each answer is a read of its own."""

    def __init__(self, store: RestStore, endpoint_id: str) -> None:
        self._store = store
        self._endpoint_id = endpoint_id

    def folder(self, folder_id: str) -> Folder | None:
        return next(iter(self._folders(ids=[folder_id])), None)

    def folders(self) -> Iterator[Folder]:
        after = ""
        while True:
            found = self._folders(after=after, page=PAGE)
            yield from found
            if len(found) < PAGE:
                return
            after = found[-1].folder_id

    def subfolders(self, parent_id: str) -> Sequence[Folder]:
        return self._folders(parent=parent_id)

    def files(self, external_ids: Collection[str]) -> Mapping[str, KnownFile]:
        found = self._store._files(self._endpoint_id, ids=sorted(set(map(clean_id, external_ids))))
        return {file.external_id: file for file in found}

    def files_in(self, folder_id: str) -> Sequence[KnownFile]:
        return self._store._files(self._endpoint_id, parent=folder_id)

    def live_count(self) -> int:
        count: int = self._store._call("count", endpoint=self._endpoint_id)
        return count

    def _folders(self, **which: Json) -> list[Folder]:
        found = self._store._call("folders", endpoint=self._endpoint_id, **which)
        return [Folder(**row) for row in found]


class RestLimiter(Limiter):
    def __init__(self, store: RestStore, patience_seconds: float) -> None:
        super().__init__(store._sleep, patience_seconds)
        self._store = store

    def _reserve(
        self, key: str, spacing: timedelta, slack: timedelta, longest: timedelta
    ) -> timedelta:
        seconds = self._store._call(
            "reserve_slot",
            bucket=key,
            spacing=_seconds(spacing),
            slack=_seconds(slack),
            longest=_seconds(longest),
            **self._store._now(),
        )
        return timedelta(seconds=seconds)


class RestVault(Vault):
    def __init__(self, store: RestStore, key: str) -> None:
        super().__init__(key, store._sleep)
        self._store = store

    def _take(self, key: str, holder: str, seconds: float) -> datetime | None:
        return parse_time(
            self._store._call(
                "take_token",
                token=key,
                taker=holder,
                hold=_seconds(timedelta(seconds=seconds)),
                **self._store._now(),
            )
        )

    def _free(self, key: str, holder: str, since: datetime) -> None:
        self._store._call("free_token", token=key, taker=holder, since=since.isoformat())

    def _fetch(self, key: str) -> str | None:
        secret: str | None = self._store._call("load_token", token=key)
        return secret

    def _store_secret(self, key: str, secret: str, held: tuple[str, datetime] | None) -> bool:
        taken: dict[str, Json] = (
            {} if held is None else {"taker": held[0], "since": held[1].isoformat()}
        )
        saved: bool = self._store._call(
            "save_token", token=key, sealed=secret, **taken, **self._store._now()
        )
        return saved


def _sent(row: Row) -> Row:
    """``row`` with its times as text."""
    return {n: v.isoformat() if isinstance(v, datetime) else v for n, v in row.items()}


_TOLD = (
    *("external_id", "title", "link", "created_at", "updated_at", "mime_type"),
    *("size_bytes", "version", "parent_id", "raw"),
)
_told_of = itemgetter(*_TOLD)


def _record(row: Row, version_is_content: bool) -> Row:
    """What differs from record to record; the rest is told once."""
    told: Row = dict(zip(_TOLD, _told_of(row), strict=True))
    for name in ("created_at", "updated_at"):
        if told[name] is not None:
            told[name] = told[name].isoformat()
    told["version_is_content"] = version_is_content
    return told


def _timed(row: Row, table: str) -> Row:
    """A row of ``table`` as it came, with its times as such."""
    return {**row, **{name: parse_time(row[name]) for name in _MOMENTS[table] if name in row}}


def _state_row(state: SyncState) -> Row:
    row = _sent({f.name: getattr(state, f.name) for f in fields(SyncState)})
    return {**row, "blind": [dict(b) for b in state.blind]}


def _result(state: SyncState, answer: Mapping[str, Json]) -> CommitResult:
    did = {f.name: answer[f.name] for f in fields(CommitResult) if f.name in answer}
    return CommitResult(state, **{**did, "changed_ids": frozenset(answer["changed_ids"])})


def _latest(folders: Iterable[Folder]) -> Iterable[Folder]:
    """Each folder once, as it was told last."""
    return {f.folder_id: f for f in folders}.values()


def _leaving(gone: Iterable[Gone]) -> list[list[str]]:
    """Each id once, with the reason it is given first; all of one reason together, by id."""
    by_reason: dict[GoneReason, set[str]] = {}
    for one in gone:
        by_reason.setdefault(one.reason, set()).add(clean_id(one.external_id))
    told: dict[str, str] = {}
    for reason, ids in by_reason.items():
        for external_id in sorted(ids):
            told.setdefault(external_id, reason.value)
    return [[external_id, reason] for external_id, reason in told.items()]


def _seconds(span: timedelta) -> str:
    """``span`` as Postgres reads an interval."""
    return f"{span // timedelta(microseconds=1)} microseconds"
