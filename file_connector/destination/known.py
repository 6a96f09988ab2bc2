"""What is held of an endpoint, read back for its connector: files, folders, in pages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Connection, Select, func, select, true
from sqlalchemy.engine import Row as SqlRow

from file_connector.destination import tree
from file_connector.destination.rows import clean_id
from file_connector.destination.tables import files, sync_folders, sync_met
from file_connector.destination.transactions import Transactions
from file_connector.models import Folder, GoneReason, KnownFile

PAGE = 1000

_KNOWN = ("external_id", "title", "parent_id", "version", "updated_at", "gone_reason")


class SqlKnown:
    """What is held of one endpoint; each answer is a read of its own."""

    def __init__(self, database: Transactions, endpoint_id: str) -> None:
        self._database = database
        self._endpoint_id = endpoint_id

    def folder(self, folder_id: str) -> Folder | None:
        return self._database._read(
            lambda conn: tree.load(conn, self._endpoint_id, [folder_id]).get(folder_id)
        )

    def folders(self) -> Iterator[Folder]:
        def page(after: str, conn: Connection) -> Sequence[SqlRow[Any]]:
            return conn.execute(
                select(sync_folders)
                .where(
                    sync_folders.c.endpoint_id == self._endpoint_id,
                    sync_folders.c.folder_id > after,
                )
                .order_by(sync_folders.c.folder_id)
                .limit(PAGE)
            ).all()

        return map(_folder, pages(self._database, page, "folder_id"))

    def subfolders(self, parent_id: str) -> Sequence[Folder]:
        rows = self._database._read(
            lambda conn: conn.execute(
                select(sync_folders)
                .where(
                    sync_folders.c.endpoint_id == self._endpoint_id,
                    sync_folders.c.parent_id == parent_id,
                )
                .order_by(sync_folders.c.folder_id)
            ).all()
        )
        return [_folder(row) for row in rows]

    def files(self, external_ids: Collection[str]) -> Mapping[str, KnownFile]:
        external_ids = set(map(clean_id, external_ids))
        found = self._database._read(
            lambda conn: known_among(conn, self._endpoint_id, external_ids)
        )
        return {file.external_id: file for file in found}

    def files_in(self, folder_id: str) -> Sequence[KnownFile]:
        rows = self._database._read(
            lambda conn: conn.execute(
                known_files(self._endpoint_id)
                .where(files.c.parent_id == folder_id, files.c.gone_at.is_(None))
                .order_by(files.c.external_id)
            ).all()
        )
        return [known_file(row) for row in rows]

    def live_count(self) -> int:
        return self._database._read(
            lambda conn: conn.execute(
                select(func.count()).where(
                    files.c.endpoint_id == self._endpoint_id, files.c.gone_at.is_(None)
                )
            ).scalar_one()
        )


def known_files(endpoint_id: str) -> Select[Any]:
    return select(*(files.c[name] for name in _KNOWN)).where(files.c.endpoint_id == endpoint_id)


def known_among(
    conn: Connection, endpoint_id: str, external_ids: Collection[str]
) -> Sequence[KnownFile]:
    """Those of ``external_ids`` that are held, by id."""
    found = tree.held(conn, endpoint_id, external_ids, _KNOWN)
    return sorted(map(known_file, found), key=lambda file: file.external_id)


def unmet_by(
    conn: Connection, endpoint_id: str, pass_no: int, after: str = ""
) -> CompoundSelect[Any]:
    """Ids beyond ``after`` of live files that the pass has not met. A difference of two sets: each
    is read once, whatever the planner believes about their size."""
    if conn.dialect.name == "postgresql":
        met = func.jsonb_array_elements_text(sync_met.c.ids).table_valued("value", name="met")
        value: ColumnElement[str] = met.c.value.collate("C")
    else:
        met = func.json_each(sync_met.c.ids).table_valued("value", name="met")
        value = met.c.value
    live = select(files.c.external_id).where(
        files.c.endpoint_id == endpoint_id,
        files.c.gone_at.is_(None),
        files.c.external_id > after,
    )
    return live.except_(
        select(value)
        .select_from(sync_met.join(met, true()))
        .where(sync_met.c.endpoint_id == endpoint_id, sync_met.c.pass_no == pass_no)
    )


def known_file(row: SqlRow[Any]) -> KnownFile:
    return KnownFile(
        row.external_id,
        row.title,
        row.parent_id,
        row.version,
        row.updated_at,
        None if row.gone_reason is None else GoneReason(row.gone_reason),
    )


def _folder(row: SqlRow[Any]) -> Folder:
    return Folder(row.folder_id, row.parent_id, row.name, row.state)


def pages(
    database: Transactions,
    page: Callable[[str, Connection], Sequence[SqlRow[Any]]],
    key: str,
) -> Iterator[SqlRow[Any]]:
    """The rows of all pages; ``page`` gives those whose ``key`` is beyond what it is told."""
    rows: Sequence[SqlRow[Any]] = ()
    while True:
        after = getattr(rows[-1], key) if rows else ""
        rows = database._read(partial(page, after))
        yield from rows
        if len(rows) < PAGE:
            return
