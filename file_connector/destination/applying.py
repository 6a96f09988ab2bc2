"""One commit, applied inside a transaction that holds the endpoint's state row.

Files that follow their folders follow here if they are few; if they are very many, they are owed.

Lock order of every writer: state row, change counter, rows of ``files`` by id. Only the holder of
the state row writes an endpoint's files and folders, so what is read here stays true until the end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete

from file_connector.destination import owed, tree
from file_connector.destination.changing import NOTHING, change_rows, live, reserve
from file_connector.destination.failures import DRIVER_ERRORS, refuses_rows, translated
from file_connector.destination.rows import NEWS, Held, Row, clean_id, is_news, is_older, row_of
from file_connector.destination.tables import files, sync_folders
from file_connector.models import (
    Commit,
    Folder,
    FolderGone,
    Gone,
    GoneReason,
    Json,
)

_COMPARED = ("external_id", "version", "gone_at", *NEWS)

Write = Callable[[Connection, Iterable[Row]], None]
"""Stores rows, which may be made while the first of them are already stored."""


class Applying:
    """The work of one commit on files and folders.

    Args:
        conn: inside the transaction.
        commit: what to apply.
        now: ``changed_at`` of everything this commit changes.
        insert, overwrite: store rows that are new; replace rows that are there (``first_seen_at``
            apart).
        save_folders: insert or replace folders.
        piece: how many rows may follow their folder here; more are left ``owed``.
        sift: leave out the rows that the database refuses (``refused``), instead of failing.
    """

    def __init__(
        self,
        conn: Connection,
        commit: Commit,
        now: datetime,
        *,
        insert: Write,
        overwrite: Write,
        save_folders: Callable[[Connection, Sequence[Row]], None],
        piece: int,
        sift: bool = False,
    ) -> None:
        self._conn = conn
        self._commit = commit
        self._endpoint_id = commit.identity.endpoint_id
        self._now = now
        self._insert = insert
        self._overwrite = overwrite
        self._save_folders = save_folders
        self._piece = piece
        self._sift = sift
        self.told = {clean_id(record.external_id): record for record in commit.records}
        self.inserted = 0
        self.tombstoned = 0
        self.unchanged = 0
        self.updated: set[str] = set()
        self.changed: set[str] = set()
        self.refused: dict[str, str] = {}
        self.owed: list[Json] = []

    def apply(self) -> int | None:
        """In the order the contract gives: folders, records, folders gone, files gone. Where it
        stopped (see ``owed.rest``), because very many rows are owed."""
        if self._commit.forget_folders:
            self._conn.execute(
                delete(sync_folders).where(sync_folders.c.endpoint_id == self._endpoint_id)
            )
        self._folders(self._commit.folders)
        if self.owed:
            return 0
        self._records()
        for number, gone in enumerate(self._commit.folders_gone, 1):
            self._folder_gone(gone)
            if self.owed:
                return number
        self._gone(self._commit.gone)
        return None

    def _folders(self, folders: Sequence[Folder]) -> None:
        if not folders:
            return
        told = {f.folder_id: f for f in map(tree.clean_folder, folders)}
        stored = tree.load(self._conn, self._endpoint_id, told)
        news = sorted(
            (f for f in told.values() if stored.get(f.folder_id) != f), key=lambda f: f.folder_id
        )
        if not news:
            return
        self._save_folders(
            self._conn,
            [
                {
                    "endpoint_id": self._endpoint_id,
                    "folder_id": f.folder_id,
                    "parent_id": f.parent_id,
                    "name": f.name,
                    "state": f.state,
                }
                for f in news
            ],
        )
        self._repath([f.folder_id for f in news if _elsewhere(f, stored.get(f.folder_id))])

    def _repath(self, moved: Collection[str]) -> None:
        """Files below folders that are new, renamed or moved get their right paths."""
        if not moved:
            return
        affected = tree.below(self._conn, self._endpoint_id, moved)
        if len(affected) > owed.FOLDERS:  # even to ask what is in all of them takes too long
            self.owed += owed.moved(affected)
            return
        prefix_of = tree.prefixes(self._conn, self._endpoint_id, affected)
        misplaced, asked = tree.misplaced(self._conn, self._endpoint_id, prefix_of)
        ids = self._change(misplaced, {}, self._piece, asked)
        if ids is None:
            self.owed += owed.moved(affected)
        else:
            self.updated.update(ids)

    def _records(self) -> None:
        if not self.told:
            return
        told = self.told
        parents = {clean_id(p) for p in {r.parent_id for r in told.values()} if p is not None}
        prefix_of = tree.prefixes(self._conn, self._endpoint_id, parents)
        stored = self._stored(told)

        def row(external_id: str) -> Row:
            row = row_of(self._commit.identity, told[external_id], "")
            row["path"] = f"{prefix_of.get(row['parent_id'] or '', '')}{row['title']}"
            return row

        fresh = sorted(told.keys() - stored.keys())
        newer: dict[str, Row] = {}
        for external_id, held in sorted(stored.items()):
            new = row(external_id)
            if not is_older(new, held) and is_news(new, held, told[external_id].version_is_content):
                newer[external_id] = new
            elif external_id not in self.updated:
                self.unchanged += 1
        if not (fresh or newer):
            return
        first = reserve(self._conn, len(fresh) + len(newer))
        seq_of = dict(zip((*fresh, *newer), count(first)))

        def stamped(row: Row) -> Row:
            row["first_seen_at"] = row["changed_at"] = self._now
            row["change_seq"] = seq_of[row["external_id"]]
            return row

        inserted = self._write(self._insert, fresh, lambda i: stamped(row(i)))
        self.inserted += len(inserted)
        self.changed.update(inserted)
        self.updated.update(self._write(self._overwrite, [*newer], lambda i: stamped(newer[i])))
        self.changed.update(self.updated)

    def _write(self, write: Write, ids: Sequence[str], row: Callable[[str], Row]) -> Sequence[str]:
        """The ids of what is stored. Without ``sift`` that is all, or an error; with it, rows that
        the database refuses are found by halving."""
        if not ids:
            return ()
        if not self._sift:
            write(self._conn, map(row, ids))
            return ids
        try:
            with self._conn.begin_nested():
                write(self._conn, map(row, ids))
        except DRIVER_ERRORS as error:
            if not refuses_rows(error):
                raise
            if len(ids) == 1:
                self.refused[ids[0]] = translated(error).message
                return ()
            half = len(ids) // 2
            return [*self._write(write, ids[:half], row), *self._write(write, ids[half:], row)]
        return ids

    def _stored(self, external_ids: Collection[str]) -> dict[str, Held]:
        found: Any = tree.held(self._conn, self._endpoint_id, external_ids, _COMPARED)
        return {
            external_id: Held(version, gone_at, tuple(news))
            for external_id, version, gone_at, *news in found
        }

    def _folder_gone(self, gone: FolderGone) -> None:
        inside = tree.below(self._conn, self._endpoint_id, [clean_id(gone.folder_id)])
        in_them = tree.among(self._conn, files.c.parent_id, inside)
        if not self._tombstone(in_them, gone.reason, self._piece):
            self.owed += owed.gone(inside, gone.reason)
        self._conn.execute(
            delete(sync_folders).where(
                sync_folders.c.endpoint_id == self._endpoint_id,
                tree.among(self._conn, sync_folders.c.folder_id, inside),
            )
        )

    def _gone(self, gone: Iterable[Gone]) -> None:
        by_reason: dict[GoneReason, set[str]] = {}
        for one in gone:
            by_reason.setdefault(one.reason, set()).add(clean_id(one.external_id))
        for reason, ids in by_reason.items():
            self._tombstone(tree.among(self._conn, files.c.external_id, ids), reason)

    def _tombstone(
        self, which: ColumnElement[bool], reason: GoneReason, most: int | None = None
    ) -> bool:
        """False, changing nothing, if those are more than ``most`` rows. Live ones only: a
        tombstone keeps its first reason and time."""
        leaving = live(self._endpoint_id, which)
        ids = self._change(leaving, {"gone_at": self._now, "gone_reason": reason.value}, most)
        self.tombstoned += len(ids or ())
        return ids is not None

    def _change(
        self,
        which: Select[Any],
        columns: Mapping[str, Any],
        most: int | None,
        asked: Mapping[str, Any] = NOTHING,
    ) -> Sequence[str] | None:
        ids = change_rows(self._conn, self._endpoint_id, which, columns, self._now, asked, most)
        self.changed.update(ids or ())
        return ids


def _elsewhere(folder: Folder, before: Folder | None) -> bool:
    return before is None or (before.name, before.parent_id) != (folder.name, folder.parent_id)
