"""A store in dictionaries, so that thousands of histories are cheap; and one that keeps both this
and a real one and compares them, so that the cheap one cannot drift away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from file_connector.destination.base import EndpointStatus
from file_connector.destination.sql_store import SqlStore
from file_connector.errors import ConflictError
from file_connector.models import (
    Batch,
    Commit,
    CommitResult,
    FileRecord,
    Identity,
    KnownFile,
    Mode,
    Outcome,
    SyncState,
)
from file_connector.times import iso
from file_connector_tests.connectors.memory import Memory
from file_connector_tests.histories.machine import Held, rows_of
from file_connector_tests.histories.stages import Seen


@dataclass
class _Endpoint:
    state: SyncState
    memory: Memory = field(default_factory=Memory)
    tenants: dict[str, tuple[str, str]] = field(default_factory=dict)
    holder: str | None = None
    status: EndpointStatus | None = None


class MemoryStore:
    """The part of ``Store`` a run needs. A lease ends at once: who begins a run has it."""

    def __init__(self) -> None:
        self._endpoints: dict[str, _Endpoint] = {}

    def forget(self, endpoint_id: str) -> None:
        self._endpoints.pop(endpoint_id, None)

    def _of(self, endpoint_id: str) -> _Endpoint:
        return self._endpoints.setdefault(endpoint_id, _Endpoint(SyncState(endpoint_id)))

    def held(self, endpoint_id: str) -> Held:
        endpoint = self._of(endpoint_id)
        memory = endpoint.memory
        assert set(endpoint.tenants.values()) <= {("tower-42", "ana")}
        return {i: (_seen(row), memory.gone.get(i)) for i, row in memory.rows.items()}

    # -- Store -----------------------------------------------------------------------------------
    def state(self, endpoint_id: str) -> SyncState:
        return self._of(endpoint_id).state

    def known(self, endpoint_id: str) -> Memory:
        return self._of(endpoint_id).memory

    def commit(self, commit: Commit) -> CommitResult:
        endpoint = self._of(commit.identity.endpoint_id)
        if endpoint.holder != commit.run_id or endpoint.state.version != commit.state.version:
            raise ConflictError(f"run {commit.run_id} may not write")
        memory = endpoint.memory
        if commit.forget_folders:
            memory.tree.clear()
        rows, gone = dict(memory.rows), dict(memory.gone)
        memory.apply(
            Batch(
                records=commit.records,
                gone=commit.gone,
                folders=commit.folders,
                folders_gone=commit.folders_gone,
                seen=commit.seen,
            ),
            commit.state.pass_no if commit.mark_seen else None,
        )
        identity = commit.identity
        endpoint.tenants.update(
            dict.fromkeys(
                (r.external_id for r in commit.records), (identity.project_id, identity.user_id)
            )
        )
        new = memory.rows.keys() - rows.keys()
        dead = memory.gone.keys() - gone.keys()
        written = {i for i in rows if memory.rows[i] is not rows[i]}
        endpoint.state = replace(commit.state, version=commit.state.version + 1)
        return CommitResult(
            endpoint.state,
            inserted=len(new),
            updated=len(written),
            unchanged=len(commit.records) - len(new) - len(written),
            tombstoned=len(dead),
            changed_ids=frozenset(new | dead | written),
        )

    def restamp(self, identity: Identity, run_id: str) -> int:
        raise AssertionError("the tenant of a history does not change")

    def unseen(
        self, endpoint_id: str, pass_no: int, after: str = "", limit: int = 1000
    ) -> Sequence[KnownFile]:
        missing = self._of(endpoint_id).memory.unseen(pass_no)
        return [f for f in missing if f.external_id > after][:limit]

    def unseen_count(self, endpoint_id: str, pass_no: int) -> int:
        return len(self._of(endpoint_id).memory.unseen(pass_no))

    def forget_seen(self, endpoint_id: str) -> None:
        self._of(endpoint_id).memory.seen.clear()

    def begin_run(self, identity: Identity, mode: Mode, run_id: str) -> None:
        self._of(identity.endpoint_id).holder = run_id

    def finish_run(
        self, run_id: str, outcome: Outcome, reason: str, api_calls: int, missed: int
    ) -> None:
        for endpoint in self._endpoints.values():
            if endpoint.holder == run_id:
                endpoint.holder = None

    def status(self, endpoint_id: str) -> EndpointStatus | None:
        return self._of(endpoint_id).status

    def note_success(self, identity: Identity, at: datetime) -> None:
        self._of(identity.endpoint_id).status = None

    def note_failure(
        self, identity: Identity, at: datetime, message: str, retry_at: datetime | None
    ) -> EndpointStatus:
        endpoint = self._of(identity.endpoint_id)
        status = endpoint.status or EndpointStatus(
            identity.endpoint_id, "", identity.source, identity.project_id, identity.user_id
        )
        endpoint.status = replace(status, failures=status.failures + 1, retry_at=retry_at)
        return endpoint.status


class TwinStore:
    """A real store; after each commit the one in dictionaries must hold the same."""

    def __init__(self, real: SqlStore) -> None:
        self._real = real
        self._double = MemoryStore()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def forget(self, endpoint_id: str) -> None:
        self._double.forget(endpoint_id)

    def held(self, endpoint_id: str) -> Held:
        return rows_of(self._real, endpoint_id)

    def begin_run(self, identity: Identity, mode: Mode, run_id: str) -> None:
        self._real.begin_run(identity, mode, run_id)
        self._double.begin_run(identity, mode, run_id)

    def commit(self, commit: Commit) -> CommitResult:
        endpoint_id = commit.identity.endpoint_id
        result, double = self._real.commit(commit), self._double.commit(commit)
        assert double.state == result.state
        assert double.inserted == result.inserted
        assert double.tombstoned == result.tombstoned
        assert double.changed_ids <= result.changed_ids, "a path may change besides"
        assert self._double.held(endpoint_id) == self.held(endpoint_id)
        ours, theirs = self._double.known(endpoint_id), self._real.known(endpoint_id)
        assert ours.tree == {f.folder_id: f for f in theirs.folders()}
        assert ours.files(ours.rows) == theirs.files(ours.rows)
        if commit.mark_seen:
            pass_no = commit.state.pass_no
            assert self._double.unseen(endpoint_id, pass_no) == self._real.unseen(
                endpoint_id, pass_no
            )
        return result

    def forget_seen(self, endpoint_id: str) -> None:
        self._real.forget_seen(endpoint_id)
        self._double.forget_seen(endpoint_id)


def _seen(row: FileRecord) -> Seen:
    return Seen(row.title, iso(row.updated_at), iso(row.created_at), row.size_bytes)
