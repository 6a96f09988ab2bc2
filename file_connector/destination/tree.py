"""The known folder tree (``sync_folders``): paths, subtrees, and rows that follow their folders.

All functions work inside a transaction of the caller and on one endpoint.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    CursorResult,
    Select,
    Text,
    any_,
    bindparam,
    cast,
    func,
    literal,
    select,
    text,
    true,
    type_coerce,
)

from file_connector.destination.rows import clean_id, clean_json, clean_text
from file_connector.destination.tables import dumps, files, sync_folders
from file_connector.models import Folder


def among(
    conn: Connection, column: ColumnElement[str], ids: Collection[str]
) -> ColumnElement[bool]:
    """``column`` is one of ``ids``, however many: they travel as one parameter."""
    return _one_of(conn.dialect.name, column, literal(_sent(conn, ids)))


def _sent(conn: Connection, ids: Collection[str]) -> str:
    return array_text(ids) if conn.dialect.name == "postgresql" else dumps(list(ids))


def array_text(ids: Collection[str]) -> str:
    """``ids`` as Postgres reads a ``text[]``: one value, where the driver would quote each."""
    inside = '","'.join(ids)
    if "\\" in inside or inside.count('"') > 2 * (len(ids) - 1):
        inside = '","'.join([i.replace("\\", "\\\\").replace('"', '\\"') for i in ids])
    return f'{{"{inside}"}}' if ids else "{}"


def _one_of(
    dialect: str, column: ColumnElement[str], ids: ColumnElement[Any]
) -> ColumnElement[bool]:
    if dialect == "postgresql":
        return column == any_(cast(ids, ARRAY(Text)))
    return column.in_(select(func.json_each(ids).table_valued("value").c.value))


def held(
    conn: Connection, endpoint_id: str, external_ids: Collection[str], names: tuple[str, ...]
) -> CursorResult[Any]:
    """The columns ``names`` of the rows of ``files`` with these ids."""
    return _ask(conn, _by_key(conn.dialect.name, names), endpoint_id, external_ids)


def _ask(
    conn: Connection, statement: Select[Any], endpoint_id: str, ids: Collection[str]
) -> CursorResult[Any]:
    return conn.execute(statement, {"endpoint": endpoint_id, "ids": _sent(conn, ids)})


# Statements are built once: that takes longer than the database needs to answer.


@lru_cache
def _by_key(dialect: str, names: tuple[str, ...]) -> Select[Any]:
    """Each row is looked up by its key. Postgres gets no choice (``offset 0``): a table that grew a
    moment ago has no statistics, and without them it reads the whole endpoint, once per batch of a
    first sync."""
    rows = select(*(files.c[name] for name in names)).where(
        files.c.endpoint_id == bindparam("endpoint")
    )
    if dialect != "postgresql":
        return rows.where(_one_of(dialect, files.c.external_id, bindparam("ids", type_=Text)))
    wanted = func.unnest(cast(bindparam("ids", type_=Text), ARRAY(Text))).table_valued(
        "id", name="wanted"
    )
    wanted = wanted.render_derived()
    found = rows.where(files.c.external_id == wanted.c.id).offset(0).lateral("found")
    return select(found).join_from(wanted, found, true())


@lru_cache
def _loaded(dialect: str) -> Select[Any]:
    return select(sync_folders).where(
        sync_folders.c.endpoint_id == bindparam("endpoint"),
        _one_of(dialect, sync_folders.c.folder_id, bindparam("ids", type_=Text)),
    )


@lru_cache
def _above(dialect: str) -> Select[Any]:
    """The folders ``ids`` and all above them."""
    columns = (sync_folders.c.folder_id, sync_folders.c.parent_id, sync_folders.c.name)
    up = (
        select(*columns)
        .where(
            sync_folders.c.endpoint_id == bindparam("endpoint"),
            _one_of(dialect, sync_folders.c.folder_id, bindparam("ids", type_=Text)),
        )
        .cte("up", recursive=True)
    )
    up = up.union(
        select(*columns).where(
            sync_folders.c.endpoint_id == bindparam("endpoint"),
            sync_folders.c.folder_id == up.c.parent_id,
        )
    )
    return select(up)


@lru_cache
def _inside(dialect: str) -> Select[Any]:
    """The ids of all folders below ``ids``."""
    inside = (
        select(sync_folders.c.folder_id)
        .where(
            sync_folders.c.endpoint_id == bindparam("endpoint"),
            _one_of(dialect, sync_folders.c.parent_id, bindparam("ids", type_=Text)),
        )
        .cte("inside", recursive=True)
    )
    inside = inside.union(
        select(sync_folders.c.folder_id).where(
            sync_folders.c.endpoint_id == bindparam("endpoint"),
            sync_folders.c.parent_id == inside.c.folder_id,
        )
    )
    return select(inside.c.folder_id)


def clean_folder(folder: Folder) -> Folder:
    return Folder(
        clean_id(folder.folder_id),
        None if folder.parent_id is None else clean_id(folder.parent_id),
        clean_text(folder.name),
        clean_json(folder.state),
    )


def load(conn: Connection, endpoint_id: str, folder_ids: Collection[str]) -> dict[str, Folder]:
    """The known folders among ``folder_ids``."""
    found = _ask(conn, _loaded(conn.dialect.name), endpoint_id, folder_ids)
    return {
        row.folder_id: Folder(row.folder_id, row.parent_id, row.name, row.state) for row in found
    }


def prefixes(conn: Connection, endpoint_id: str, folder_ids: Collection[str]) -> dict[str, str]:
    """What comes before a title in the paths of files inside each of ``folder_ids``: the names from
    below the start folder, each followed by "/". Empty for the start folder and unknown folders."""
    found = _ask(conn, _above(conn.dialect.name), endpoint_id, folder_ids)
    above: dict[str, tuple[str | None, str]] = {
        row.folder_id: (row.parent_id, row.name) for row in found
    }
    known: dict[str, str] = {}
    return {folder_id: _prefix(folder_id, above, known) for folder_id in folder_ids}


def _prefix(folder_id: str, above: dict[str, tuple[str | None, str]], known: dict[str, str]) -> str:
    """Walk up to a folder whose prefix is ``known``, the top, or one already passed: while a feed
    tells two moves one after the other, a folder may seem to lie inside itself."""
    passed: dict[str, None] = {}
    at: str | None = folder_id
    while at is not None and at in above and at not in known and at not in passed:
        passed[at] = None
        at = above[at][0]
    looped = at in passed
    prefix = known.get(at, "") if at is not None else ""
    for below in reversed(passed):
        parent_id, name = above[below]
        if parent_id is not None:
            prefix = f"{prefix}{name}/"
        if not looped:
            known[below] = prefix
    return prefix


def below(conn: Connection, endpoint_id: str, folder_ids: Collection[str]) -> list[str]:
    """``folder_ids``, known or not, and the ids of all folders known below them, sorted."""
    found = _ask(conn, _inside(conn.dialect.name), endpoint_id, folder_ids)
    return sorted({*folder_ids, *found.scalars()})


def misplaced(
    conn: Connection, endpoint_id: str, prefix_of: Mapping[str, str]
) -> tuple[Select[Any], Mapping[str, Any]]:
    """Live files directly in the folders of ``prefix_of`` whose path is not prefix + title: their
    id and right path. With the values it asks for."""
    asked = {
        "endpoint": endpoint_id,
        "ids": _sent(conn, prefix_of),
        "prefixes": dumps(dict(prefix_of)),
    }
    return _misplaced(conn.dialect.name), asked


@lru_cache
def _misplaced(dialect: str) -> Select[Any]:
    pairs = bindparam("prefixes", type_=Text)
    place = (
        func.json_each_text(pairs.op("::")(text("json")))
        if dialect == "postgresql"
        else func.json_each(pairs)
    ).table_valued("key", "value", name="place")
    path = type_coerce(place.c.value, Text).concat(files.c.title)
    wrong = (
        select(files.c.external_id, path.label("path"))
        .join_from(place, files, files.c.parent_id == place.c.key)
        .where(files.c.gone_at.is_(None), files.c.path != path)
    )
    # The database is to begin with the folders and look each up by its index.
    endpoint = bindparam("endpoint", type_=Text)
    if dialect == "postgresql":
        inside = _one_of(dialect, files.c.parent_id, bindparam("ids", type_=Text))
        return wrong.where(files.c.endpoint_id == endpoint, inside)
    return wrong.where(files.c.endpoint_id == func.coalesce(endpoint, place.c.key))
