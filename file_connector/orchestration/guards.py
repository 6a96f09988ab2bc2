"""Stand-ins for a connector where the real one could hurt: one that could not be opened, and one
whose quick questions must be answered within a deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from file_connector.connectors.base import Connector, Known
from file_connector.deadline import within
from file_connector.errors import FileConnectorError, TransientError
from file_connector.models import Batch, Json, KnownFile, Probe, SyncState

T = TypeVar("T")


class Unopened:
    """A connector that could not be opened; raises why on the first question. So a missing secret
    takes the same way through ticks, runs, back-off and the table of runs as a dead provider."""

    api_calls = 0

    def __init__(self, error: FileConnectorError, state: SyncState) -> None:
        self._error = error
        self.scope = state.scope or ""
        self.principal = state.principal or ""

    def check(self) -> Sequence[str]:
        raise self._error

    def probe(self, cursor: Json, known: Known) -> Probe:
        raise self._error

    def changes(self, cursor: Json, known: Known) -> Iterator[Batch]:
        raise self._error

    def sweep(self, known: Known, progress: Json | None, pass_no: int) -> Iterator[Batch]:
        raise self._error

    def window(self, start: datetime, end: datetime, known: Known) -> Iterator[Batch]:
        raise self._error

    def resolve(self, missing: Sequence[KnownFile], known: Known) -> Iterator[Batch]:
        raise self._error

    def close(self) -> None:
        return None


class Hurried:
    """A connector whose ``check`` and ``probe`` raise TransientError when the answer takes too
    long. The connector is then closed when the late answer comes."""

    def __init__(self, connector: Connector, deadline_seconds: float) -> None:
        self._connector = connector
        self._deadline = deadline_seconds
        self._late = False

    @property
    def scope(self) -> str:
        return self._connector.scope

    @property
    def principal(self) -> str:
        return self._connector.principal

    @property
    def api_calls(self) -> int:
        return self._connector.api_calls

    def check(self) -> Sequence[str]:
        return self._within(self._connector.check)

    def probe(self, cursor: Json, known: Known) -> Probe:
        return self._within(lambda: self._connector.probe(cursor, known))

    def changes(self, cursor: Json, known: Known) -> Iterator[Batch]:
        return self._connector.changes(cursor, known)

    def sweep(self, known: Known, progress: Json | None, pass_no: int) -> Iterator[Batch]:
        return self._connector.sweep(known, progress, pass_no)

    def window(self, start: datetime, end: datetime, known: Known) -> Iterator[Batch]:
        return self._connector.window(start, end, known)

    def resolve(self, missing: Sequence[KnownFile], known: Known) -> Iterator[Batch]:
        return self._connector.resolve(missing, known)

    def close(self) -> None:
        if not self._late:
            self._connector.close()

    def _within(self, question: Callable[[], T]) -> T:
        too_late = TransientError(
            f"the provider did not answer within {self._deadline:g} s.",
            remedy="The next tick tries again.",
        )
        try:
            return within(self._deadline, question, too_late, self._connector.close)
        except TransientError as error:
            self._late = error is too_late
            raise
