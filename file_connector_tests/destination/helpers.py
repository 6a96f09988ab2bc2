"""Says in one line what a test wants stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from file_connector.destination.base import Store
from file_connector.models import Commit, CommitResult, Folder, Identity, Mode, SyncState
from file_connector_tests.builders import an_identity


class Writer:
    """A run of one endpoint that commits, keeping its state as the engine does."""

    def __init__(
        self,
        store: Store,
        identity: Identity | None = None,
        run_id: str = "run-1",
        *,
        begin: bool = True,
    ) -> None:
        self.store = store
        self.identity = identity or an_identity()
        self.run_id = run_id
        if begin:
            store.begin_run(self.identity, Mode.INCREMENTAL, run_id)
        self.state: SyncState = store.state(self.identity.endpoint_id)

    def commit(self, *records: Any, **parts: Any) -> CommitResult:
        """Commit ``records`` and other parts of a Commit; ``state`` fields go in ``moved``."""
        state = replace(self.state, **parts.pop("moved", {}))
        result = self.store.commit(
            Commit(
                self.identity,
                self.run_id,
                state,
                records=sorted(records, key=lambda r: r.external_id),
                **parts,
            )
        )
        self.state = result.state
        return result


def folders(*names: str) -> Sequence[Folder]:
    """ "a" is the start folder; "a/b" is folder b in a, named B."""
    found = []
    for name in names:
        *above, own = name.split("/")
        found.append(Folder(own, above[-1] if above else None, own.upper()))
    return found
