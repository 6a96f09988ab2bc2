"""The audit itself: a store that keeps its promises passes. Each promise is broken on purpose in
docs/mutants.md, and then it is this test that fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from file_connector.destination.sqlite import SqliteStore
from file_connector.models import Commit, Folder, Gone, GoneReason, Mode
from file_connector_tests.builders import a_file, an_identity
from file_connector_tests.faults.audit import Audited

ME = an_identity()


def test_every_promise_holds_over_a_story_of_commits(tmp_path: Path) -> None:
    held = SqliteStore(tmp_path / "supabase.db")
    held.migrate()
    store = Audited(held, ME, held)
    store.begin_run(ME, Mode.INCREMENTAL, "run")
    folder = Folder("root", None, "Root")
    story: list[dict[str, Any]] = [
        {"records": [a_file("a"), a_file("b"), a_file("c")], "folders": [folder]},
        {"gone": [Gone("c", GoneReason.DELETED)]},
        {"records": [a_file("a", version=3), a_file("d")], "gone": [Gone("b", GoneReason.TRASHED)]},
        {"records": [a_file("a", version=2, title="older"), a_file("b"), a_file("c")]},
        {"folders": [replace(folder, name="Renamed")]},
        {},
    ]
    state = store.state(ME.endpoint_id)
    for n, parts in enumerate(story):
        state = store.commit(Commit(ME, "run", replace(state, cursor=f"t{n}"), **parts)).state
    assert store.commits == len(story)
    assert store.cursors == ["t0", "t1", "t2", "t3", "t4", "t5"]
    held.close()
