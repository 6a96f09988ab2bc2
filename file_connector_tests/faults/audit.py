"""A store that watches itself: after every commit the promises are checked on the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select

from file_connector.destination.sql_store import SqlStore
from file_connector.destination.tables import files, sync_runs
from file_connector.models import Commit, CommitResult, Identity


class Audited:
    """Forwards everything to ``store``; checks each commit, through ``witness``, which looks into
    the same database.

    ``trouble`` is called with the number of each commit, before (True) and after (False) it is
    handed to the store: it may raise, or kill the process.
    """

    def __init__(
        self,
        store: SqlStore,
        identity: Identity,
        witness: SqlStore,
        trouble: Callable[[int, bool], None] = lambda number, before: None,
    ) -> None:
        self._store = store
        self._identity = identity
        self._witness = witness
        self._trouble = trouble
        self.commits = 0
        self._last: dict[str, Any] | None = None
        self.cursors: list[Any] = []
        """Where the cursor has been, in this order."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, commit: Commit) -> CommitResult:
        self.commits += 1
        self._trouble(self.commits, True)
        before = self._last or self._snapshot()
        self._last = None
        result = self._store.commit(commit)
        after = self._last = self._snapshot()
        self._check(before, after, commit, result)
        self._trouble(self.commits, False)
        return result

    def _snapshot(self) -> dict[str, Any]:
        mine = files.c.endpoint_id == self._identity.endpoint_id
        with self._witness._engine.connect() as conn:
            rows = {
                row["external_id"]: dict(row)
                for row in conn.execute(select(files).where(mine)).mappings()
            }
            counts = conn.execute(
                select(
                    func.sum(sync_runs.c.inserted),
                    func.sum(sync_runs.c.updated),
                    func.sum(sync_runs.c.tombstoned),
                ).where(sync_runs.c.endpoint_id == self._identity.endpoint_id)
            ).one()
        state = self._witness.state(self._identity.endpoint_id)
        return {"rows": rows, "state": state, "counts": [int(c or 0) for c in counts]}

    def _check(
        self, before: dict[str, Any], after: dict[str, Any], commit: Commit, result: CommitResult
    ) -> None:
        was, now = before["rows"], after["rows"]
        assert after["state"].version == before["state"].version + 1, "state went by one version"
        assert was.keys() <= now.keys(), "no row is ever removed"
        new = now.keys() - was.keys()
        changed = {i for i in was if was[i]["change_seq"] != now[i]["change_seq"]}
        for i in was.keys() - changed:
            assert was[i] == now[i], f"{i} changed without a new change_seq"
        highest = max((r["change_seq"] for r in was.values()), default=0)
        fresh = [now[i]["change_seq"] for i in new | changed]
        assert all(seq > highest for seq in fresh), "change_seq rises"
        assert len(fresh) == len(set(fresh)), "change_seq is unique"
        dead = {i for i in changed if was[i]["gone_at"] is None and now[i]["gone_at"] is not None}
        delta = [a - b for a, b in zip(after["counts"], before["counts"], strict=True)]
        assert delta == [len(new), len(changed - dead), len(dead)], (
            "counts are the database's delta"
        )
        assert [result.inserted, result.updated, result.tombstoned] == delta
        for i, row in now.items():
            tenant = (row["source"], row["project_id"], row["user_id"])
            mine = (self._identity.source, self._identity.project_id, self._identity.user_id)
            assert tenant == mine, f"{i} belongs to somebody else"
            if i in was:
                assert row["first_seen_at"] == was[i]["first_seen_at"]
                if None not in (row["version"], was[i]["version"]):
                    assert row["version"] >= was[i]["version"], f"{i} went back to an older version"
        said = {r.external_id for r in commit.records} | {g.external_id for g in commit.gone}
        if not (commit.folders or commit.folders_gone):
            assert new | changed <= said, "a row changed that the commit did not mention"
        cursor = after["state"].cursor
        assert cursor == commit.state.cursor, "the cursor stored is that of the commit"
        if cursor is not None and self.cursors[-1:] != [cursor]:
            assert cursor not in self.cursors, "the cursor went back"
            self.cursors.append(cursor)
