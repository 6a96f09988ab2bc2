"""Plain frozen values that travel between the rooms: records, folders, batches, state, reports.

No behaviour beyond construction, no I/O. All datetimes are timezone-aware UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

Json = Any
"""A JSON-serialisable value (dict, list, str, int, float, bool, None)."""


class GoneReason(str, Enum):
    """Why a row is a tombstone."""

    TRASHED = "trashed"
    DELETED = "deleted"
    OUT_OF_SCOPE = "out_of_scope"
    ACCESS_LOST = "access_lost"


class Mode(str, Enum):
    """What a run does.

    incremental: everything since the cursor, plus a sweep if one is due.
    sweep: incremental, then a complete listing now, to its end.
    window: re-reads the files whose ``updated_at`` lies in chosen days; leaves the cursor alone.
    """

    INCREMENTAL = "incremental"
    SWEEP = "sweep"
    WINDOW = "window"


class Outcome(str, Enum):
    """How a run ended. ``partial``: what was seen is stored, and ``reason`` says what was not."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose files these are; stamped on every row by the engine and by nobody else."""

    endpoint_id: str
    source: str
    """The endpoint type, e.g. ``google_drive``."""
    project_id: str
    user_id: str
    name: str = ""
    """What people call the endpoint; empty: its id."""

    @property
    def called(self) -> str:
        return self.name or self.endpoint_id


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file's metadata as the provider tells it. No tenant ids.

    ``version`` rises with every change the provider knows of, or is None when it tells none; a
    stored row is never overwritten by a record with a lower version. ``version_is_content`` says
    whether a rise of ``version`` alone is news to a reader (ACC: a new upload) or mere bookkeeping
    (Drive: somebody opened the file); in the latter case it does not cause a write.
    ``raw`` holds the rest worth keeping; values that change without meaning (view counters, signed
    URLs) must stay out of it, because a difference in ``raw`` is a change of the row.
    """

    external_id: str
    title: str
    link: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    mime_type: str | None = None
    size_bytes: int | None = None
    version: int | None = None
    parent_id: str | None = None
    raw: Mapping[str, Json] = field(default_factory=dict)
    version_is_content: bool = True


@dataclass(frozen=True, slots=True)
class Gone:
    """A file that is no longer there, with the provider's evidence. Unknown ids are ignored."""

    external_id: str
    reason: GoneReason


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the endpoint's known tree (table ``sync_folders``).

    The start folder has ``parent_id`` None. ``state`` is the connector's own memory about it (a
    rollup, the number of the pass that last listed it, ...); storing a Folder replaces its state.
    """

    folder_id: str
    parent_id: str | None
    name: str
    state: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FolderGone:
    """A folder that left; every file and folder below it in the known tree goes with it."""

    folder_id: str
    reason: GoneReason


@dataclass(frozen=True, slots=True)
class Blind:
    """A part of the tree a run could not see: nothing below is tombstoned, the run is partial."""

    folder_id: str
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What a connector found, small enough to store in one transaction (about 1,000 records).

    Applied in this order: folders, records, folders_gone, gone.

    Attributes:
        seen: ids met by a complete listing without a record worth writing (rarely needed: records
            are seen by themselves).
        cursor: the cursor that is true once this batch and all before it are stored; None means
            "not yet safe to advance".
        sweep: in a sweep, the progress that is true once this batch is stored.
        done: in a sweep or a window, the listing is complete with this batch.
        blind: parts that could not be seen.
        suspect: too much vanished at once for the fast way to judge; a complete pass should.
        notes: sentences for the run's report ("re-baselined: ...").
    """

    records: Sequence[FileRecord] = ()
    gone: Sequence[Gone] = ()
    folders: Sequence[Folder] = ()
    folders_gone: Sequence[FolderGone] = ()
    seen: Sequence[str] = ()
    cursor: Json | None = None
    sweep: Json | None = None
    done: bool = False
    blind: Sequence[Blind] = ()
    suspect: bool = False
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class KnownFile:
    """What we hold about one file (a projection of its row in ``files``)."""

    external_id: str
    title: str
    parent_id: str | None
    version: int | None
    updated_at: datetime | None
    gone_reason: GoneReason | None = None

    @property
    def live(self) -> bool:
        return self.gone_reason is None


@dataclass(frozen=True, slots=True)
class Probe:
    """The answer to "anything new since the cursor?".

    ``cursor``, if given, is a later position up to which nothing concerned us here; storing it
    keeps the next probe cheap.
    """

    changed: bool
    why: str
    cursor: Json | None = None


@dataclass(frozen=True, slots=True)
class SyncState:
    """Everything we must remember about one endpoint to go on (table ``sync_state``).

    Attributes:
        version: rises with every stored change of this state; compare-and-set guards it.
        cursor: the connector's position; None until a first complete listing is stored.
        sweep: the connector's progress in the open pass; None when no pass is open.
        pass_no: number of the open pass, or of the last one.
        pass_started_at, swept_at: start of the open pass; end of the last complete pass.
        scope, principal: fingerprints of what is listed and as whom; a change calls for a new pass.
        rescoped: the open pass follows a change of scope, so what it does not see is out of scope.
        synced_at: when the fast way last ran to its end.
        held_back: complete passes in a row that saw a mass disappearance; 0 = breaker closed.
        confirmed: an operator accepted the disappearance for the next pass.
        blind: parts of the tree no run could see yet.
        project_id, user_id: the tenant the stored rows are stamped with.
    """

    endpoint_id: str
    version: int = 0
    cursor: Json | None = None
    sweep: Json | None = None
    pass_no: int = 0
    pass_started_at: datetime | None = None
    swept_at: datetime | None = None
    scope: str | None = None
    principal: str | None = None
    rescoped: bool = False
    synced_at: datetime | None = None
    held_back: int = 0
    confirmed: bool = False
    blind: Sequence[Mapping[str, str]] = ()
    project_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction, decided by the engine: rows, tree and state together, or nothing. Where very
    many rows follow their folders, they do so in pieces; the state is stored with the last.

    The store applies folders, records, folders_gone, gone (in that order), marks records and
    ``seen`` as seen in pass ``state.pass_no`` when ``mark_seen``, and replaces the state if its
    stored version equals ``state.version`` (and stores ``state.version + 1``); otherwise it raises
    ConflictError and changes nothing. ``records`` are unique and sorted by external_id.
    """

    identity: Identity
    run_id: str
    state: SyncState
    records: Sequence[FileRecord] = ()
    gone: Sequence[Gone] = ()
    folders: Sequence[Folder] = ()
    folders_gone: Sequence[FolderGone] = ()
    seen: Sequence[str] = ()
    mark_seen: bool = False
    forget_folders: bool = False
    """Drop the whole known tree of this endpoint first (its scope changed)."""


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What one transaction really changed in ``files``, and the state as stored."""

    state: SyncState
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    tombstoned: int = 0
    changed_ids: frozenset[str] = frozenset()
    """Ids inserted, updated, revived or tombstoned by this commit."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Records the database would not take, by id, with its words: a constraint or a trigger that
    somebody put on ``files``. Everything else is stored."""


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Totals of one run; the same names as the columns of ``sync_runs``."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    tombstoned: int = 0
    api_calls: int = 0
    missed_by_fast_path: int = 0


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a run went, for metadata, the CLI and tests."""

    run_id: str
    endpoint_id: str
    mode: Mode
    outcome: Outcome
    counts: RunCounts
    reason: str
    started_at: datetime
    ended_at: datetime
    cursor_before: Json | None = None
    cursor_after: Json | None = None
    swept: bool = False
    """A complete pass ended in this run."""
    notes: Sequence[str] = ()
