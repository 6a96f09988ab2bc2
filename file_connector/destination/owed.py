"""Changes of very many rows: first noted as owed, then settled in pieces.

A folder that is renamed or lost, or an entry that gets another tenant, may concern a million rows.
In one transaction they would keep all other writers from the change counter, and meet a limit of
time that no repetition gets past. So the transaction that finds more rows than a piece stores the
new tree (or the new tenant) and, in ``sync_state.owed``, which rows have to follow; those after it
change one piece each. Nothing else is stored for the endpoint before all is settled, by whoever
holds it then: killed in between, it ends as if it had been one transaction.

What is owed is a list of parts, settled in order, each one of

    {"moved": [folder, ...]}                            files in them get the paths they have now
    {"gone": [folder, ...], "reason": why}              live files in them get tombstones
    {"project_id": p, "user_id": u, "after": id}        rows of this tenant (null: of all), with ids
                                                        beyond, become the tenant's of the state
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, or_, select

from file_connector.destination import tree
from file_connector.destination.changing import NOTHING, change_rows, live
from file_connector.destination.tables import files
from file_connector.models import Commit, CommitResult, GoneReason, Identity, Json, SyncState

PIECE = 10_000
"""Rows in one transaction: half a second of one core, and a minute of a slow database."""

FOLDERS = 500
"""Folders in a part."""


def moved(folder_ids: Sequence[str]) -> list[Json]:
    return [{"moved": ids} for ids in _parts(folder_ids)]


def gone(folder_ids: Sequence[str], reason: GoneReason) -> list[Json]:
    return [{"gone": ids, "reason": reason.value} for ids in _parts(folder_ids)]


def tenant(state: SyncState) -> Json:
    return {"project_id": state.project_id, "user_id": state.user_id, "after": ""}


def _parts(folder_ids: Sequence[str]) -> list[Sequence[str]]:
    return [folder_ids[i : i + FOLDERS] for i in range(0, len(folder_ids), FOLDERS)]


def stamped_otherwise(state: SyncState, former: Json) -> Select[Any]:
    """Ids of rows of the tenant that the part ``former`` names, but not yet of the state's."""
    return (
        select(files.c.external_id)
        .where(
            files.c.endpoint_id == state.endpoint_id,
            files.c.external_id > former["after"],
            or_(files.c.project_id != state.project_id, files.c.user_id != state.user_id),
            files.c.project_id == func.coalesce(former["project_id"], files.c.project_id),
            files.c.user_id == func.coalesce(former["user_id"], files.c.user_id),
        )
        .order_by(files.c.external_id)
    )


def settle(
    conn: Connection, state: SyncState, owed: Sequence[Json], now: datetime, piece: int
) -> tuple[CommitResult, Sequence[Json]]:
    """Change the next rows, ``piece`` at most; what that did, and what is still owed then."""
    endpoint_id = state.endpoint_id
    part, *later = owed
    asked = NOTHING
    columns: Mapping[str, Any] = {}
    if "moved" in part:
        known = tree.load(conn, endpoint_id, part["moved"])
        prefix_of = tree.prefixes(conn, endpoint_id, known.keys())
        which, asked = tree.misplaced(conn, endpoint_id, prefix_of)
    elif "gone" in part:
        which = live(endpoint_id, tree.among(conn, files.c.parent_id, part["gone"]))
        columns = {"gone_at": now, "gone_reason": part["reason"]}
    else:
        which = stamped_otherwise(state, part)
        columns = {"project_id": state.project_id, "user_id": state.user_id}
    ids = change_rows(conn, endpoint_id, which.limit(piece), columns, now, asked) or ()
    if "after" in part and ids:
        part = {**part, "after": ids[-1]}
    done = CommitResult(
        state,
        updated=0 if "gone" in part else len(ids),
        tombstoned=len(ids) if "gone" in part else 0,
        changed_ids=frozenset(ids),
    )
    return done, later if len(ids) < piece else [part, *later]


def rest(commit: Commit, stopped: int) -> Commit:
    """What is left of a commit that stopped before it began (-1), after its folders (0), or after
    as many ``folders_gone``."""
    if stopped < 0:
        return commit
    commit = replace(commit, folders=(), forget_folders=False)
    if not stopped:
        return commit
    told = [record.external_id for record in commit.records]
    return replace(
        commit,
        records=(),
        seen=(*commit.seen, *told),
        folders_gone=commit.folders_gone[stopped:],
    )


def total(done: Sequence[CommitResult]) -> CommitResult:
    """What the transactions of one commit did, of which the last stored its state."""
    return replace(
        done[-1],
        inserted=sum(d.inserted for d in done),
        updated=sum(d.updated for d in done),
        unchanged=sum(d.unchanged for d in done),
        tombstoned=sum(d.tombstoned for d in done),
        changed_ids=frozenset().union(*(d.changed_ids for d in done)),
        refused={key: why for d in done for key, why in d.refused.items()},
    )


class InPieces(ABC):
    """What a store does transaction by transaction: those that store, and between them those that
    settle what is owed."""

    def commit(self, commit: Commit) -> CommitResult:
        result, left = self._apply(commit)
        done = [result]
        while left is not None:
            done += self._settle(commit.identity.endpoint_id, commit.run_id)
            result, left = self._apply(left)
            done.append(result)
        return total(done)

    def restamp(self, identity: Identity, run_id: str) -> int:
        while not self._change_tenant(identity, run_id):
            self._settle(identity.endpoint_id, run_id)
        return sum(result.updated for result in self._settle(identity.endpoint_id, run_id))

    def _settle(self, endpoint_id: str, run_id: str) -> Sequence[CommitResult]:
        """Change the rows that are owed; what each transaction did."""
        done: list[CommitResult] = []
        owes = True
        while owes:
            result, owes = self._settle_piece(endpoint_id, run_id)
            done.append(result)
        return done

    @abstractmethod
    def _apply(self, commit: Commit) -> tuple[CommitResult, Commit | None]:
        """``commit`` in one transaction, as far as it goes: what that did, and what is left of it
        if rows are owed."""

    @abstractmethod
    def _settle_piece(self, endpoint_id: str, run_id: str) -> tuple[CommitResult, bool]:
        """Change the next rows that are owed: what that did, and whether some are left."""

    @abstractmethod
    def _change_tenant(self, identity: Identity, run_id: str) -> bool:
        """Store the tenant in the state, and owe it its rows; False, changing nothing, if something
        is owed already."""
