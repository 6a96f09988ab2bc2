"""kill -9 at every step of a commit: afterwards all of it is there, or nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest

from file_connector.errors import BusyError
from file_connector.models import Mode, Outcome
from file_connector_tests.builders import a_file, an_identity
from file_connector_tests.destination.conftest import Place
from file_connector_tests.destination.helpers import Writer

NEW = [f"new-{i}" for i in range(20)]
BEFORE: dict[str, Any] = {
    "cursor": "before",
    "version": 1,
    "live": ["inside", "kept", "leaving"],
    "kept": "kept.pdf",
    "folder": "B",
    "folders": 3,
    "unseen": 3,
    "inserted": 3,
}
AFTER: dict[str, Any] = {
    "cursor": "after",
    "version": 2,
    "live": sorted(["kept", *NEW]),
    "kept": "renamed",
    "folder": "NEW",
    "folders": 2,
    "unseen": 0,
    "inserted": 23,
}


def run_killed(place: Place) -> list[dict[str, Any]]:
    place.open().migrate()
    place.opened.pop().close()
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "file_connector_tests.destination.killed", str(place.home)),
            *([place.url] if place.url else []),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("place", ["sqlite", "postgres_18"], indirect=True)
def test_s17_killed_at_every_step_of_a_commit(place: Place) -> None:
    found = run_killed(place)
    assert len(found) > 12
    *killed, ended = found
    assert killed == [BEFORE] * len(killed)
    assert ended == AFTER
    if place.url is None:
        with closing(sqlite3.connect(place.home / "supabase.db")) as file:
            assert file.execute("pragma integrity_check").fetchone() == ("ok",)
    counter = place.counter()
    assert counter == place.query("select max(change_seq) as m from files")[0]["m"]

    # The next run takes the endpoint over and closes the one that died.
    later = place.open(lease_seconds=0.0)
    if place.url is not None:  # the mock sees a death at once
        with pytest.raises(BusyError):
            later.begin_run(an_identity("step-3"), Mode.INCREMENTAL, "next")
        with later._engine.begin() as conn:
            conn.exec_driver_sql("delete from sync_leases")
    writer = Writer(later, an_identity("step-3"), "next")
    dead = later.runs("step-3")[1]
    assert (dead.outcome, dead.counts.inserted) == (Outcome.FAILED, 3)
    assert dead.reason.startswith("lost: ")
    assert writer.commit(a_file("new-1", parent_id="b")).inserted == 1
