"""The control plane, schema ``connectors``: instances, definitions and the mailbox of jobs.

What happens is written in ``supabase/migrations/*_connectors.sql``, one function for each thing to
do; here they are called, over whichever way the store goes. The SQLite mock has no control plane.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from file_connector.destination.base import Store
from file_connector.destination.tables import dumps
from file_connector.models import Json

if TYPE_CHECKING:  # each drags in its client library
    from file_connector.destination.postgres import PostgresStore
    from file_connector.destination.rest import RestStore

SCHEMA = "connectors"


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed job: one row of ``connectors.jobs``.

    Attributes:
        kind: ``sync``, ``sweep`` or ``window``.
        payload: for ``window``, the days ``from`` and ``to`` (default: the same day), UTC.
        attempts: how many claims there were, this one included.
        claim_token: the right to renew, complete and fail this claim.
    """

    id: int
    instance_id: str
    kind: str
    payload: Mapping[str, Json]
    attempts: int
    claim_token: str = field(repr=False)


class ControlPlane(ABC):
    """Every method raises what the store raises (TransientError, ConfigurationError)."""

    @abstractmethod
    def _call(self, function: str, rows: bool, arguments: Mapping[str, Json]) -> Json:
        """What ``connectors.<function>`` returns: a value, or with ``rows`` a list of objects."""

    def instances(self) -> Sequence[Mapping[str, Json]]:
        """All rows of ``connectors.instances``, column -> value, the oldest first."""
        rows: list[Mapping[str, Json]] = self._call("list_instances", False, {})
        return rows

    def define(self, definitions: Sequence[Mapping[str, Json]]) -> int:
        """Make ``connectors.definitions`` these rows; how many changed."""
        return int(self._call("define_connectors", False, {"definitions": list(definitions)}))

    def claim(
        self, worker: str, lease_seconds: int, limit: int, only: Sequence[str]
    ) -> Sequence[Job]:
        """Up to ``limit`` due jobs of the instances ``only``, in the order of asking; each is ours
        for ``lease_seconds``."""
        rows = self._call(
            "claim_connector_job",
            True,
            {
                "worker": worker,
                "lease_seconds": lease_seconds,
                "max_jobs": limit,
                "only_instances": list(only),
            },
        )
        return sorted(map(_job, rows), key=lambda job: job.id)

    def held(self, worker: str) -> Sequence[Job]:
        """What ``worker`` has claimed and neither completed nor failed, the oldest first."""
        return [_job(row) for row in self._call("held_connector_jobs", True, {"worker": worker})]

    def waiting(self, known: Sequence[str]) -> Sequence[str]:
        """Other instances than those ``known`` whose jobs are due and wait; at most twenty."""
        found: list[str] = self._call("waiting_connector_jobs", False, {"known": list(known)})
        return found

    def renew(self, job: Job, lease_seconds: int) -> bool:
        """The lease ends so long from now; False if the claim was lost."""
        return bool(
            self._call(
                "renew_connector_job", False, {**_claim(job), "lease_seconds": lease_seconds}
            )
        )

    def complete(self, job: Job, result: Mapping[str, Json]) -> bool:
        """False, changing nothing, if the claim was lost."""
        return bool(
            self._call("complete_connector_job", False, {**_claim(job), "result": dict(result)})
        )

    def fail(self, job: Job, reason: str, *, retry: bool) -> str | None:
        """``queued`` if it will be tried again, ``failed`` if not; None, changing nothing, if the
        claim was lost. ``reason`` holds no secret."""
        status: str | None = self._call(
            "fail_connector_job", False, {**_claim(job), "reason": reason, "retry": retry}
        )
        return status


class SqlControlPlane(ControlPlane):
    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def _call(self, function: str, rows: bool, arguments: Mapping[str, Json]) -> Json:
        given = ", ".join(f"{name} => {_placeholder(name)}" for name in arguments)
        wanted = "coalesce(jsonb_agg(to_jsonb(answer)), '[]')" if rows else "to_jsonb(answer)"
        asked = text(f"select {wanted} from {SCHEMA}.{function}({given}) as answer")
        values = {n: dumps(v) if n in _JSON_ARGUMENTS else v for n, v in arguments.items()}

        def work(conn: Connection) -> Json:
            return conn.execute(asked, values).scalar_one()

        return self._store._write(work)


class RestControlPlane(ControlPlane):
    """Needs ``connectors`` among the schemas that the REST API exposes."""

    def __init__(self, store: RestStore) -> None:
        self._store = store

    def _call(self, function: str, rows: bool, arguments: Mapping[str, Json]) -> Json:
        return self._store._calls.call(function, arguments, schema=SCHEMA)


def control_plane(store: Store) -> ControlPlane | None:
    """The control plane beside ``store``; None for the mock, which has none."""
    from file_connector.destination.postgres import PostgresStore
    from file_connector.destination.rest import RestStore

    if isinstance(store, PostgresStore):
        return SqlControlPlane(store)
    return RestControlPlane(store) if isinstance(store, RestStore) else None


_JSON_ARGUMENTS = frozenset({"definitions", "result"})


def _placeholder(name: str) -> str:
    return f"cast(:{name} as jsonb)" if name in _JSON_ARGUMENTS else f":{name}"


def _claim(job: Job) -> dict[str, Any]:
    return {"job_id": job.id, "claim_token": job.claim_token}


def _job(row: Mapping[str, Json]) -> Job:
    return Job(
        id=int(row["id"]),
        instance_id=str(row["instance_id"]),
        kind=str(row["kind"]),
        payload=row["payload"],
        attempts=int(row["attempts"]),
        claim_token=str(row["claim_token"]),
    )
