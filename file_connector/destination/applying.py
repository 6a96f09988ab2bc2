"""One commit, applied inside a transaction that holds the endpoint's state row.

Lock order of every writer: state row, change counter, rows of ``files`` by id. Only the holder of
the state row writes an endpoint's files and folders, so what is read here stays true until the end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Subquery,
    delete,
    func,
    select,
    update,
)

from file_connector.destination import tree
from file_connector.destination.failures import DRIVER_ERRORS, refuses_rows, translated
from file_connector.destination.rows import NEWS, Held, Row, clean_id, is_news, is_older, row_of
from file_connector.destination.tables import change_counter, files, sync_folders
from file_connector.models import (
    Commit,
    Folder,
    FolderGone,
    Gone,
    GoneReason,
)

_COMPARED = ("external_id", "version", "gone_at", *NEWS)

Write = Callable[[Connection, Sequence[Row]], None]


class Applying:
    """The work of one commit on files and folders.

    Args:
        conn: inside the transaction.
        commit: what to apply.
        now: ``changed_at`` of everything this commit changes.
        insert, overwrite: store rows that are new; replace rows that are there (``first_seen_at``
            apart).
        save_folders: insert or replace folders.
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
        save_folders: Write,
        sift: bool = False,
    ) -> None:
        self._conn = conn
        self._commit = commit
        self._endpoint_id = commit.identity.endpoint_id
        self._now = now
        self._insert = insert
        self._overwrite = overwrite
        self._save_folders = save_folders
        self._sift = sift
        self.inserted = 0
        self.tombstoned = 0
        self.unchanged = 0
        self.updated: set[str] = set()
        self.changed: set[str] = set()
        self.refused: dict[str, str] = {}

    def apply(self) -> None:
        """In the order the contract gives: folders, records, folders gone, files gone."""
        if self._commit.forget_folders:
            self._conn.execute(
                delete(sync_folders).where(sync_folders.c.endpoint_id == self._endpoint_id)
            )
        self._folders(self._commit.folders)
        self._records()
        self._folders_gone(self._commit.folders_gone)
        self._gone(self._commit.gone)

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
        prefix_of = tree.prefixes(self._conn, self._endpoint_id, affected)
        wrong = tree.misplaced(self._conn, self._endpoint_id, prefix_of)
        self.updated.update(self._change(wrong, {"path": wrong.c.path}))

    def _records(self) -> None:
        records = self._commit.records
        if not records:
            return
        parents = {clean_id(r.parent_id) for r in records if r.parent_id is not None}
        prefix_of = tree.prefixes(self._conn, self._endpoint_id, parents)
        incoming: dict[str, tuple[Row, bool]] = {}
        for record in records:
            row = row_of(self._commit.identity, record, "")
            row["path"] = f"{prefix_of.get(row['parent_id'] or '', '')}{row['title']}"
            incoming[row["external_id"]] = (row, record.version_is_content)
        stored = self._stored(incoming)
        fresh: list[Row] = []
        newer: list[Row] = []
        for external_id in sorted(incoming):
            row, version_is_content = incoming[external_id]
            held = stored.get(external_id)
            if held is None:
                fresh.append(row)
            elif not is_older(row, held) and is_news(row, held, version_is_content):
                newer.append(row)
            elif external_id not in self.updated:
                self.unchanged += 1
        if not (fresh or newer):
            return
        first = reserve(self._conn, len(fresh) + len(newer))
        for seq, row in enumerate((*fresh, *newer), first):
            row["first_seen_at"] = row["changed_at"] = self._now
            row["change_seq"] = seq
        inserted = self._write(self._insert, fresh)
        self.inserted += len(inserted)
        self.changed.update(inserted)
        self.updated.update(self._write(self._overwrite, newer))
        self.changed.update(self.updated)

    def _write(self, write: Write, rows: Sequence[Row]) -> list[str]:
        """The ids of what is stored. Without ``sift`` that is all, or an error; with it, rows that
        the database refuses are found by halving."""
        if not rows:
            return []
        if not self._sift:
            write(self._conn, rows)
            return [row["external_id"] for row in rows]
        try:
            with self._conn.begin_nested():
                write(self._conn, rows)
        except DRIVER_ERRORS as error:
            if not refuses_rows(error):
                raise
            if len(rows) == 1:
                self.refused[rows[0]["external_id"]] = translated(error).message
                return []
            half = len(rows) // 2
            return [*self._write(write, rows[:half]), *self._write(write, rows[half:])]
        return [row["external_id"] for row in rows]

    def _stored(self, external_ids: Collection[str]) -> dict[str, Held]:
        found: Any = tree.held(self._conn, self._endpoint_id, external_ids, _COMPARED)
        return {
            external_id: Held(version, gone_at, tuple(news))
            for external_id, version, gone_at, *news in found
        }

    def _folders_gone(self, folders_gone: Iterable[FolderGone]) -> None:
        for gone in folders_gone:
            inside = tree.below(self._conn, self._endpoint_id, [clean_id(gone.folder_id)])
            self._tombstone(tree.among(self._conn, files.c.parent_id, inside), gone.reason)
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

    def _tombstone(self, which: ColumnElement[bool], reason: GoneReason) -> None:
        """Live rows only: a tombstone keeps its first reason and time."""
        leaving = numbered(self._endpoint_id, which, files.c.gone_at.is_(None))
        ids = self._change(leaving, {"gone_at": self._now, "gone_reason": reason.value})
        self.tombstoned += len(ids)

    def _change(self, which: Subquery, columns: dict[str, Any]) -> Sequence[str]:
        ids = change_rows(self._conn, self._endpoint_id, which, columns, self._now)
        self.changed.update(ids)
        return ids


def numbered(endpoint_id: str, *which: ColumnElement[bool]) -> Subquery:
    """Ids of an endpoint's rows that meet ``which``, with a number ``n`` (1, 2, ... by id).

    Sorted by an expression: to have them in the order of its key, SQLite would read them all.
    """
    return (
        select(
            files.c.external_id,
            func.row_number().over(order_by=files.c.external_id.concat("")).label("n"),
        )
        .where(files.c.endpoint_id == endpoint_id, *which)
        .subquery("numbered")
    )


def change_rows(
    conn: Connection, endpoint_id: str, which: Subquery, columns: dict[str, Any], now: datetime
) -> Sequence[str]:
    """Set ``columns`` on the rows of ``which`` (it has ``external_id``, ``n``), each with its own
    ``change_seq``; their ids. If there is none, touches nothing, the counter included."""
    count = conn.scalar(select(func.count()).select_from(which)) or 0
    if not count:
        return ()
    before = reserve(conn, count) - 1
    return conn.scalars(
        update(files)
        .where(files.c.endpoint_id == endpoint_id, files.c.external_id == which.c.external_id)
        .values(**columns, changed_at=now, change_seq=before + which.c.n)
        .returning(files.c.external_id)
    ).all()


def reserve(conn: Connection, count: int) -> int:
    """The first of ``count`` new values of ``change_seq``. Locks the counter until the transaction
    ends, so that no later number can be seen before an earlier one."""
    last: int = conn.execute(
        update(change_counter)
        .values(value=change_counter.c.value + count)
        .returning(change_counter.c.value)
    ).scalar_one()
    return last - count + 1


def _elsewhere(folder: Folder, before: Folder | None) -> bool:
    return before is None or (before.name, before.parent_id) != (folder.name, folder.parent_id)
