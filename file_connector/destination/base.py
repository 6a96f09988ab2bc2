"""The contract every destination keeps; the engine and the rim know only this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from file_connector.connectors.base import Known, RateLimiter, TokenVault
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


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One row of the table ``endpoints``: the YAML's mirror plus how the endpoint is doing.

    ``status``: ok | failing | quarantined | disabled | removed | new.
    """

    endpoint_id: str
    name: str
    endpoint_type: str
    project_id: str
    user_id: str
    status: str = "new"
    last_success_at: datetime | None = None
    failing_since: datetime | None = None
    failures: int = 0
    """Failed runs in a row."""
    retry_at: datetime | None = None
    """No scheduled attempt before this moment (back-off of a failing endpoint)."""
    message: str = ""

    @property
    def in_order(self) -> bool:
        """Whether the status follows from runs; the others are the YAML's."""
        return self.status in ("new", "ok", "failing")

    def taken_up(self) -> EndpointStatus:
        """The same for an endpoint that the YAML lists in order, whatever it was before."""
        if self.in_order:
            return self
        doing = "failing" if self.failures else "ok" if self.last_success_at else "new"
        return replace(self, status=doing, message=self.message if self.failures else "")


@dataclass(frozen=True, slots=True)
class RunRow:
    """One row of ``sync_runs``."""

    run_id: str
    endpoint_id: str
    started_at: datetime
    ended_at: datetime | None
    mode: Mode
    outcome: Outcome | None
    counts: RunCounts
    reason: str


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn an endpoint is, by the database's clock.

    Attributes:
        holder: the run that took the lease last, unless it gave it back.
        since: when it took it.
        free_for: how long nobody has held the endpoint: zero while the holder lives; None if nobody
            is known to have held it.
    """

    holder: str | None = None
    since: datetime | None = None
    free_for: timedelta | None = None


class Store(Protocol):
    """Rows, folder tree, cursors, runs, leases. Safe for several threads and processes.

    Raises TransientError for what passes (connection lost, lock timeout), ConfigurationError for
    what a person must mend (wrong password, tables missing: "run `file-connector migrate`").
    """

    def migrate(self, *, dry_run: bool = False) -> Sequence[str]:
        """Bring the tables to this version; names of what was applied (empty: nothing to do), or
        with ``dry_run`` of what would be."""
        ...

    def check(self) -> None:
        """Raises ConfigurationError for whatever would keep a run from writing: tables missing or
        old, a grant missing, row-level security, a read-only database. Changes nothing."""
        ...

    # -- state and rows --------------------------------------------------------------------------
    def state(self, endpoint_id: str) -> SyncState:
        """The stored state, or a fresh one (version 0) if there is none."""
        ...

    def known(self, endpoint_id: str) -> Known:
        """Read access to what is held of one endpoint."""
        ...

    def commit(self, commit: Commit) -> CommitResult:
        """One transaction, all or nothing; adds its counts to the run's row. If very many rows
        follow their folders, several, which end as one would, killed in between or not: what one
        owes is settled before anything else is stored for the endpoint. Raises ConflictError if
        ``state.version`` is no longer the stored one or ``run_id`` no longer holds the lease."""
        ...

    def advance(self, state: SyncState) -> SyncState | None:
        """Replace the state alone, without a run (a tick that learnt a later cursor); None if the
        stored version differs or a run holds the lease: then nothing was written."""
        ...

    def restamp(self, identity: Identity, run_id: str) -> int:
        """Put the identity's project and user on the rows of the tenant that the state names (all
        rows, if it names none), not on those an earlier tenant left behind; how many that changed.
        Also stored in the state (its version rises), first; the rows follow as in ``commit``."""
        ...

    def unseen(
        self, endpoint_id: str, pass_no: int, after: str = "", limit: int = 1000
    ) -> Sequence[KnownFile]:
        """Live files not seen in pass ``pass_no``, ordered by external_id, beyond ``after``."""
        ...

    def unseen_count(self, endpoint_id: str, pass_no: int) -> int:
        """How many live files were not seen in pass ``pass_no``."""
        ...

    def forget_seen(self, endpoint_id: str) -> None:
        """Drop the marks of a finished pass."""
        ...

    def live_between(self, endpoint_id: str, start: datetime, end: datetime) -> Iterator[KnownFile]:
        """Live files with ``updated_at`` in [start, end)."""
        ...

    def newest(self, endpoint_id: str, limit: int = 10) -> Sequence[Mapping[str, Json]]:
        """The most recently changed live rows, as column -> value (title, link, ...)."""
        ...

    def row(self, endpoint_id: str, external_id: str) -> Mapping[str, Json] | None:
        """One full row of ``files``, as column -> value."""
        ...

    def reset(self, endpoint_id: str) -> None:
        """Forget cursor, tree and sweep progress (rows stay): the next run lists everything."""
        ...

    # -- runs and leases -------------------------------------------------------------------------
    def begin_run(self, identity: Identity, mode: Mode, run_id: str) -> None:
        """Take the endpoint's lease, close a predecessor that died (outcome failed, reason
        ``lost: ...``) and open this run's row; BusyError if a living run holds the lease."""
        ...

    def turn(self, endpoint_id: str) -> Turn:
        """Who holds the endpoint. Changes nothing, and may not see a lease that is just taken."""
        ...

    def renew(self, endpoint_id: str, run_id: str) -> bool:
        """Heartbeat; False if the lease was lost."""
        ...

    def finish_run(
        self, run_id: str, outcome: Outcome, reason: str, api_calls: int, missed: int
    ) -> None:
        """Close the run's row (row counts were added by its commits) and release the lease."""
        ...

    def runs(self, endpoint_id: str, limit: int = 20) -> Sequence[RunRow]:
        """Newest first."""
        ...

    # -- endpoints -------------------------------------------------------------------------------
    def mirror(self, endpoints: Sequence[EndpointStatus]) -> None:
        """Write the YAML's endpoints into table ``endpoints`` (identity columns and status of
        quarantined or disabled ones); those no longer listed become ``removed``."""
        ...

    def status(self, endpoint_id: str) -> EndpointStatus | None: ...

    def note_success(self, identity: Identity, at: datetime) -> None:
        """Clears failing_since, failures, retry_at and message."""
        ...

    def note_failure(
        self, identity: Identity, at: datetime, message: str, retry_at: datetime | None
    ) -> EndpointStatus:
        """Counts one more failed run in the episode; failing_since keeps its first moment."""
        ...

    # -- lent to connectors ----------------------------------------------------------------------
    def limiter(self, patience_seconds: float = 120.0) -> RateLimiter:
        """Token buckets in the store, shared by all processes; for who waits so long for a call."""
        ...

    def vault(self, key: str | None) -> TokenVault | None:
        """Encrypted tokens in the store; None without an encryption key (a Fernet key)."""
        ...

    def close(self) -> None: ...
