"""A program that is killed (SIGKILL) at every step of a commit, one process per step.

``python -m file_connector_tests.destination.killed HOME [URL]`` prints, per step, what is found
afterwards. The processes are forks of this small program, because a test runner has threads.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import event

from file_connector.destination.open import FILE_NAME
from file_connector.destination.postgres import PostgresStore
from file_connector.destination.sql_store import SqlStore
from file_connector.destination.sqlite import SqliteStore
from file_connector.models import Folder, FolderGone, Gone, GoneReason
from file_connector_tests.builders import a_file, an_identity
from file_connector_tests.destination.helpers import Writer, folders

MOST_STEPS = 60


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(store: SqlStore, step: int) -> None:
    """Die before the ``step``-th statement or COMMIT from now on."""
    left = step

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            die()

    event.listen(store._engine, "before_cursor_execute", count)
    event.listen(store._engine, "commit", count)


def prepare(store: SqlStore, endpoint_id: str) -> Writer:
    writer = Writer(store, an_identity(endpoint_id), f"run-{endpoint_id}")
    writer.commit(
        a_file("kept", parent_id="b"),
        a_file("leaving", parent_id="a"),
        a_file("inside", parent_id="c"),
        folders=folders("a", "a/b", "a/c"),
        moved={"cursor": "before"},
    )
    return writer


def big_commit(writer: Writer) -> None:
    writer.commit(
        *[a_file(f"new-{i}", parent_id="b") for i in range(20)],
        a_file("kept", title="renamed", parent_id="b"),
        folders=[Folder("b", "a", "NEW")],
        folders_gone=[FolderGone("c", GoneReason.OUT_OF_SCOPE)],
        gone=[Gone("leaving", GoneReason.TRASHED)],
        mark_seen=True,
        moved={"cursor": "after", "pass_no": 1},
    )


def finds(store: SqlStore, endpoint_id: str) -> dict[str, Any]:
    known = store.known(endpoint_id)
    rows = known.files(["kept", "leaving", "inside", *(f"new-{i}" for i in range(20))])
    folder = known.folder("b")
    return {
        "cursor": store.state(endpoint_id).cursor,
        "version": store.state(endpoint_id).version,
        "live": sorted(f.external_id for f in rows.values() if f.live),
        "kept": rows["kept"].title,
        "folder": folder.name if folder else None,
        "folders": len(list(known.folders())),
        "unseen": store.unseen_count(endpoint_id, 1),
        "inserted": store.runs(endpoint_id)[0].counts.inserted,
    }


def killed_at(store: SqlStore, step: int) -> bool:
    """Whether a process that commits dies at ``step``; False if it comes to its end before."""
    writer = prepare(store, f"step-{step}")
    store.close()  # no connection is carried over a fork
    pid = os.fork()
    if pid == 0:
        die_at(store, step)
        big_commit(writer)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def main(home: Path, url: str | None) -> None:
    store = PostgresStore(url) if url else SqliteStore(home / FILE_NAME)
    big_commit(prepare(store, "warm-up"))
    for step in range(MOST_STEPS):
        killed = killed_at(store, step)
        print(json.dumps(finds(store, f"step-{step}")), flush=True)  # noqa: T201
        if not killed:
            return
    raise AssertionError("the commit never came to its end")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
