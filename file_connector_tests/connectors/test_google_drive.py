"""Google Drive: what is found, what is called gone, and what it costs. Everything over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from file_connector.connectors.google_drive.connector import GoogleDriveConnector
from file_connector.errors import ConfigurationError
from file_connector.models import Batch, Folder, GoneReason
from file_connector.sandbox import ACCOUNT, DOCUMENT, OWNER, SHORTCUT, SPREADSHEET, faults
from file_connector_tests.connectors.gdrive import OLD, Desk, a_desk, folder_state
from file_connector_tests.connectors.memory import Killed, Sync


@pytest.fixture
def desk() -> Iterator[Desk]:
    with a_desk() as desk:
        yield desk


@pytest.fixture
def synced(desk: Desk) -> Sync:
    """An endpoint after its first sync of Watched / A / B / deep.pdf, Watched / top.pdf."""
    desk.a = desk.drive.add_folder("A", desk.root)
    desk.b = desk.drive.add_folder("B", desk.a)
    desk.top = desk.drive.add_file("top.pdf", desk.root)
    desk.deep = desk.drive.add_file("deep.pdf", desk.b)
    sync = desk.sync()
    sync.tick()
    desk.assert_true(sync)
    return sync


# -- discovery -----------------------------------------------------------------------------------
def test_s01_backdated_upload(desk: Desk, synced: Sync) -> None:
    desk.drive.add_file("late.pdf", desk.a, modified=OLD)
    desk.drive.add_file("later.pdf", desk.a, modified=OLD, created=OLD)
    assert desk.probe(synced).changed
    synced.tick()
    assert "late.pdf" in synced.memory.titles
    desk.assert_true(synced)


def test_s02_move_in(desk: Desk, synced: Sync) -> None:
    outside = desk.drive.add_folder("Outside")
    file = desk.drive.add_file("old.pdf", outside, modified=OLD, created=OLD)
    synced.tick()
    assert file not in synced.memory.rows
    desk.drive.move(file, desk.b)
    synced.tick()
    desk.assert_true(synced)


def test_s02_move_in_of_a_folder_brings_everything_below(desk: Desk, synced: Sync) -> None:
    outside = desk.drive.add_folder("Outside")
    top = desk.drive.add_folder("N", outside)
    middle = desk.drive.add_folder("M", top)
    for folder in (top, middle, desk.drive.add_folder("Empty", middle)):
        desk.drive.add_file("old.pdf", folder, modified=OLD, created=OLD)
    synced.tick()
    desk.drive.move(top, desk.a)
    assert desk.probe(synced).changed
    synced.tick()
    assert len(synced.memory.live) == 5
    desk.assert_true(synced)


def test_s02_folders_of_one_page_find_each_other_in_any_order(desk: Desk, synced: Sync) -> None:
    outer = desk.drive.add_folder("Outer", desk.root)
    inner = desk.drive.add_folder("Inner", outer)
    desk.drive.add_file("in.pdf", inner)
    desk.drive.rename(outer, "Outer, renamed last")
    synced.tick()
    desk.assert_true(synced)


def test_s03_move_out(desk: Desk, synced: Sync) -> None:
    outside = desk.drive.add_folder("Outside", shared_with=[ACCOUNT])
    desk.drive.move(desk.top, outside)
    assert desk.probe(synced).changed
    synced.tick()
    assert synced.memory.gone == {desk.top: GoneReason.OUT_OF_SCOPE}


def test_s03_a_folder_that_leaves_takes_everything_along(desk: Desk, synced: Sync) -> None:
    outside = desk.drive.add_folder("Outside", shared_with=[ACCOUNT])
    desk.drive.move(desk.a, outside)
    synced.tick()
    assert synced.memory.gone == {desk.deep: GoneReason.OUT_OF_SCOPE}
    assert synced.memory.folder(desk.b) is None
    desk.drive.edit(desk.deep)
    assert not desk.probe(synced).changed, "what left is not ours any more"
    desk.assert_true(synced)


def test_s03_a_file_that_left_with_its_folder_and_came_back_alone(desk: Desk, synced: Sync) -> None:
    outside = desk.drive.add_folder("Outside", shared_with=[ACCOUNT])
    desk.drive.move(desk.a, outside)
    desk.drive.move(desk.deep, desk.root)
    synced.tick()
    desk.assert_true(synced)


def test_s03_subfolder_saved_from_a_leaving_folder(desk: Desk, synced: Sync) -> None:
    outside = desk.drive.add_folder("Outside", shared_with=[ACCOUNT])
    desk.drive.move(desk.b, desk.root)
    desk.drive.move(desk.a, outside)
    synced.tick()
    assert not synced.memory.gone
    desk.assert_true(synced)


def test_s04_newly_shared_folder_and_file(desk: Desk, synced: Sync) -> None:
    """Old things move from where we see nothing; only the share and the move are news."""
    private = desk.drive.add_folder("Private")
    folder = desk.drive.add_folder("Old", private)
    desk.drive.add_file("old.pdf", folder, modified=OLD, created=OLD)
    desk.drive.share(folder, ACCOUNT)
    synced.tick()
    assert len(synced.memory.live) == 2, "shared, but not below the root"
    desk.drive.move(folder, desk.root)
    synced.tick()
    desk.assert_true(synced)


def test_s04_what_the_feed_does_not_tell_is_found_by_the_sweep(desk: Desk, synced: Sync) -> None:
    with desk.drive.unlogged():
        folder = desk.drive.add_folder("Silent", desk.b)
        desk.drive.add_file("silent.pdf", folder, modified=OLD, created=OLD)
        desk.drive.trash(desk.top)
    assert not desk.probe(synced).changed
    synced.sweep()
    assert synced.memory.gone == {desk.top: GoneReason.TRASHED}
    desk.assert_true(synced)


def test_s05_restore(desk: Desk, synced: Sync) -> None:
    before = synced.memory.rows[desk.deep]
    desk.drive.trash(desk.deep)
    synced.tick()
    assert synced.memory.gone == {desk.deep: GoneReason.TRASHED}
    desk.drive.restore(desk.deep)
    assert desk.probe(synced).changed
    synced.tick()
    assert not synced.memory.gone
    assert synced.memory.rows[desk.deep].updated_at == before.updated_at


def test_s05_a_restored_folder_brings_everything_back(desk: Desk, synced: Sync) -> None:
    desk.drive.trash(desk.a)
    synced.tick()
    assert synced.memory.gone == {desk.deep: GoneReason.TRASHED}
    desk.drive.restore(desk.a)
    synced.tick()
    assert not synced.memory.gone
    desk.assert_true(synced)


def test_s06_nested_edit(desk: Desk, synced: Sync) -> None:
    desk.drive.edit(desk.deep)
    told = synced.tick()
    assert told.writes == 1
    desk.assert_true(synced)


def test_s07_rename_only(desk: Desk, synced: Sync) -> None:
    desk.drive.rename(desk.deep, "new name.pdf")
    assert desk.probe(synced).changed
    assert synced.tick().writes == 1
    desk.assert_true(synced)


def test_s07_renamed_and_moved_folders_cost_one_call(desk: Desk, synced: Sync) -> None:
    desk.drive.rename(desk.a, "A anew")
    mark = desk.mark()
    synced.tick()
    assert desk.calls(since=mark) == 1
    desk.drive.move(desk.b, desk.root)
    mark = desk.mark()
    synced.tick()
    assert desk.calls(since=mark) == 1
    assert synced.memory.path(desk.deep) == "/B/deep.pdf"


def test_s07_two_folders_change_places(desk: Desk, synced: Sync) -> None:
    """B moves up, A moves below B: whatever the order of the entries, no cycle stays."""
    desk.drive.move(desk.b, desk.root)
    desk.drive.move(desk.a, desk.b)
    desk.drive.add_file("in a.pdf", desk.a)
    synced.tick()
    desk.assert_true(synced)
    assert synced.memory.path(desk.deep) == "/B/deep.pdf"


def test_s07_two_folders_change_places_and_the_feed_tells_it_page_by_page(
    desk: Desk, synced: Sync
) -> None:
    """The entry that resolves the cycle comes one page later: Drive is asked, no row flickers."""

    def look(_: Batch) -> None:
        assert not synced.memory.gone

    synced.after_batch = look
    desk.drive.move(desk.b, desk.root)
    desk.drive.move(desk.a, desk.b)
    desk.drive.add_files(1000, desk.a)
    desk.drive.rename(desk.b, "B, told last")
    synced.tick()
    desk.assert_true(synced)


def test_s08_time_goes_backwards(desk: Desk, synced: Sync) -> None:
    desk.drive.edit(desk.deep, modified="2011-11-11T11:11:11.111Z")
    synced.tick()
    desk.assert_true(synced)


def test_s09_twins(desk: Desk, synced: Sync) -> None:
    for _ in range(2):
        desk.drive.add_file("twin.pdf", desk.a, modified=OLD, created=OLD)
    synced.tick()
    assert synced.memory.titles.count("twin.pdf") == 2


def test_s10_same_instant_and_a_kill(desk: Desk) -> None:
    desk.drive.add_files(5000, desk.root, modified=OLD)
    sync = desk.sync()
    killed_after(sync, 3)
    assert 0 < len(sync.memory.live) < 5000
    mark = desk.mark()
    resumed = desk.again(sync)
    resumed.tick()
    desk.assert_true(resumed)
    assert len(resumed.memory.live) == 5000
    assert resumed.memory.writes == 5000, "every file once"
    assert desk.calls("drive.files.list", since=mark) <= 4, "it goes on where it stopped"


def test_s11_shortcuts(desk: Desk, synced: Sync) -> None:
    outside = desk.drive.add_file("elsewhere.pdf", desk.drive.add_folder("Outside"))
    targets = [desk.deep, outside, desk.root, "1missing"]
    made = [desk.drive.add_shortcut(f"to {n}", t, desk.b) for n, t in enumerate(targets)]
    synced.tick()
    synced.sweep()
    desk.assert_true(synced)
    for shortcut, target in zip(made, targets, strict=True):
        row = synced.memory.rows[shortcut]
        assert row.mime_type == SHORTCUT
        assert row.raw["shortcutDetails"]["targetId"] == target
    assert len(synced.memory.live) == 6


def test_s12_shared_drive_as_a_whole_and_by_its_folders(desk: Desk) -> None:
    drive = desk.drive.add_drive("Drive", members=[ACCOUNT])
    folders = [desk.drive.add_folder(f"F{n}", drive) for n in range(35)]
    for n, folder in enumerate(folders):
        desk.drive.add_files(30 + n, folder)
        desk.drive.add_files(2, desk.drive.add_folder("below", folder))
    desk.drive.add_files(7, drive)
    whole = desk.sync(drive_id=drive)
    mark = desk.mark()
    whole.tick()
    truth = desk.drive.truth(drive, ACCOUNT)
    assert whole.memory.live == set(truth)
    pages = -(-len(truth) // 1000)
    assert desk.calls("drive.files.list", since=mark) <= pages + 1
    parts: set[str] = set()
    for folder in folders:
        part = desk.sync(folder_id=folder)
        part.tick()
        assert not parts & part.memory.live
        parts |= part.memory.live
    direct = desk.sync(folder_id=drive, recursive=False)
    direct.tick()
    assert len(direct.memory.live) == 7
    assert parts | direct.memory.live == whole.memory.live
    assert desk.sync(folder_id=drive).connector.scope == whole.connector.scope


def test_s12_a_shared_drive_lives(desk: Desk) -> None:
    drive = desk.drive.add_drive("Drive", members=[ACCOUNT])
    a = desk.drive.add_folder("A", drive)
    b = desk.drive.add_folder("B", a)
    files = desk.drive.add_files(5, b)
    sync = desk.sync(drive_id=drive)
    sync.tick()
    desk.assert_true(sync, drive)
    assert sync.cursor
    assert sync.cursor["drive_id"] == drive, "the drive's own log"
    desk.drive.trash(a)
    desk.drive.add_file("new.pdf", drive, modified=OLD)
    assert desk.probe(sync).changed
    sync.tick()
    assert {sync.memory.gone[f] for f in files} == {GoneReason.TRASHED}
    desk.drive.restore(a)
    desk.drive.move(b, drive)
    desk.drive.rename(b, "B anew")
    sync.tick()
    desk.assert_true(sync, drive)
    elsewhere = desk.drive.add_folder("Elsewhere")
    desk.drive.move(files[0], elsewhere)
    sync.tick()
    sync.sweep()
    desk.assert_true(sync, drive)


def test_s12_a_drive_that_does_not_show_its_top_folder(desk: Desk) -> None:
    drive = desk.drive.add_drive("Drive", members=[ACCOUNT])
    desk.drive.add_file("a.pdf", desk.drive.add_folder("F", drive))
    desk.sandbox.faults.add(
        faults.google_error(404, "notFound"), path=f"/files/{drive}", times=None
    )
    sync = desk.sync(drive_id=drive)
    assert sync.connector.check()
    sync.tick()
    desk.assert_true(sync, drive)


def test_s12_a_folder_of_a_shared_drive_without_membership(desk: Desk) -> None:
    """Only the folder is shared with us: the drive's own log is refused, the user's is read."""
    drive = desk.drive.add_drive("Drive", members=[OWNER])
    folder = desk.drive.add_folder("F", drive, shared_with=[ACCOUNT])
    desk.drive.add_file("a.pdf", folder)
    sync = desk.sync(folder_id=folder)
    told = sync.tick()
    assert "no member of shared drive" in told.notes[0]
    desk.assert_true(sync, folder)
    desk.drive.add_file("b.pdf", folder)
    sync.tick()
    sync.sweep()
    desk.assert_true(sync, folder)


def test_s13_incomplete_search_is_asked_again_folder_by_folder(desk: Desk, synced: Sync) -> None:
    several = r"parents or"
    desk.drive.add_folder("C", desk.root)
    desk.sandbox.faults.add(faults.incomplete_search(), path=several, times=None)
    told = synced.sweep()
    assert not told.blind
    desk.assert_true(synced)


def test_s13_what_stays_incomplete_is_named_and_nothing_there_is_gone(
    desk: Desk, synced: Sync
) -> None:
    desk.sandbox.faults.add(faults.incomplete_search(), path=f"'{desk.b}' in parents", times=None)
    desk.sandbox.faults.add(faults.drop([desk.deep]), kind="drive.files.list", times=None)
    told = synced.sweep()
    assert [(b.folder_id, b.name) for b in told.blind] == [(desk.b, "B")]
    assert not synced.memory.gone
    desk.sandbox.faults.clear()
    told = synced.tick()
    assert not told.blind, "tried again by the next run"
    desk.assert_true(synced)


def test_s13_incomplete_whole_drive_is_walked(desk: Desk) -> None:
    drive = desk.drive.add_drive("Drive", members=[ACCOUNT])
    folder = desk.drive.add_folder("F", drive)
    files = desk.drive.add_files(1200, folder)
    lists: Any = {"path": "mimeType !=", "kind": "drive.files.list", "nth": 2, "times": None}
    desk.sandbox.faults.add(faults.incomplete_search(), **lists)
    desk.sandbox.faults.add(faults.drop(files), **lists)
    sync = desk.sync(drive_id=drive)
    told = sync.tick()
    assert not told.blind
    desk.assert_true(sync, drive)


def test_s14_flaky_listing(desk: Desk) -> None:
    files = desk.drive.add_files(126, desk.root)
    sync = desk.sync()
    sync.tick()
    flaky = desk.sandbox.faults.add(faults.drop(files[:26]), kind="drive.files.list", times=None)
    sync.sweep()
    assert len(sync.memory.live) == 126
    assert not sync.memory.gone
    desk.sandbox.faults.remove(flaky)
    sync.sweep()
    assert len(sync.memory.live) == 126
    assert sync.memory.writes == 126


def test_s14_a_folder_missing_from_a_listing_is_listed_after_all(desk: Desk, synced: Sync) -> None:
    with desk.drive.unlogged():
        desk.drive.add_file("silent.pdf", desk.b)
    desk.sandbox.faults.add(faults.drop([desk.a]), kind="drive.files.list", times=None)
    synced.sweep()
    desk.assert_true(synced)


def test_s15_multi_parent_query_that_wrongly_finds_nothing(desk: Desk) -> None:
    for n in range(8):
        desk.drive.add_file(f"{n}.pdf", desk.drive.add_folder(f"F{n}", desk.root))
    desk.sandbox.faults.add(faults.empty_multi_parent(), times=None)
    sync = desk.sync()
    sync.tick()
    assert len(sync.memory.live) == 8
    desk.assert_true(sync)


def test_s15_multi_parent_query_that_leaves_some_parents_out(desk: Desk) -> None:
    folders = [desk.drive.add_folder(f"F{n}", desk.root) for n in range(8)]
    lost = [desk.drive.add_file("lost.pdf", folder) for folder in folders[:3]]
    desk.drive.add_file("found.pdf", folders[5])
    desk.sandbox.faults.add(faults.drop(lost), path="parents or", times=None)
    sync = desk.sync()
    sync.tick()
    desk.assert_true(sync)


# -- cursor and crash ----------------------------------------------------------------------------
def test_s16_the_token_is_older_than_the_listing(desk: Desk) -> None:
    """The root is listed; while A is, a file appears in the root."""
    desk.drive.add_folder("A", desk.root)
    desk.sandbox.faults.add(
        faults.before(lambda: desk.drive.add_file("meanwhile.pdf", desk.root, modified=OLD)),
        kind="drive.files.list",
        nth=2,
    )
    sync = desk.sync()
    sync.tick()
    assert sync.memory.titles == ["meanwhile.pdf"]
    desk.assert_true(sync)


@pytest.mark.parametrize("after", [False, True])
def test_s17_kill_at_every_commit(desk: Desk, after: bool) -> None:
    for n in range(4):
        folder = desk.drive.add_folder(f"F{n}", desk.root)
        desk.drive.add_files(700, folder)
    sync = desk.sync()
    for batch in range(1, 4):  # without progress a run could never get beyond its first batch
        kill_at(sync, batch if not after else 1, after=after)
        with pytest.raises(Killed):
            sync.tick()
        sync = desk.again(sync)
    sync.tick()
    desk.assert_true(sync)
    assert sync.memory.writes == 2800, "no file is written twice"


def test_s17_no_cursor_is_stored_before_what_it_stands_for(desk: Desk, synced: Sync) -> None:
    """At every commit, everything older than the cursor is in the rows."""
    outside = desk.drive.add_folder("Outside")
    for n in range(2):
        folder = desk.drive.add_folder(f"N{n}", outside)
        desk.drive.add_files(1200, folder, modified=OLD)
        desk.drive.add_file("nested.pdf", desk.drive.add_folder("below", folder))
        desk.drive.move(folder, desk.a)
    cursors = []

    def look(batch: Batch) -> None:
        if batch.cursor is not None:
            cursors.append(batch.cursor)
            desk.assert_true(synced)

    synced.after_batch = look
    synced.tick()
    assert cursors


@pytest.mark.parametrize("at", range(1, 9))
def test_s17_a_change_run_that_dies_is_repeated_whole(desk: Desk, synced: Sync, at: int) -> None:
    """A folder with a deep tree moves in; whatever request fails, the next run finds all."""
    outside = desk.drive.add_folder("Outside")
    top = folder = desk.drive.add_folder("N", outside)
    for n in range(3):
        desk.drive.add_file(f"{n}.pdf", folder, modified=OLD)
        folder = desk.drive.add_folder(f"N{n}", folder)
    synced.tick()
    desk.drive.move(top, desk.root)
    desk.drive.edit(desk.deep)
    desk.sandbox.faults.add(faults.status(503), kind="*", nth=at, times=None)
    broken = Sync(
        desk.connector(toolbox=desk.toolbox(budget=0)),
        synced.memory,
        synced.cursor,
        None,
        synced.pass_no,
    )
    if at <= 5:
        with pytest.raises(Exception, match="503"):
            broken.tick()
    desk.sandbox.faults.clear()
    resumed = desk.again(broken)
    resumed.tick()
    desk.assert_true(resumed)


def test_s17_a_probe_after_a_kill_says_that_there_is_more(desk: Desk, synced: Sync) -> None:
    """What the feed tells is stored; what it calls for is not: the probe must not pass over it."""
    outside = desk.drive.add_folder("Outside")
    top = desk.drive.add_folder("N", outside)
    desk.drive.add_files(1100, top)
    desk.drive.add_file("deep.pdf", desk.drive.add_folder("below", top))
    desk.drive.move(top, desk.root)
    for batches in (1, 2):
        killed_after(synced, batches)
        assert desk.probe(synced).changed
    desk.again(synced).tick()
    desk.assert_true(synced)
    assert not desk.probe(synced).changed


def test_s17_a_walk_that_was_stored_in_part_goes_on(desk: Desk, synced: Sync) -> None:
    """Killed between the batches of a walk: what waits in the tree is listed by the next run."""
    outside = desk.drive.add_folder("Outside")
    top = desk.drive.add_folder("N", outside)
    desk.drive.add_files(1100, top)
    below = desk.drive.add_folder("below", top)
    desk.drive.add_files(1100, below)
    desk.drive.move(top, desk.root)
    kill_at(synced, 3, after=True)
    with pytest.raises(Killed):
        synced.tick()
    assert folder_state(synced.memory, below) != {}
    resumed = desk.again(synced)
    resumed.tick()
    desk.assert_true(resumed)


@pytest.mark.parametrize("code", [400, 404, 410])
def test_s18_change_token_rejected(desk: Desk, synced: Sync, code: int) -> None:
    desk.drive.add_file("meanwhile.pdf", desk.b, modified=OLD)
    desk.sandbox.faults.add(faults.reject_change_token(code), kind="drive.changes.list", times=1)
    assert desk.probe(synced).changed
    desk.sandbox.faults.add(faults.reject_change_token(code), kind="drive.changes.list", times=1)
    told = synced.tick()
    assert any("re-baselined" in note for note in told.notes)
    desk.assert_true(synced)


def test_s19_list_page_token_rejected(desk: Desk) -> None:
    desk.drive.page_cap = 100
    desk.drive.add_files(850, desk.root)
    desk.sandbox.faults.add(faults.reject_page_token(), path="pageToken=", nth=7)
    sync = desk.sync()
    sync.tick()
    desk.assert_true(sync)
    assert desk.calls("drive.files.list") == 8 + 9, "the eighth page is refused, then all anew"


def test_s19_a_stored_page_token_that_has_died(desk: Desk) -> None:
    desk.drive.add_files(4000, desk.root)
    sync = desk.sync()
    killed_after(sync, 3)
    assert sync.progress
    assert sync.progress["at"]["page"]
    desk.sandbox.drive_api.forget_pages()
    resumed = desk.again(sync)
    resumed.tick()
    desk.assert_true(resumed)


def test_s19_a_page_token_is_never_used_with_another_query(desk: Desk) -> None:
    for n in range(3):
        desk.drive.add_files(900, desk.drive.add_folder(f"F{n}", desk.root))
    sync = desk.sync()
    killed_after(sync, 3)
    assert sync.progress
    sync.progress["at"]["query"]["q"] = "something else"
    sync.connector.close()
    mark = desk.mark()
    resumed = desk.again(sync)
    resumed.tick()
    first = desk.sandbox.log.calls("drive.files.list", since=mark)[0]
    assert not first.get("pageToken")
    desk.assert_true(resumed)


def test_s19_a_page_token_given_twice_ends(desk: Desk) -> None:
    desk.drive.add_files(3000, desk.root)
    first: list[str] = []

    def same(payload: dict[str, object]) -> dict[str, object]:
        if "nextPageToken" in payload:
            first.append(str(payload["nextPageToken"]))
            payload["nextPageToken"] = first[0]
        return payload

    desk.sandbox.faults.add(faults.mangle(same), kind="drive.files.list", times=None)
    with pytest.raises(Exception, match="same page token twice"):
        desk.sync().tick()


def test_s20_forbidden_subfolder(desk: Desk, synced: Sync) -> None:
    desk.drive.add_folder("C", desk.root)
    desk.drive.forbid(desk.a, ACCOUNT)
    told = synced.sweep()
    assert [(b.folder_id, b.name) for b in told.blind] == [(desk.a, "A")]
    assert not synced.memory.gone
    desk.drive.add_file("new.pdf", desk.root)
    told = synced.tick()
    assert [b.folder_id for b in told.blind] == [desk.a], "as long as it lasts"
    desk.drive.allow(desk.a, ACCOUNT)
    told = synced.tick()
    assert not told.blind
    desk.assert_true(synced)


def test_s20_forbidden_from_the_first_sync_on(desk: Desk) -> None:
    hidden = desk.drive.add_folder("Hidden", desk.root)
    desk.drive.add_file("seen.pdf", desk.root)
    desk.drive.add_file("unseen.pdf", desk.drive.add_folder("below", hidden))
    desk.drive.forbid(hidden, ACCOUNT)
    sync = desk.sync()
    told = sync.tick()
    assert [b.name for b in told.blind] == ["Hidden"]
    assert sync.memory.titles == ["seen.pdf"]
    desk.drive.allow(hidden, ACCOUNT)
    sync.tick()
    desk.assert_true(sync)


@pytest.mark.parametrize("pages", [1, 2])
def test_s20_a_subfolder_once_not_found_is_asked_for_again(desk: Desk, pages: int) -> None:
    folder = desk.drive.add_folder("Here", desk.root)
    for number in range(3):
        desk.drive.add_file(f"{number}.pdf", folder)
    desk.drive.page_cap = 2
    rule = desk.sandbox.faults.add(
        faults.google_error(404, "notFound"), path=f"'{folder}' in parents", nth=pages
    )
    sync = desk.sync()
    sync.tick()
    assert rule.hits == 1
    desk.assert_true(sync)


def test_s20_a_subfolder_that_is_there_but_never_listed_is_named(desk: Desk) -> None:
    folder = desk.drive.add_folder("Here", desk.root)
    desk.drive.add_file("unseen.pdf", folder)
    rule = desk.sandbox.faults.add(
        faults.google_error(404, "notFound"), path=f"'{folder}' in parents", times=None
    )
    sync = desk.sync()
    told = sync.tick()
    assert [(b.name, b.why) for b in told.blind] == [("Here", "Drive does not list it.")]
    desk.sandbox.faults.remove(rule)
    sync.tick()
    desk.assert_true(sync)


@pytest.mark.parametrize("how", ["unshare", "trash", "delete"])
def test_s20_the_root_is_gone(desk: Desk, synced: Sync, how: str) -> None:
    if how == "unshare":
        desk.drive.unshare(desk.root, ACCOUNT)
    elif how == "trash":
        desk.drive.trash(desk.root)
    else:
        desk.drive.delete(desk.root)
    live, cursor = set(synced.memory.live), synced.cursor
    assert desk.probe(synced).changed
    for run in (synced.tick, synced.sweep, lambda: list(synced.connector.check())):
        with pytest.raises(ConfigurationError):
            run()
    assert synced.memory.live == live
    assert synced.cursor == cursor


def test_s20_the_root_vanishes_while_it_is_listed(desk: Desk, synced: Sync) -> None:
    desk.sandbox.faults.add(
        faults.before(lambda: desk.drive.unshare(desk.root, ACCOUNT)),
        kind="drive.files.list",
        nth=2,
    )
    live = set(synced.memory.live)
    with pytest.raises(ConfigurationError, match="not shared with"):
        synced.sweep()
    assert synced.memory.live == live


def test_s23_empty_world(desk: Desk) -> None:
    """The breaker is the engine's; the connector reports nothing gone by itself."""
    files = desk.drive.add_files(60, desk.root)
    sync = desk.sync()
    sync.tick()
    desk.sandbox.faults.add(faults.empty_world(), kind="drive.files.list", times=None)
    batches: list[Batch] = list(sync.connector.sweep(sync.memory, None, 2))
    assert not any(b.gone or b.folders_gone for b in batches)
    assert batches[-1].done
    assert sync.memory.live == set(files)


def test_s24_lag(desk: Desk, synced: Sync) -> None:
    desk.drive.hold()
    desk.drive.add_file("slow.pdf", desk.b)
    desk.drive.rename(desk.top, "slow name.pdf")
    for _ in range(2):
        assert not desk.probe(synced).changed
        synced.tick()
    desk.sandbox.clock.advance(minutes=20)
    desk.drive.release()
    assert desk.probe(synced).changed
    synced.tick()
    desk.assert_true(synced)


def test_s25_many_pages_of_changes_with_a_kill(desk: Desk, synced: Sync) -> None:
    desk.drive.add_files(3500, desk.b)
    cursors = [synced.cursor]
    killed_after(synced, 2)
    assert synced.cursor not in cursors, "the cursor moves page by page"
    held = len(synced.memory.live)
    assert held == 2 + 2000
    mark = desk.mark()
    resumed = desk.again(synced)
    resumed.tick()
    desk.assert_true(resumed)
    assert desk.calls("drive.changes.list", since=mark) == 2


def test_s26_no_news(desk: Desk, synced: Sync) -> None:
    for bump in (False, True):
        desk.drive.view(desk.deep, bump_version=bump)
        assert synced.tick().writes == 0
    cursor = synced.cursor
    desk.drive.edit(desk.deep)
    assert synced.tick().writes == 1
    synced.cursor = cursor
    assert synced.tick().writes == 0, "the same page again"
    assert synced.sweep().writes == 0


def test_s26_merely_opened_is_no_reason_for_a_run(desk: Desk, synced: Sync) -> None:
    desk.drive.view(desk.deep)
    probe = desk.probe(synced)
    assert not probe.changed
    assert probe.cursor is not None
    assert probe.cursor != synced.cursor


# -- many tenants ---------------------------------------------------------------------------------
def test_s37_two_endpoints_on_one_folder_are_two_worlds(desk: Desk, synced: Sync) -> None:
    other = desk.sync()
    other.tick()
    desk.drive.edit(desk.deep)
    assert synced.tick().writes == 1
    assert other.tick().writes == 1
    desk.assert_true(other)


def test_s37_other_tenants_of_the_account_cost_one_call(desk: Desk, synced: Sync) -> None:
    """One service account, many endpoints: its feed carries all their changes."""
    theirs = desk.drive.add_folder("Their folder", shared_with=[ACCOUNT])
    for n in range(30):
        below = desk.drive.add_folder(f"{n}", theirs)
        desk.drive.add_files(3, below)
    mark = desk.mark()
    probe = desk.probe(synced)
    assert not probe.changed, probe.why
    assert desk.calls(since=mark) == 1
    synced.cursor = probe.cursor
    assert desk.probe(synced).why == "no change"


def test_s37_a_neighbour_costs_one_question_of_ours_for_each_of_its_folders(
    desk: Desk, synced: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store may be far away: one question per file would outlast the tick."""
    theirs = desk.drive.add_folder("Their folder", shared_with=[ACCOUNT])
    desk.drive.add_files(200, theirs)
    asked: list[str] = []
    tell = synced.memory.folder

    def folder(folder_id: str) -> Folder | None:
        asked.append(folder_id)
        return tell(folder_id)

    monkeypatch.setattr(synced.memory, "folder", folder)
    assert not desk.probe(synced).changed
    assert len(asked) == len(set(asked))
    assert theirs in asked


def test_s37_a_busy_neighbour_costs_no_run(desk: Desk, synced: Sync) -> None:
    theirs = desk.drive.add_folder("Their folder", shared_with=[ACCOUNT])
    desk.drive.changes_cap = 100
    desk.drive.add_files(250, theirs)
    mark = desk.mark()
    probe = desk.probe(synced)
    assert not probe.changed, probe.why
    assert desk.calls(since=mark) == 3
    desk.drive.add_file("ours.pdf", desk.root)
    assert desk.probe(synced).why == "a file is new", "the last of all"
    synced.cursor = probe.cursor
    assert desk.probe(synced).changed
    desk.drive.changes_cap = 1
    desk.drive.add_files(30, theirs)
    mark = desk.mark()
    desk.drive.delete(desk.drive.add_file("theirs.pdf", theirs))
    synced.tick()
    desk.assert_true(synced)
    desk.drive.add_files(30, theirs)
    mark = desk.mark()
    assert desk.probe(synced).changed, "too many to read them all"
    assert desk.calls(since=mark) == 10


def test_s37_files_of_others_in_folders_we_do_not_know_cost_no_look_up(
    desk: Desk, synced: Sync
) -> None:
    theirs = desk.drive.add_folder("Their folder", shared_with=[ACCOUNT])
    nested = desk.drive.add_folder("secret project", theirs)
    for _ in range(3):
        desk.drive.add_file("theirs.pdf", nested)
    desk.drive.edit(desk.deep)
    mark = desk.mark()
    synced.tick()
    assert desk.calls("drive.files.get", since=mark) == 0
    assert nested not in synced.memory.tree


def test_s03_where_one_of_ours_went_is_looked_up_once_per_folder(desk: Desk, synced: Sync) -> None:
    theirs = desk.drive.add_folder("Their folder", shared_with=[ACCOUNT])
    nested = desk.drive.add_folder("secret project", theirs)
    synced.tick()
    for expected in (2, 0):
        leaver = desk.drive.add_file("leaver.pdf", desk.root)
        synced.tick()
        desk.drive.move(leaver, nested)
        mark = desk.mark()
        synced.tick()
        assert desk.calls("drive.files.get", since=mark) == expected
        assert synced.memory.gone[leaver] is GoneReason.OUT_OF_SCOPE
    names = [f.name for f in synced.memory.folders()]
    assert "secret project" not in names, "another tenant's names are none of ours"
    desk.drive.move(nested, desk.root)
    synced.tick()
    desk.assert_true(synced)


def test_s40_scope_and_principal(desk: Desk) -> None:
    def scope(**details: object) -> str:
        return desk.connector(details).scope

    assert scope(folder_id="a") != scope(folder_id="b")
    assert scope(folder_id="a") != scope(folder_id="a", recursive=False)
    assert scope(folder_id="a", file_types=[".PDF", "dwg"]) == scope(
        folder_id="a", file_types=["dwg", "pdf"]
    )
    service = desk.connector()
    acting = desk.connector(
        credentials=desk.sandbox.google_credentials(ACCOUNT, subject="ana@example.com")
    )
    user = desk.connector(credentials=desk.sandbox.authorized_user_credentials("u@example.com"))
    twin = desk.connector(credentials=desk.sandbox.authorized_user_credentials("u@example.com"))
    assert len({c.principal for c in (service, acting, user, twin)}) == 4
    assert desk.sandbox.secrets
    assert not [s for s in desk.sandbox.secrets if s in user.principal]


# -- windows -------------------------------------------------------------------------------------
DAY = timedelta(days=1)
D1 = datetime(2026, 1, 10, tzinfo=timezone.utc)


@pytest.mark.parametrize("where", ["my_drive", "whole_drive", "folder_in_drive"])
def test_s50_window(desk: Desk, where: str) -> None:
    if where == "my_drive":
        root = desk.root
        details: dict[str, Any] = {"folder_id": root}
    else:
        drive = desk.drive.add_drive("Drive", members=[ACCOUNT])
        root = drive if where == "whole_drive" else desk.drive.add_folder("F", drive)
        details = {"drive_id": drive} if where == "whole_drive" else {"folder_id": root}
        if where == "folder_in_drive":
            desk.drive.add_file("beside.pdf", drive, modified="2026-01-11T12:00:00Z")
    below = desk.drive.add_folder("below", root)
    stamps = [
        "2026-01-09T23:59:59.999Z",
        "2026-01-10T00:00:00.000Z",
        "2026-01-12T12:00:00Z",
        "2026-01-14T23:59:59.999Z",
        "2026-01-15T00:00:00.000Z",
    ]
    files = [
        desk.drive.add_file(stamp, parent, modified=stamp)
        for stamp, parent in zip(stamps, [root, below, below, root, below], strict=True)
    ]
    sync = desk.sync(**details)
    sync.tick()
    cursor, writes = sync.cursor, sync.memory.writes
    told, met = sync.window(D1, D1 + 5 * DAY)
    assert met == set(files[1:4])
    assert sync.cursor == cursor
    assert sync.memory.writes == writes, "a repeat writes nothing"
    with desk.drive.unlogged():
        desk.drive.edit(files[2], modified="2026-01-12T13:00:00Z")
    sync.window(D1, D1 + 5 * DAY)
    assert sync.memory.writes == writes + 1
    desk.assert_true(sync, root)
    assert not told.blind


@pytest.mark.parametrize("where", ["my_drive", "whole_drive", "folder_in_drive"])
@pytest.mark.parametrize("leaving", ["trashed", "moved"])
def test_s50_a_folder_that_only_a_window_met_takes_its_files_along(
    desk: Desk, where: str, leaving: str
) -> None:
    """Until the next sweep they stayed, because the feed told of a stranger."""
    drive = desk.drive.add_drive("Drive", members=[ACCOUNT])
    elsewhere = desk.drive.add_folder("Elsewhere", drive if where == "folder_in_drive" else None)
    root = desk.root
    if where == "whole_drive":
        root = drive
    elif where == "folder_in_drive":
        root = desk.drive.add_folder("F", drive)
    details: dict[str, Any] = {"drive_id" if root == drive else "folder_id": root}
    sync = desk.sync(**details)
    new = desk.drive.add_folder("new", elsewhere)
    file = desk.drive.add_file("f.pdf", desk.drive.add_folder("below", new), modified=D1)
    sync.tick()
    desk.drive.move(new, root)
    sync.window(D1, D1 + DAY)
    assert file in sync.memory.live
    desk.drive.trash(new) if leaving == "trashed" else desk.drive.move(new, elsewhere)
    sync.tick()
    assert file not in sync.memory.live
    desk.assert_true(sync, root)


# -- scope ---------------------------------------------------------------------------------------
def test_not_recursive_keeps_to_the_root(desk: Desk, synced: Sync) -> None:
    flat = desk.sync(folder_id=desk.root, recursive=False)
    flat.tick()
    assert flat.memory.titles == ["top.pdf"]
    desk.drive.edit(desk.deep)
    desk.drive.add_folder("C", desk.root)
    assert not desk.probe(flat).changed
    desk.drive.move(desk.deep, desk.root)
    assert desk.probe(flat).changed
    flat.tick()
    desk.drive.move(desk.top, desk.a)
    flat.tick()
    desk.assert_true(flat, recursive=False)
    flat.sweep()
    desk.assert_true(flat, recursive=False)
    assert [f.folder_id for f in flat.memory.folders()] == [desk.root]


def test_filters(desk: Desk) -> None:
    below = desk.drive.add_folder("folder.dwg", desk.root)
    names = ["a.PDF", "b.pdf", "c.dwg", "pdf", ".pdf", "d.pdf.bak"]
    files = {name: desk.drive.add_file(name, below) for name in names}
    desk.drive.add_file("Notes", below, mime_type=DOCUMENT)
    desk.drive.add_file("Sums", below, mime_type=SPREADSHEET)
    wanted = desk.sync(folder_id=desk.root, file_types=[".pdf", "gdoc"])
    wanted.tick()
    assert wanted.memory.titles == ["Notes", "a.PDF", "b.pdf"]
    desk.drive.rename(files["b.pdf"], "b.txt")
    desk.drive.rename(files["c.dwg"], "c.pdf")
    wanted.tick()
    assert wanted.memory.titles == ["Notes", "a.PDF", "c.pdf"]
    assert wanted.memory.gone == {files["b.pdf"]: GoneReason.OUT_OF_SCOPE}
    with desk.drive.unlogged():
        desk.drive.rename(files["c.dwg"], "c.dwg")
    wanted.sweep()
    assert wanted.memory.gone[files["c.dwg"]] is GoneReason.OUT_OF_SCOPE
    sheets = desk.sync(folder_id=desk.root, mime_types=[SPREADSHEET])
    sheets.tick()
    assert sheets.memory.titles == ["Sums"]


def test_root_alias(desk: Desk) -> None:
    credentials = desk.sandbox.google_credentials(ACCOUNT, subject="ana@example.com")
    desk.drive.add_user("ana@example.com")
    home = desk.drive.roots["ana@example.com"]
    file = desk.drive.add_file("mine.pdf", home, owner="ana@example.com")
    sync = Sync(desk.connector({"folder_id": "root"}, credentials=credentials))
    sync.tick()
    assert sync.memory.live == {file}
    desk.drive.edit(file)
    assert desk.probe(sync).changed
    sync.sweep()
    desk.drive.trash(file)
    sync.tick()
    assert sync.memory.gone == {file: GoneReason.TRASHED}


def test_removed_files_are_deleted_or_hidden(desk: Desk, synced: Sync) -> None:
    desk.drive.delete(desk.top)
    synced.tick()
    assert synced.memory.gone == {desk.top: GoneReason.DELETED}
    desk.drive.move(desk.a, desk.drive.add_folder("Private"))
    synced.tick()
    assert synced.memory.gone[desk.deep] is GoneReason.ACCESS_LOST


def test_out_of_sight_and_back_within_one_tick(desk: Desk, synced: Sync) -> None:
    """While A was private, no log of ours was written; its version tells that something was."""
    private = desk.drive.add_folder("Private")
    lost = desk.drive.add_file("lost.pdf", desk.b)
    silent = desk.drive.add_folder("silent", desk.b)
    synced.tick()
    desk.drive.move(desk.a, private)
    desk.drive.edit(desk.deep, modified=OLD)
    desk.drive.add_file("new.pdf", desk.b, modified=OLD)
    desk.drive.delete(lost)
    desk.drive.delete(silent)
    desk.drive.move(desk.a, desk.root)
    assert desk.probe(synced).changed
    synced.tick()
    desk.assert_true(synced)
    assert synced.memory.gone == {lost: GoneReason.DELETED}
    assert synced.memory.folder(silent) is None
    mark = desk.mark()
    synced.tick()
    assert desk.calls(since=mark) == 1, "compared once"


@pytest.mark.parametrize("noticed", [False, True], ids=["within a tick", "over a failing run"])
@pytest.mark.parametrize("recursive", [True, False])
def test_s04_the_root_was_out_of_sight_and_is_back(
    desk: Desk, noticed: bool, recursive: bool
) -> None:
    lost = desk.drive.add_file("lost.pdf", desk.root)
    stays = desk.drive.add_file("stays.pdf", desk.root)
    below = desk.drive.add_folder("A", desk.root)
    sync = desk.sync(folder_id=desk.root, recursive=recursive)
    sync.tick()
    desk.drive.unshare(desk.root, ACCOUNT)
    if noticed:
        with pytest.raises(ConfigurationError):
            sync.tick()
    desk.drive.edit(stays, modified=OLD)
    desk.drive.trash(lost)
    desk.drive.add_file("new.pdf", desk.root, modified=OLD)
    desk.drive.add_file("deep.pdf", desk.drive.add_folder("B", below), modified=OLD)
    if noticed:
        with pytest.raises(ConfigurationError):
            sync.tick()
    desk.drive.share(desk.root, ACCOUNT)
    assert desk.probe(sync).changed
    sync.tick()
    desk.assert_true(sync, recursive=recursive)
    assert sync.memory.gone == {lost: GoneReason.TRASHED}
    mark = desk.mark()
    assert not desk.probe(sync).changed
    sync.tick()
    assert desk.calls(since=mark) == 2, "compared once"


def test_s20_a_root_that_stays_away_is_asked_for_once_per_run(desk: Desk, synced: Sync) -> None:
    rows = set(synced.memory.live)
    desk.drive.unshare(desk.root, ACCOUNT)
    for _ in range(3):
        assert desk.probe(synced).changed
        mark = desk.mark()
        with pytest.raises(ConfigurationError, match="Share it with"):
            synced.tick()
        assert desk.calls(since=mark) <= 2
    assert synced.memory.live == rows


def test_a_vanished_folder_costs_one_look_up(desk: Desk, synced: Sync) -> None:
    files = desk.drive.add_files(50, desk.a)
    synced.tick()
    with desk.drive.unlogged():
        desk.drive.trash(desk.a)
    mark = desk.mark()
    synced.sweep()
    assert {synced.memory.gone[f] for f in files} == {GoneReason.TRASHED}
    assert desk.calls("drive.files.get", since=mark) <= 4


def test_folders_that_vanished_empty_are_forgotten(desk: Desk, synced: Sync) -> None:
    empty = desk.drive.add_folder("Empty", desk.root)
    synced.tick()
    with desk.drive.unlogged():
        desk.drive.delete(empty)
    synced.sweep()
    assert synced.memory.folder(empty) is None


def test_a_sweep_interrupted_by_the_feed_does_not_bring_back_what_left(
    desk: Desk, synced: Sync
) -> None:
    """The engine reads the feed between two batches of a long sweep: pages fetched before that,
    and the tree of that time, are stale."""
    outside = desk.drive.add_folder("Outside", shared_with=[ACCOUNT])
    leaving = desk.drive.add_folder("Leaving", desk.root)
    first = desk.drive.add_files(900, desk.root)
    inside = desk.drive.add_files(1500, leaving)
    synced.tick()
    acted: list[str] = []

    def meanwhile(batch: Batch) -> None:
        if batch.sweep is not None and not batch.done and len(batch.records) > 100 and not acted:
            acted.append("now")
            fetched_ahead(synced)
            desk.drive.move(leaving, outside)
            desk.drive.trash(first[0])
            for later in synced.connector.changes(synced.cursor, synced.memory):
                synced.memory.apply(later, synced.pass_no)
                synced.cursor = later.cursor or synced.cursor

    synced.after_batch = meanwhile
    synced.sweep()
    assert acted
    desk.assert_true(synced)
    assert synced.memory.gone[inside[-1]] is GoneReason.OUT_OF_SCOPE


def test_the_same_with_a_whole_drive(desk: Desk) -> None:
    drive = desk.drive.add_drive("Drive", members=[ACCOUNT])
    unseen = set(desk.drive.add_files(3000, desk.drive.add_folder("F", drive)))
    sync = desk.sync(drive_id=drive)
    sync.tick()
    acted: list[str] = []

    def meanwhile(batch: Batch) -> None:
        unseen.difference_update(r.external_id for r in batch.records)
        if batch.sweep is not None and len(batch.records) > 100 and len(acted) < 2:
            fetched_ahead(sync)
            acted.append(min(unseen))  # the sandbox lists equals by id: it is on the next page
            desk.drive.trash(acted[-1])
            for later in sync.connector.changes(sync.cursor, sync.memory):
                sync.memory.apply(later, sync.pass_no)
                sync.cursor = later.cursor or sync.cursor

    sync.after_batch = meanwhile
    sync.sweep()
    assert len(acted) == 2
    desk.assert_true(sync, drive)


# -- cost ----------------------------------------------------------------------------------------
def test_idle_costs_one_call(desk: Desk, synced: Sync) -> None:
    for _ in range(3):
        before, mark = synced.connector.api_calls, desk.mark()
        assert not desk.probe(synced).changed
        assert desk.calls(since=mark) == 1
        assert synced.connector.api_calls == before + 1


@pytest.mark.parametrize("changed", [1, 30, 250])
def test_changed_files_cost_two_calls_and_one_per_hundred(
    desk: Desk, synced: Sync, changed: int
) -> None:
    folders = [desk.drive.add_folder(f"F{n}", desk.root) for n in range(20)]
    files = [f for folder in folders for f in desk.drive.add_files(15, folder)]
    synced.tick()
    for n, file in enumerate(files[:changed]):
        (desk.drive.edit, desk.drive.view, desk.drive.trash)[n % 3](file)
    mark = desk.mark()
    synced.tick()
    assert desk.calls(since=mark) <= 2 + changed / 100
    desk.assert_true(synced)


def test_first_sync_asks_for_many_folders_at_once(desk: Desk) -> None:
    for n in range(100):
        desk.drive.add_file("a.pdf", desk.drive.add_folder(f"F{n}", desk.root))
    mark = desk.mark()
    desk.sync().tick()
    calls = desk.sandbox.log.calls("drive.files.list", since=mark)
    assert len(calls) <= 7
    for call in calls:
        assert call.method == "GET", "no question is so long that it becomes a POST"


# -- helpers -------------------------------------------------------------------------------------
def fetched_ahead(sync: Sync) -> None:
    """Wait until what the connector fetches in the background has arrived."""
    assert isinstance(sync.connector, GoogleDriveConnector)
    sync.connector._wires.submit(lambda: None).result(10)


def kill_at(sync: Sync, batch: int, *, after: bool) -> None:
    """The next run dies at its n-th batch, before or after that is stored."""
    left = [batch]

    def die(_: Batch) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    if after:
        sync.after_batch = die
    else:
        sync.on_batch = die


def killed_after(sync: Sync, batches: int) -> None:
    """Run until n batches are stored."""
    kill_at(sync, batches, after=True)
    with pytest.raises(Killed):
        sync.tick()
    sync.after_batch = None
