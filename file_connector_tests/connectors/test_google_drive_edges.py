"""Answers of Drive that are rare and legal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from file_connector.destination.sqlite import SqliteStore
from file_connector.models import GoneReason, Identity, Outcome, RunReport
from file_connector.sandbox import ACCOUNT, faults
from file_connector.sync.run import SyncRun
from file_connector_tests.connectors.gdrive import Desk, a_desk


@pytest.fixture
def desk() -> Iterator[Desk]:
    with a_desk() as desk:
        yield desk


def test_s13_a_root_that_could_not_be_searched_completely_is_blind_not_misconfigured(
    desk: Desk,
) -> None:
    desk.drive.add_file("plan.pdf", desk.root)
    sync = desk.sync()
    sync.tick()
    fault = desk.sandbox.faults.add(faults.incomplete_search(), kind="drive.files.list", times=None)
    told = sync.sweep()
    assert fault.hits
    assert [b.folder_id for b in told.blind] == [desk.root]
    desk.sandbox.faults.clear()
    assert not sync.tick().blind
    desk.assert_true(sync)


@pytest.mark.parametrize("reason", [GoneReason.OUT_OF_SCOPE, GoneReason.TRASHED])
def test_s03_a_large_folder_that_left_while_nobody_read_the_feed_is_believed(
    desk: Desk, tmp_path: Path, reason: GoneReason
) -> None:
    """Only a complete listing lacks it, and Drive shows where the folder is now."""
    me = Identity("plans", "google_drive", "tower-42", "ana")
    large = desk.drive.add_folder("Large", desk.root)
    files = desk.drive.add_files(120, desk.drive.add_folder("below", large))

    with closing(SqliteStore(tmp_path / "supabase.db")) as store:

        def run() -> RunReport:
            with closing(desk.connector()) as connector:
                return SyncRun(me, connector, store).drain()

        run()
        if reason is GoneReason.TRASHED:
            desk.drive.trash(large)
        else:
            desk.drive.move(large, desk.drive.add_folder("Elsewhere", shared_with=[ACCOUNT]))
        desk.sandbox.faults.add(faults.google_error(410, "gone"), kind="drive.changes.list")
        report = run()
        assert (report.outcome, report.counts.tombstoned) == (Outcome.COMPLETE, len(files))
        assert {f.gone_reason for f in store.known(me.endpoint_id).files(files).values()} == {
            reason
        }


@pytest.mark.parametrize("thing", ["file", "folder"])
def test_s03_what_leaves_a_shared_drive_for_another_visible_place_is_out_of_scope(
    desk: Desk, thing: str
) -> None:
    drive = desk.drive.add_drive("Projects", members=[ACCOUNT])
    folder = desk.drive.add_folder("Plans", drive)
    file = desk.drive.add_file("plan.pdf", folder)
    elsewhere = desk.drive.add_folder("Elsewhere", shared_with=[ACCOUNT])
    sync = desk.sync(drive_id=drive)
    sync.tick()
    desk.drive.move(file if thing == "file" else folder, elsewhere)
    mark = desk.mark()
    sync.tick()
    assert sync.memory.gone[file] is GoneReason.OUT_OF_SCOPE
    assert desk.calls(since=mark) == 1


def test_s03_deleted_from_a_shared_drive_is_still_deleted(desk: Desk) -> None:
    drive = desk.drive.add_drive("Projects", members=[ACCOUNT])
    file = desk.drive.add_file("plan.pdf", drive)
    sync = desk.sync(drive_id=drive)
    sync.tick()
    desk.drive.delete(file)
    sync.tick()
    assert sync.memory.gone[file] is GoneReason.DELETED


def test_s15_an_item_without_a_parent_in_the_answer_to_several_is_found_by_asking_each(
    desk: Desk,
) -> None:
    folders = [desk.drive.add_folder(f"F{n}", desk.root) for n in range(3)]
    for folder in folders:
        desk.drive.add_file("plan.pdf", folder)

    def orphan(payload: Any) -> Any:
        for item in payload["files"]:
            item.pop("parents", None)
        return payload

    fault = desk.sandbox.faults.add(
        faults.mangle(orphan), kind="drive.files.list", path=" or ", times=None
    )
    sync = desk.sync()
    sync.tick()
    assert fault.hits
    desk.assert_true(sync)
