"""The known folder tree (``sync_folders``): paths, subtrees, and rows that follow their folders.

All functions work inside a transaction of the caller and on one endpoint.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice

from sqlalchemy import (
    Connection,
    Subquery,
    Text,
    and_,
    column,
    func,
    select,
    values,
)

from file_connector.destination.rows import clean_json, clean_text
from file_connector.destination.tables import files, sync_folders
from file_connector.models import Folder

CHUNK = 500
"""Ids per statement; far below the limits on parameters."""


def chunks(items: Collection[str]) -> Iterator[list[str]]:
    rest = iter(items)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def clean_folder(folder: Folder) -> Folder:
    return Folder(
        clean_text(folder.folder_id),
        None if folder.parent_id is None else clean_text(folder.parent_id),
        clean_text(folder.name),
        clean_json(folder.state),
    )


def load(conn: Connection, endpoint_id: str, folder_ids: Collection[str]) -> dict[str, Folder]:
    """The known folders among ``folder_ids``."""
    found: dict[str, Folder] = {}
    for chunk in chunks(folder_ids):
        for row in conn.execute(
            select(sync_folders).where(
                sync_folders.c.endpoint_id == endpoint_id, sync_folders.c.folder_id.in_(chunk)
            )
        ):
            found[row.folder_id] = Folder(row.folder_id, row.parent_id, row.name, row.state)
    return found


def prefixes(conn: Connection, endpoint_id: str, folder_ids: Collection[str]) -> dict[str, str]:
    """What comes before a title in the paths of files inside each of ``folder_ids``: the names from
    below the start folder, each followed by "/". Empty for the start folder and unknown folders."""
    above: dict[str, tuple[str | None, str]] = {}
    for chunk in chunks(folder_ids):
        up = (
            select(sync_folders.c.folder_id, sync_folders.c.parent_id, sync_folders.c.name)
            .where(sync_folders.c.endpoint_id == endpoint_id, sync_folders.c.folder_id.in_(chunk))
            .cte("up", recursive=True)
        )
        up = up.union(
            select(sync_folders.c.folder_id, sync_folders.c.parent_id, sync_folders.c.name).where(
                sync_folders.c.endpoint_id == endpoint_id,
                sync_folders.c.folder_id == up.c.parent_id,
            )
        )
        for folder_id, parent_id, name in conn.execute(select(up)):
            above[folder_id] = (parent_id, name)
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
    found = set(folder_ids)
    for chunk in chunks(folder_ids):
        inside = (
            select(sync_folders.c.folder_id)
            .where(sync_folders.c.endpoint_id == endpoint_id, sync_folders.c.parent_id.in_(chunk))
            .cte("inside", recursive=True)
        )
        inside = inside.union(
            select(sync_folders.c.folder_id).where(
                sync_folders.c.endpoint_id == endpoint_id,
                sync_folders.c.parent_id == inside.c.folder_id,
            )
        )
        found.update(conn.scalars(select(inside.c.folder_id)))
    return sorted(found)


def misplaced(endpoint_id: str, prefix_of: dict[str, str], folder_ids: list[str]) -> Subquery:
    """Live files directly in ``folder_ids`` whose path is not prefix + title: their id, right path
    and number ``n`` (1, 2, ... in the order of ids)."""
    place = values(column("folder_id", Text), column("prefix", Text), name="place").data(
        [(folder_id, prefix_of[folder_id]) for folder_id in folder_ids]
    )
    where = place.cte("place")
    path = where.c.prefix.concat(files.c.title)
    return (
        select(
            files.c.external_id,
            path.label("path"),
            func.row_number().over(order_by=files.c.external_id).label("n"),
        )
        .join_from(files, where, files.c.parent_id == where.c.folder_id)
        .where(
            and_(
                files.c.endpoint_id == endpoint_id,
                files.c.parent_id.in_(folder_ids),  # says what the join says, and uses the index
                files.c.gone_at.is_(None),
                files.c.path != path,
            )
        )
        .subquery("misplaced")
    )
