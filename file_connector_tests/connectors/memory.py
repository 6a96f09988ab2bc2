"""A destination in dictionaries, and a run in a dozen lines: enough to watch a connector work.

``Memory`` answers what a connector may ask (Known) and applies batches in the documented order.
``Sync`` drives one connector against it as a run would: a complete pass while there is no cursor,
then the fast way. Both are shared by the tests of all connectors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from file_connector.connectors.base import Connector
from file_connector.errors import BugError, CursorRejectedError
from file_connector.models import (
    Batch,
    Blind,
    FileRecord,
    Folder,
    GoneReason,
    Json,
    KnownFile,
)


class Memory:
    """Rows, tombstones and folder tree of one endpoint; implements ``Known``.

    Attributes:
        rows: every row ever stored, by external id (the record last written).
        gone: reasons of the tombstones, by external id; absent while live.
        tree: the known folders.
        seen: number of the pass that last met a file.
        writes: rows written so far (inserted, updated, revived, tombstoned).
    """

    def __init__(self) -> None:
        self.rows: dict[str, FileRecord] = {}
        self.gone: dict[str, GoneReason] = {}
        self.tree: dict[str, Folder] = {}
        self.seen: dict[str, int] = {}
        self.writes = 0

    # -- Known -----------------------------------------------------------------------------------
    def folder(self, folder_id: str) -> Folder | None:
        return self.tree.get(folder_id)

    def folders(self) -> Iterator[Folder]:
        yield from list(self.tree.values())

    def subfolders(self, parent_id: str) -> Sequence[Folder]:
        return [f for f in self.tree.values() if f.parent_id == parent_id]

    def files(self, external_ids: Collection[str]) -> Mapping[str, KnownFile]:
        return {i: self._known(i) for i in external_ids if i in self.rows}

    def files_in(self, folder_id: str) -> Sequence[KnownFile]:
        return [self._known(i) for i in self.live if self.rows[i].parent_id == folder_id]

    def live_count(self) -> int:
        return len(self.live)

    # -- looking ---------------------------------------------------------------------------------
    @property
    def live(self) -> set[str]:
        """Ids of the live rows."""
        return self.rows.keys() - self.gone.keys()

    @property
    def titles(self) -> list[str]:
        """Titles of the live rows, sorted, duplicates included."""
        return sorted(self.rows[i].title for i in self.live)

    def path(self, external_id: str) -> str:
        """The row's path as the tree tells it, e.g. ``/A/B/report.pdf``."""
        row = self.rows[external_id]
        names = [row.title]
        at, met = row.parent_id, set[str]()
        while at is not None and at in self.tree and self.tree[at].parent_id is not None:
            if at in met:
                return "(cycle)"
            met.add(at)
            names.append(self.tree[at].name)
            at = self.tree[at].parent_id
        return "/" + "/".join(reversed(names))

    def unseen(self, pass_no: int) -> list[KnownFile]:
        """Live files a complete pass did not meet."""
        return [self._known(i) for i in sorted(self.live) if self.seen.get(i) != pass_no]

    # -- storing ---------------------------------------------------------------------------------
    def apply(self, batch: Batch, mark: int | None = None) -> int:
        """Store one batch: folders, records, folders_gone, gone. Returns the rows written.

        Args:
            mark: number of the open pass, if one is open: what is met counts as seen in it.
        """
        before = self.writes
        for folder in batch.folders:
            self.tree[folder.folder_id] = folder
        for record in batch.records:
            self._put(record)
        for left in batch.folders_gone:
            self._drop(left.folder_id, left.reason)
        for item in batch.gone:
            self._tombstone(item.external_id, item.reason)
        if mark is not None:
            for external_id in [*(r.external_id for r in batch.records), *batch.seen]:
                self.seen[external_id] = mark
        return self.writes - before

    def _put(self, record: FileRecord) -> None:
        held = self.rows.get(record.external_id)
        if held is not None:
            if None not in (held.version, record.version) and record.version < held.version:  # type: ignore[operator]
                return
            news = record
            if not record.version_is_content:
                news = replace(record, version=held.version)
            if record.external_id not in self.gone and news == held:
                return
        self.rows[record.external_id] = record
        self.gone.pop(record.external_id, None)
        self.writes += 1

    def _tombstone(self, external_id: str, reason: GoneReason) -> None:
        if external_id in self.live:
            self.gone[external_id] = reason
            self.writes += 1

    def _drop(self, folder_id: str, reason: GoneReason) -> None:
        below, stack = set[str](), [folder_id]
        while stack:
            at = stack.pop()
            if at not in below:
                below.add(at)
                stack.extend(f.folder_id for f in self.subfolders(at))
        for external_id in sorted(self.live):
            if self.rows[external_id].parent_id in below:
                self._tombstone(external_id, reason)
        for at in below:
            self.tree.pop(at, None)

    def _known(self, external_id: str) -> KnownFile:
        row = self.rows[external_id]
        return KnownFile(
            row.external_id,
            row.title,
            row.parent_id,
            row.version,
            row.updated_at,
            self.gone.get(external_id),
        )


class Killed(Exception):  # noqa: N818
    """A test ends a run here, as a kill would."""


@dataclass
class Told:
    """What one drive of the connector reported."""

    blind: list[Blind] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batches: int = 0
    writes: int = 0


@dataclass
class Sync:
    """One endpoint's runs: ``tick`` as the schedule would, ``sweep`` for a complete pass.

    Attributes:
        on_batch: called with each batch before it is stored; may raise ``Killed``.
        after_batch: called with each batch after it was stored; may raise ``Killed``.
    """

    connector: Connector
    memory: Memory = field(default_factory=Memory)
    cursor: Json | None = None
    progress: Json | None = None
    pass_no: int = 0
    on_batch: Callable[[Batch], None] | None = None
    after_batch: Callable[[Batch], None] | None = None

    def tick(self) -> Told:
        """One ordinary run."""
        told = Told()
        if self.cursor is None:
            self._pass(told)
        try:
            self._changes(told)
        except CursorRejectedError as error:
            told.notes.append(f"re-baselined: {error.message}")
            self.cursor = self.progress = None
            self._pass(told)
            self._changes(told)
        return told

    def sweep(self) -> Told:
        """The fast way, a complete pass, the fast way again."""
        told = self.tick()
        self._pass(told)
        self._changes(told)
        return told

    def window(self, start: datetime, end: datetime) -> tuple[Told, set[str]]:
        """Re-read the files of [start, end); also returns the ids met."""
        told, met, done = Told(), set[str](), False
        for batch in self.connector.window(start, end, self.memory):
            known = any(self.memory.folder(f.folder_id) for f in batch.folders)
            if known or batch.folders_gone or batch.cursor or batch.sweep:
                raise BugError("a window carries neither known folders nor a cursor")
            self._store(batch, told)
            met.update(r.external_id for r in batch.records)
            done = done or batch.done
        if not done:
            raise BugError("the window was not done")
        return told, met

    def _pass(self, told: Told) -> None:
        if self.progress is None:
            self.pass_no += 1
        listed: Json = None
        for batch in self.connector.sweep(self.memory, self.progress, self.pass_no):
            self._store(batch, told, mark=self.pass_no, progress=batch.sweep)
            if batch.done:
                listed = batch.cursor
                break
        else:
            raise BugError("the sweep was not done")
        if listed is None:
            raise BugError("a complete listing must end with a cursor")
        unseen = self._not_blind(self.memory.unseen(self.pass_no), told)
        for batch in self.connector.resolve(unseen, self.memory):
            self._store(batch, told, mark=self.pass_no)
        self.cursor = listed if self.cursor is None else self.cursor
        self.progress = None

    def _changes(self, told: Told) -> None:
        told.blind.clear()
        mark = self.pass_no if self.progress is not None else None
        for batch in self.connector.changes(self.cursor, self.memory):
            self._store(batch, told, mark=mark, cursor=batch.cursor)

    def _store(
        self,
        batch: Batch,
        told: Told,
        *,
        mark: int | None = None,
        progress: Json | None = None,
        cursor: Json | None = None,
    ) -> None:
        """One transaction: rows, tree, and how far we are."""
        if self.on_batch is not None:
            self.on_batch(batch)
        told.writes += self.memory.apply(batch, mark)
        self.progress = self.progress if progress is None else progress
        self.cursor = self.cursor if cursor is None else cursor
        told.batches += 1
        told.blind.extend(batch.blind)
        told.notes.extend(batch.notes)
        if self.after_batch is not None:
            self.after_batch(batch)

    def _not_blind(self, files: Iterable[KnownFile], told: Told) -> list[KnownFile]:
        hidden, stack = set[str](), [b.folder_id for b in told.blind]
        while stack:
            at = stack.pop()
            if at not in hidden:
                hidden.add(at)
                stack.extend(f.folder_id for f in self.memory.subfolders(at))
        return [f for f in files if f.parent_id not in hidden]
