"""Autodesk: what is found, what it costs, what is called gone. Everything over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import pytest

from file_connector.connectors.autodesk import SPEC
from file_connector.connectors.autodesk.walk import PROMPT_SECONDS
from file_connector.errors import ConfigurationError, CursorRejectedError
from file_connector.models import Batch, GoneReason
from file_connector.sandbox import faults
from file_connector_tests.connectors.acc import CountingLimiter, Site, a_site, rows
from file_connector_tests.connectors.memory import Killed, Sync

OLD = "2019-01-01T00:00:00Z"


@pytest.fixture
def site() -> Iterator[Site]:
    with a_site() as site:
        yield site


@pytest.fixture
def synced(site: Site) -> Sync:
    """An endpoint after its first sync."""
    sync = site.sync()
    sync.tick()
    assert rows(sync.memory) == site.truth()
    return sync


# -- the first sync --------------------------------------------------------------------------------


def test_first_sync_costs_the_listing_pages_and_three_calls(site: Site) -> None:
    site.sandbox.aps.add_items(450, site.room)
    sync = site.sync()
    sync.tick()
    assert rows(sync.memory) == site.truth()
    pages = 4 + 3
    assert site.calls() <= pages + 3
    assert sync.connector.api_calls == site.calls()


def test_first_sync_of_a_small_project_costs_pages_and_three_calls(site: Site) -> None:
    site.sync().tick()
    assert site.sandbox.log.counters() == {
        "aps.token": 1,
        "aps.hubs": 1,
        "aps.topFolders": 2,
        "aps.contents": 5,
    }


def test_rows_carry_everything(site: Site, synced: Sync) -> None:
    item = next(i for i in site.truth().items() if i[1][0] == "A-101.pdf")[0]
    row = synced.memory.rows[item]
    guid = site.project.removeprefix("b.")
    assert row.title == "A-101.pdf"
    assert row.link is not None
    assert row.link.startswith(f"https://acc.autodesk.com/docs/files/projects/{guid}?folderUrn=")
    assert row.link.endswith("%3Fversion%3D1")
    assert (row.mime_type, row.size_bytes, row.version) == ("application/pdf", 1000, 1)
    assert row.raw["file_type"] == "pdf"
    assert row.raw["created_by"] == "Ana Roe"
    assert synced.memory.path(item) == "/Plans/A-101.pdf"


def test_the_project_files_are_listed_and_nothing_else(site: Site) -> None:
    photos = site.sandbox.aps.top_folder(site.project, "Photos")
    site.sandbox.aps.add_item("wall.jpg", photos)
    sync = site.sync()
    sync.tick()
    assert "wall.jpg" not in sync.memory.titles


def test_without_project_files_all_other_top_folders_are_listed_and_said_so(site: Site) -> None:
    aps = site.sandbox.aps
    shared = aps.add_folder("Shared", site.project)
    aps.add_item("s.pdf", shared)
    aps.delete(site.files)
    sync = site.sync()
    told = sync.tick()
    assert sync.memory.titles == ["s.pdf"]
    assert told.notes == ["the project has no folder 'Project Files'; listing 'Shared' instead"]


@pytest.mark.parametrize(
    ("end", "reason"), [("delete", GoneReason.DELETED), ("deny", GoneReason.ACCESS_LOST)]
)
def test_start_folders_come_and_go(site: Site, end: str, reason: GoneReason) -> None:
    aps = site.sandbox.aps
    aps.delete(site.files)
    one, two = (aps.add_folder(name, site.project) for name in ("One", "Two"))
    stays, leaves = aps.add_item("1.pdf", one), aps.add_item("2.pdf", aps.add_folder("In", two))
    sync = site.sync()
    sync.tick()
    assert sync.memory.live == {stays, leaves}
    getattr(aps, end)(two)
    assert sync.connector.probe(sync.cursor, sync.memory).changed
    sync.tick()
    assert sync.memory.gone == {leaves: reason}
    three = aps.add_folder("Three", site.project)
    comes = aps.add_item("3.pdf", three)
    assert sync.connector.probe(sync.cursor, sync.memory).changed
    sync.tick()
    assert sync.memory.live == {stays, comes}
    assert not sync.connector.probe(sync.cursor, sync.memory).changed


def test_project_files_stay_the_start_after_a_rename(site: Site, synced: Sync) -> None:
    site.sandbox.aps.rename(site.files, "Projektdateien")
    synced.tick()
    assert rows(synced.memory) == site.truth()
    assert synced.sweep().writes == 0
    assert not synced.memory.gone


def test_folder_id_needs_no_hub_and_lists_only_below(site: Site) -> None:
    sync = site.sync({"folder_id": site.plans})
    sync.tick()
    assert rows(sync.memory) == site.truth(site.plans)
    assert site.calls(kind="aps.hubs") == site.calls(kind="aps.topFolders") == 0
    since = site.sandbox.log.mark()
    assert not sync.connector.probe(sync.cursor, sync.memory).changed
    assert site.sandbox.log.counters(since=since) == {"aps.folder": 1}


@pytest.mark.parametrize("prefix", ["b.", "B.", ""])
def test_s36_project_id_with_and_without_prefix(site: Site, prefix: str) -> None:
    bare = site.project.removeprefix("b.")
    sync = site.sync({"project_id": prefix + bare})
    sync.tick()
    assert rows(sync.memory) == site.truth()
    assert sync.connector.scope == site.connector().scope


@pytest.mark.parametrize("region", ["US", "EMEA", "AUS", "MARS"])
def test_s35_regions_known_and_unknown(region: str) -> None:
    with a_site() as site:
        aps = site.sandbox.aps
        aps.harmless_warnings = ["EMEA", "AUS"]
        hub = aps.add_hub("Elsewhere", region=region)
        project = aps.add_project("Far", hub)
        folder = "urn:adsk.wipemea:fs.folder:co.-_x4aey3l5_j-h7WcsnVa0"
        aps.add_folder("EU", aps.project_files(project), id=folder)
        aps.add_item("far.pdf", folder, id="urn:adsk.wipemea:dm.lineage:-2x4aey3l5_j-h7WcsnVa0")
        sync = site.sync({"project_id": project})
        sync.tick()
        assert sync.memory.titles == ["far.pdf"]


def test_personal_hubs_are_not_asked(site: Site) -> None:
    site.sandbox.aps.hubs = {
        site.sandbox.aps.add_hub("Mine", id="a.personal", type="hubs:autodesk.core:Hub"): (
            site.sandbox.aps.hubs["a.personal"]
        ),
        site.hub: site.sandbox.aps.hubs[site.hub],
    }
    site.sync().tick()
    assert site.calls(kind="aps.topFolders") == 2


@pytest.mark.parametrize("prefix", ["b.", "B.", ""])
def test_a_given_hub_is_used(site: Site, prefix: str) -> None:
    sync = site.sync({"hub_id": prefix + site.hub.removeprefix("b.")})
    sync.tick()
    assert rows(sync.memory) == site.truth()
    assert site.calls(kind="aps.hubs") == 0


def test_the_hub_is_found_out_once(site: Site, synced: Sync) -> None:
    since = site.sandbox.log.mark()
    synced.tick()
    synced.sweep()
    synced.connector.probe(synced.cursor, synced.memory)
    assert site.calls(since, "aps.hubs") == 0


@pytest.mark.parametrize("answer", ["404", "403", "400"])
def test_a_project_that_moved_to_another_hub_is_found_once_more(
    site: Site, synced: Sync, answer: str
) -> None:
    old, new = site.hub, site.sandbox.aps.add_hub("New owner")
    if answer == "404":
        del site.sandbox.aps.hubs[old]
    else:
        gone = faults.status(int(answer), {"errors": [{"code": "BIM360DM_ERROR", "title": "no"}]})
        site.sandbox.faults.add(gone, path=f"/hubs/{old}/projects", times=None)
    site.sandbox.aps.projects[site.project].hub = new
    since = site.sandbox.log.mark()
    probe = site.connector().probe(synced.cursor, synced.memory)
    assert probe.changed, "so that a run remembers where it is now"
    assert new in probe.why
    assert site.calls(since) == site.calls(since, "aps.hubs") + 2 == 3
    synced.connector = site.connector()
    since = site.sandbox.log.mark()
    synced.tick()
    synced.sweep()
    assert site.calls(since, "aps.hubs") <= 1
    assert sum(old in call.path for call in site.sandbox.log.calls(since=since)) == 1
    assert rows(synced.memory) == site.truth()
    assert not synced.memory.gone
    for again in (lambda: site.connector().probe(synced.cursor, synced.memory), synced.tick):
        since = site.sandbox.log.mark()
        again()
        assert site.calls(since) == 1


def test_a_project_that_no_hub_holds_is_looked_for_once_and_keeps_its_rows(
    site: Site, synced: Sync
) -> None:
    other = site.sandbox.aps.add_hub("Other")
    away = faults.status(404, {"errors": [{"code": "NOT_FOUND", "title": "no such project"}]})
    site.sandbox.faults.add(away, kind="aps.topFolders", times=None)
    since = site.sandbox.log.mark()
    with pytest.raises(ConfigurationError) as caught:
        synced.tick()
    assert site.calls(since, "aps.topFolders") == 2
    assert site.calls(since) <= 3
    assert site.hub in str(caught.value)
    assert other in str(caught.value)
    assert rows(synced.memory) == site.truth()
    site.sandbox.faults.clear()
    synced.tick()
    assert rows(synced.memory) == site.truth()


def test_a_hub_that_was_set_by_hand_is_not_replaced(site: Site) -> None:
    wrong = site.sandbox.aps.add_hub("Wrong")
    away = faults.status(404, {"errors": [{"code": "NOT_FOUND", "title": "no such project"}]})
    site.sandbox.faults.add(away, path=f"/hubs/{wrong}/projects", times=None)
    sync = site.sync({"hub_id": wrong})
    with pytest.raises(ConfigurationError, match=f"not found in hub {wrong}.*hub_id"):
        sync.tick()
    assert site.calls(kind="aps.hubs") == 0


def test_checking_many_endpoints_at_once_lists_the_hubs_once(site: Site) -> None:
    """Fifty such calls a minute is all an app has."""
    connectors = [site.connector() for _ in range(20)]
    threads = [threading.Thread(target=connector.check) for connector in connectors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.calls(kind="aps.hubs") == 1
    assert site.calls(kind="aps.topFolders") == 20


def test_file_types_match_any_spelling(site: Site) -> None:
    site.sandbox.aps.add_item("B.PDF", site.plans)
    sync = site.sync({"file_types": [".pdf", "DWG"]})
    sync.tick()
    assert sync.memory.titles == ["A-101.pdf", "A-102.pdf", "B.PDF", "L1-1.dwg", "R-1.pdf"]


def test_a_file_renamed_out_of_the_filter_is_out_of_scope(site: Site) -> None:
    item = site.sandbox.aps.add_item("late.pdf", site.room)
    sync = site.sync({"file_types": ["pdf"]})
    sync.tick()
    site.sandbox.aps.rename(item, "late.txt")
    sync.tick()
    assert sync.memory.gone[item] is GoneReason.OUT_OF_SCOPE


def test_s40_the_scope_changes_with_root_and_filter_only(site: Site) -> None:
    plain = site.connector().scope
    assert site.connector({"hub_id": site.hub}).scope == plain
    assert site.connector({"folder_id": site.plans}).scope != plain
    assert site.connector({"file_types": ["pdf"]}).scope != plain
    same = [site.connector({"file_types": t}).scope for t in (["pdf", ".DWG"], ["dwg", "PDF"])]
    assert same[0] == same[1]


def test_s40_the_principal_changes_with_app_and_user(site: Site) -> None:
    mine = site.connector().principal
    other = site.connector(credentials={"client_id": "another", "client_secret": "xxxx"})
    assert other.principal != mine
    assert site.connector({"x_user_id": "ANA"}).principal != mine
    rotated = {**site.sandbox.aps_credentials(), "client_secret": "a new secret"}
    assert site.connector(credentials=rotated).principal == mine


def test_s40_a_cursor_of_another_project_is_rejected(site: Site, synced: Sync) -> None:
    other = site.connector({"project_id": "b.other"})
    with pytest.raises(CursorRejectedError):
        other.probe(synced.cursor, synced.memory)
    with pytest.raises(CursorRejectedError):
        list(other.changes("nonsense", synced.memory))


# -- what it costs ---------------------------------------------------------------------------------


def test_s27_an_unchanged_root_costs_one_call(site: Site, synced: Sync) -> None:
    for _ in range(3):
        since = site.sandbox.log.mark()
        assert not synced.connector.probe(synced.cursor, synced.memory).changed
        assert site.calls(since) == 1
    since = site.sandbox.log.mark()
    assert synced.tick().writes == 0
    assert site.calls(since) == 1


def test_s27_one_deep_change_lists_only_its_ancestors(site: Site, synced: Sync) -> None:
    item = site.sandbox.aps.add_item("R-2.pdf", site.room)
    since = site.sandbox.log.mark()
    assert synced.connector.probe(synced.cursor, synced.memory).changed
    synced.tick()
    assert item in synced.memory.live
    listed = [c.path.split("/")[6] for c in site.sandbox.log.calls("aps.contents", since=since)]
    assert listed == [site.files, site.plans, site.level, site.room]
    assert site.calls(since) == 1 + 1 + 4, "probe, gate, the path"
    assert not synced.connector.probe(synced.cursor, synced.memory).changed


@pytest.mark.parametrize("changed", [1, 3, 9])
def test_s27_calls_stay_within_one_plus_folders_on_the_paths(site: Site, changed: int) -> None:
    aps = site.sandbox.aps
    leaves = []
    for a in range(3):
        top = aps.add_folder(f"T{a}", site.files)
        leaves += [aps.add_folder(f"U{b}", top) for b in range(3)]
    items = [aps.add_item("f.pdf", leaf) for leaf in leaves]
    sync = site.sync()
    sync.tick()
    folders, depth = 5 + 12, 3
    for item in items[:changed]:
        aps.upload(item)
    since = site.sandbox.log.mark()
    sync.tick()
    assert rows(sync.memory) == site.truth()
    assert site.calls(since) <= 1 + min(folders, 1 + changed * depth)


def test_s27_a_rollup_that_went_back_is_a_change(site: Site, synced: Sync) -> None:
    aps = site.sandbox.aps
    with aps.silent():
        item = aps.add_item("old news.pdf", site.files)
    aps.folders[site.files].rollup -= timedelta(days=1)
    assert synced.connector.probe(synced.cursor, synced.memory).changed
    synced.tick()
    assert item in synced.memory.live


def test_s27b_a_change_without_a_rollup_is_caught_by_the_sweep(site: Site, synced: Sync) -> None:
    with site.sandbox.aps.silent():
        item = site.sandbox.aps.add_item("quiet.pdf", site.room)
    assert synced.tick().writes == 0
    synced.sweep()
    assert item in synced.memory.live


def test_a_folder_without_rollup_is_always_looked_at(site: Site, synced: Sync) -> None:
    site.sandbox.aps.override(site.files, lastModifiedTimeRollup=None)
    site.sandbox.aps.override(site.plans, lastModifiedTimeRollup=None)
    synced.tick()
    with site.sandbox.aps.silent():
        item = site.sandbox.aps.add_item("x.pdf", site.plans)
    assert synced.connector.probe(synced.cursor, synced.memory).changed
    synced.tick()
    assert item in synced.memory.live


def test_budgets_are_asked_for_per_client_and_class_of_call(site: Site) -> None:
    limiter = CountingLimiter()
    connector = site.connector(toolbox=site.toolbox(limiter=limiter))
    Sync(connector).tick()
    assert set(limiter.asked) == {
        ("aps:sandbox-client:token", 500),
        ("aps:sandbox-client:hubs", 50),
        ("aps:sandbox-client:topFolders", 300),
        ("aps:sandbox-client:contents", 300),
    }
    assert len(limiter.asked) == site.sandbox.log.count(tokens=True)


# -- discovery -------------------------------------------------------------------------------------


@pytest.mark.parametrize("created", [None, OLD])
def test_s01_backdated_upload(site: Site, synced: Sync, created: str | None) -> None:
    item = site.sandbox.aps.add_item("old.pdf", site.level, created=created, modified=OLD)
    synced.tick()
    assert item in synced.memory.live
    assert rows(synced.memory) == site.truth()


def test_s02_move_in(site: Site) -> None:
    aps = site.sandbox.aps
    item = aps.add_item("old.pdf", site.models, created=OLD, modified=OLD)
    sync = site.sync({"folder_id": site.plans})
    sync.tick()
    aps.move(item, site.level)
    sync.tick()
    assert rows(sync.memory) == site.truth(site.plans)
    assert item in sync.memory.live


def test_s02b_a_folder_moves_in_with_all_below(site: Site) -> None:
    aps = site.sandbox.aps
    outer = aps.add_folder("Outer", site.models)
    inner = aps.add_folder("Inner", outer)
    items = {aps.add_item(f"{n}.pdf", where) for n, where in enumerate([outer, inner, inner])}
    sync = site.sync({"folder_id": site.plans})
    sync.tick()
    aps.move(outer, site.level)
    sync.tick()
    assert items <= sync.memory.live
    assert rows(sync.memory) == site.truth(site.plans)


def test_s03_move_out_is_out_of_scope(site: Site) -> None:
    sync = site.sync({"folder_id": site.plans})
    item = site.sandbox.aps.add_item("leaving.pdf", site.level)
    sync.tick()
    site.sandbox.aps.move(item, site.models)
    sync.tick()
    assert sync.memory.gone[item] is GoneReason.OUT_OF_SCOPE
    assert rows(sync.memory) == site.truth(site.plans)


@pytest.mark.parametrize("status", [403, 404])
def test_s03_move_out_below_what_the_account_may_not_see(site: Site, status: int) -> None:
    """Whoever may see one folder of a project cannot climb to its top."""
    aps = site.sandbox.aps
    sync = site.sync({"folder_id": site.level})
    file, folder = aps.add_item("leaving.pdf", site.level), aps.add_folder("Leaving", site.level)
    inside = aps.add_item("inside.pdf", folder)
    sync.tick()
    above = aps.folders[site.plans].parent
    site.sandbox.faults.add(faults.aps_error(status), path=f"/folders/{above}", times=None)
    aps.move(file, site.plans)
    aps.move(folder, site.plans)
    sync.tick()
    assert sync.memory.gone == dict.fromkeys([file, inside], GoneReason.OUT_OF_SCOPE)


def test_s03_a_folder_moved_out_takes_its_files_along(site: Site) -> None:
    sync = site.sync({"folder_id": site.plans})
    sync.tick()
    site.sandbox.aps.move(site.level, site.models)
    sync.tick()
    assert set(sync.memory.gone.values()) == {GoneReason.OUT_OF_SCOPE}
    assert rows(sync.memory) == site.truth(site.plans)
    assert site.room not in sync.memory.tree


def test_s04_a_folder_shown_to_us_later_is_found_by_the_sweep(site: Site) -> None:
    site.sandbox.aps.deny(site.level)
    sync = site.sync()
    sync.tick()
    assert "L1-1.dwg" not in sync.memory.titles
    site.sandbox.aps.grant(site.level)
    sync.tick()
    sync.sweep()
    assert rows(sync.memory) == site.truth()


def test_a_folder_hidden_from_us_is_access_lost(site: Site, synced: Sync) -> None:
    held = {f.external_id for f in synced.memory.files_in(site.level)}
    site.sandbox.aps.deny(site.level)
    site.sandbox.aps.add_item("bump.pdf", site.plans)
    synced.tick()
    assert held
    assert all(synced.memory.gone[i] is GoneReason.ACCESS_LOST for i in held)


def test_s05_restored_files_live_again(site: Site, synced: Sync) -> None:
    item = synced.memory.files_in(site.room)[0].external_id
    site.sandbox.aps.delete(item)
    synced.tick()
    assert synced.memory.gone[item] is GoneReason.DELETED
    site.sandbox.aps.restore(item)
    synced.tick()
    assert rows(synced.memory) == site.truth()


def test_s06_s32_nested_edit_and_new_version(site: Site, synced: Sync) -> None:
    item = synced.memory.files_in(site.room)[0].external_id
    before = synced.memory.rows[item]
    site.sandbox.aps.upload(item, size=4321)
    told = synced.tick()
    after = synced.memory.rows[item]
    assert told.writes == 1
    assert (after.version, after.size_bytes, after.created_at) == (2, 4321, before.created_at)
    assert after.updated_at is not None
    assert before.updated_at is not None
    assert after.updated_at > before.updated_at
    assert after.link is not None
    assert after.link.endswith("version%3D2")


@pytest.mark.parametrize("touch", [True, False])
def test_s07_rename_only(site: Site, synced: Sync, touch: bool) -> None:
    item = synced.memory.files_in(site.level)[0].external_id
    site.sandbox.aps.rename(item, "L1 renamed.dwg", touch=touch)
    assert synced.tick().writes == 1
    assert rows(synced.memory) == site.truth()


def test_s07_a_renamed_folder_is_known_by_its_new_name(site: Site, synced: Sync) -> None:
    item = synced.memory.files_in(site.level)[0].external_id
    site.sandbox.aps.rename(site.level, "Ground floor")
    synced.tick()
    assert synced.memory.path(item) == "/Plans/Ground floor/L1-1.dwg"


def test_s08_time_goes_backwards(site: Site, synced: Sync) -> None:
    item = synced.memory.files_in(site.level)[0].external_id
    site.sandbox.aps.upload(item, modified=OLD)
    synced.tick()
    assert rows(synced.memory) == site.truth()
    assert synced.memory.rows[item].version == 2


def test_s09_twins(site: Site, synced: Sync) -> None:
    for _ in range(2):
        site.sandbox.aps.add_item("twin.pdf", site.models, created=OLD, modified=OLD)
    synced.tick()
    assert synced.memory.titles.count("twin.pdf") == 2


def test_s16_a_file_created_in_a_listed_folder_during_the_first_listing(site: Site) -> None:
    made: list[str] = []
    site.sandbox.faults.add(
        faults.before(lambda: made.append(site.sandbox.aps.add_item("m.pdf", site.files))),
        kind="aps.contents",
        nth=5,
    )
    sync = site.sync(workers=1)
    sync.tick()
    sync.tick()
    assert made[0] in sync.memory.live


def test_processing_moves_the_time_and_nothing_else(site: Site, synced: Sync) -> None:
    item = synced.memory.files_in(site.level)[0].external_id
    site.sandbox.aps.process(item)
    assert synced.tick().writes == 1
    assert synced.memory.rows[item].version == 1
    assert rows(synced.memory) == site.truth()


# -- moves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("forth", [True, False])
def test_a_moved_file_is_moved_not_deleted_and_created(site: Site, forth: bool) -> None:
    aps = site.sandbox.aps
    source, target = (site.room, site.models) if forth else (site.models, site.room)
    item = aps.add_item("wandering.pdf", source)
    sync = site.sync()
    sync.tick()
    gone: list[object] = []
    sync.on_batch = lambda batch: gone.extend([*batch.gone, *batch.folders_gone])
    aps.move(item, target)
    since = site.sandbox.log.mark()
    sync.tick()
    assert gone == []
    assert sync.memory.rows[item].parent_id == target
    assert site.calls(since, "aps.item") == 0, "the other listing tells"


@pytest.mark.parametrize("forth", [True, False])
def test_a_moved_folder_keeps_its_files(site: Site, forth: bool) -> None:
    aps = site.sandbox.aps
    wing = aps.add_folder("Wing", site.plans if forth else site.models)
    inner = aps.add_folder("Inner", wing)
    items = [aps.add_item(f"{n}.pdf", inner) for n in range(3)]
    sync = site.sync()
    sync.tick()
    gone: list[object] = []
    sync.on_batch = lambda batch: gone.extend([*batch.gone, *batch.folders_gone])
    aps.move(wing, site.models if forth else site.plans)
    since = site.sandbox.log.mark()
    told = sync.tick()
    assert gone == []
    assert site.calls(since, "aps.folder") == 0, "the other listing tells"
    assert told.writes == 0
    assert sync.memory.path(items[0]) == f"/{'Models' if forth else 'Plans'}/Wing/Inner/0.pdf"


def test_a_move_seen_only_where_it_left(site: Site, synced: Sync) -> None:
    aps = site.sandbox.aps
    item = synced.memory.files_in(site.room)[0].external_id
    with aps.silent():
        aps.move(item, site.models)
    aps.add_item("bump.pdf", site.room)
    synced.tick()
    assert rows(synced.memory) == site.truth()
    assert not synced.memory.gone


def test_a_folder_move_seen_only_where_it_left(site: Site, synced: Sync) -> None:
    aps = site.sandbox.aps
    with aps.silent():
        aps.move(site.room, site.models)
        aps.add_item("also new.pdf", site.room)
    aps.folders[site.room].rollup = aps.clock.tick()
    aps.add_item("bump.pdf", site.level)
    synced.tick()
    assert rows(synced.memory) == site.truth()
    assert synced.memory.tree[site.room].parent_id == site.models
    assert not synced.memory.gone


@pytest.mark.parametrize("way", ["fast", "sweep"])
@pytest.mark.parametrize("swapped", [True, False])
def test_what_was_moved_out_of_a_deleted_folder_lives_on(
    site: Site, way: str, swapped: bool
) -> None:
    aps = site.sandbox.aps
    doomed = aps.add_folder("Doomed", site.models if swapped else site.plans)
    inner = aps.add_folder("Inner", doomed)
    saved = [aps.add_item("saved.pdf", doomed), aps.add_item("inner.pdf", inner)]
    lost = aps.add_item("lost.pdf", doomed)
    sync = site.sync()
    sync.tick()
    tombstones: set[str] = set()
    sync.after_batch = lambda batch: tombstones.update(sync.memory.gone)
    target = site.plans if swapped else site.models
    aps.move(saved[0], target)
    aps.move(inner, target)
    aps.delete(doomed)
    if way == "fast":
        sync.tick()
    else:
        sync.cursor = None
        sync.tick()
    assert tombstones == {lost}
    assert rows(sync.memory) == site.truth()
    assert doomed not in sync.memory.tree


# -- deleted ---------------------------------------------------------------------------------------


def test_s29_a_deleted_file_is_a_tombstone_without_a_further_call(site: Site, synced: Sync) -> None:
    item = synced.memory.files_in(site.room)[0].external_id
    site.sandbox.aps.delete(item)
    since = site.sandbox.log.mark()
    synced.tick()
    assert synced.memory.gone[item] is GoneReason.DELETED
    assert synced.memory.rows[item].title == "R-1.pdf"
    assert site.calls(since, "aps.item") == 0


def test_s29_guid_names_never_become_titles(site: Site) -> None:
    aps = site.sandbox.aps
    item = aps.add_item("good name.pdf", site.room)
    aps.delete(item)
    guid = aps.item(item).tip.name
    aps.override(item, hidden=False)
    sync = site.sync()
    sync.tick()
    sync.sweep()
    assert item not in sync.memory.rows
    assert guid not in {r.title for r in sync.memory.rows.values()}


def test_s29_a_deleted_folder_takes_its_live_children_along(site: Site, synced: Sync) -> None:
    site.sandbox.aps.delete(site.plans)
    since = site.sandbox.log.mark()
    synced.tick()
    assert rows(synced.memory) == site.truth()
    assert set(synced.memory.gone.values()) == {GoneReason.DELETED}
    assert site.calls(since) == 2, "the gate and one listing"
    site.sandbox.aps.restore(site.plans)
    synced.tick()
    assert rows(synced.memory) == site.truth()
    assert not synced.memory.gone


def test_s29_a_file_moved_into_a_folder_that_was_deleted_before_we_saw_it(
    site: Site, synced: Sync
) -> None:
    """The file itself is not hidden, and its folder's parent is in scope."""
    aps = site.sandbox.aps
    item = synced.memory.files_in(site.room)[0].external_id
    bin_ = aps.add_folder("Bin", site.files)
    aps.move(item, bin_)
    aps.delete(bin_)
    synced.tick()
    assert rows(synced.memory) == site.truth()
    assert synced.memory.gone == {item: GoneReason.DELETED}


def test_s29_a_deleted_folder_among_top_folders_is_ignored(site: Site) -> None:
    aps = site.sandbox.aps
    ghost = aps.add_folder("Project Files", site.project)
    aps.add_item("ghost.pdf", ghost)
    aps.delete(ghost)
    sync = site.sync()
    sync.tick()
    assert rows(sync.memory) == site.truth()


def test_deleted_without_a_rollup_is_found_by_the_sweep(site: Site, synced: Sync) -> None:
    aps = site.sandbox.aps
    item = synced.memory.files_in(site.room)[0].external_id
    with aps.silent():
        aps.delete(item)
        aps.delete(site.models)
    synced.tick()
    assert not synced.memory.gone
    synced.sweep()
    assert rows(synced.memory) == site.truth()
    assert set(synced.memory.gone.values()) == {GoneReason.DELETED}


def test_hidden_entries_are_only_a_look_if_the_listing_does_not_show_them(
    site: Site, synced: Sync
) -> None:
    item = synced.memory.files_in(site.room)[0].external_id
    site.sandbox.aps.delete(item)
    site.sandbox.faults.add(faults.drop({item}), kind="aps.contents", times=None)
    since = site.sandbox.log.mark()
    synced.tick()
    assert synced.memory.gone[item] is GoneReason.DELETED
    assert site.calls(since, "aps.item") == 1


# -- sweep and window ------------------------------------------------------------------------------


def test_a_sweep_without_news_writes_nothing(synced: Sync) -> None:
    assert synced.sweep().writes == 0


def test_a_sweep_finds_silent_moves_both_ways(site: Site, synced: Sync) -> None:
    aps = site.sandbox.aps
    with aps.silent():
        aps.move(site.room, site.models)
        aps.move(synced.memory.files_in(site.models)[0].external_id, site.level)
    synced.sweep()
    assert rows(synced.memory) == site.truth()
    assert not synced.memory.gone
    assert synced.memory.tree[site.room].parent_id == site.models


def test_a_sweep_finds_a_silently_moved_out_folder(site: Site) -> None:
    aps = site.sandbox.aps
    sync = site.sync({"folder_id": site.plans})
    sync.tick()
    with aps.silent():
        aps.move(site.level, site.models)
    since = site.sandbox.log.mark()
    sync.sweep()
    assert site.calls(since, "aps.item") == 0, "the folder answers for its files"
    assert rows(sync.memory) == site.truth(site.plans)
    assert set(sync.memory.gone.values()) == {GoneReason.OUT_OF_SCOPE}
    assert site.level not in sync.memory.tree


def test_after_a_sweep_the_fast_way_is_cheap_again(site: Site, synced: Sync) -> None:
    synced.sweep()
    since = site.sandbox.log.mark()
    assert not synced.connector.probe(synced.cursor, synced.memory).changed
    assert site.calls(since) == 1


def test_a_listing_older_than_what_the_fast_way_stored_is_not_believed(
    site: Site, synced: Sync
) -> None:
    """Models is already read when a file in it is renamed and the fast way stores that."""
    aps, log = site.sandbox.aps, site.sandbox.log
    item = synced.memory.files_in(site.models)[0].external_id
    other = site.connector()
    since = log.mark()
    renamed: list[str] = []

    def interrupt(batch: Batch) -> None:
        if batch.sweep is None or renamed or not batch.records:
            return
        if batch.records[0].parent_id != site.plans:
            return
        wait_until(lambda: any(site.models in c.path for c in log.calls(since=since)))
        aps.rename(item, "renamed.pdf", touch=False)
        renamed.append(item)
        for news in other.changes(synced.cursor, synced.memory):
            synced.memory.apply(news, 2)
        assert "renamed.pdf" in synced.memory.titles

    synced.after_batch = interrupt
    synced.connector = site.connector(workers=2)
    slow = faults.before(lambda: time.sleep(12 * PROMPT_SECONDS))  # so that several are under way
    site.sandbox.faults.add(slow, kind="aps.contents", times=1)
    synced.sweep()
    assert renamed
    assert rows(synced.memory) == site.truth()


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(6000):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come to pass")


def test_a_folder_the_fast_way_removed_during_a_sweep_stays_away(site: Site, synced: Sync) -> None:
    other = site.connector()
    early = [True]
    (file,) = (f.external_id for f in synced.memory.files_in(site.models))

    def interrupt(batch: Batch) -> None:
        assert early or file in synced.memory.gone
        shown = {f.folder_id for f in batch.folders if f.state.get("seen") == 2}
        if site.models in shown and early:
            early.clear()
            site.sandbox.aps.delete(site.models)
            for news in other.changes(synced.cursor, synced.memory):
                synced.memory.apply(news, 2)
            assert site.models not in synced.memory.tree

    synced.after_batch = interrupt
    synced.connector = site.connector(workers=1)
    synced.sweep()
    assert site.models not in synced.memory.tree
    assert rows(synced.memory) == site.truth()


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("stored", range(9))
def test_s46_a_killed_sweep_goes_on_where_it_was(site: Site, workers: int, stored: int) -> None:
    sync = site.sync(workers=workers)
    left = [stored]

    def kill(batch: Batch) -> None:
        if left[0] == 0:
            raise Killed
        left[0] -= 1

    sync.on_batch = kill
    with pytest.raises(Killed):
        sync.tick()
    sync.on_batch = None
    resumed = Sync(site.connector(workers=workers), sync.memory, None, sync.progress, 1)
    resumed.tick()
    assert rows(resumed.memory) == site.truth()
    listings = site.calls(kind="aps.contents")
    assert listings <= 5 + workers + 1, "twice: one per worker and the one being stored, if slow"


def test_a_sweep_interrupted_by_the_fast_way_keeps_what_both_learnt(
    site: Site, synced: Sync
) -> None:
    aps = site.sandbox.aps
    item = synced.memory.files_in(site.room)[0].external_id
    other = site.connector()

    def interrupt(batch: Batch) -> None:
        if batch.sweep is not None and batch.records and interrupt_at:
            interrupt_at.pop()
            aps.upload(item)
            for news in other.changes(synced.cursor, synced.memory):
                synced.memory.apply(news, 2)

    interrupt_at = [1, 2, 3]
    synced.after_batch = interrupt
    synced.sweep()
    assert rows(synced.memory) == site.truth()


def test_s50_a_window_rereads_the_days_and_nothing_else(site: Site, synced: Sync) -> None:
    aps = site.sandbox.aps
    day = datetime(2026, 2, 1, tzinfo=timezone.utc)
    inside = aps.add_item("inside.pdf", site.room, modified="2026-02-01T23:59:59Z")
    edge = aps.add_item("edge.pdf", site.room, modified="2026-02-01T00:00:00Z")
    late = aps.add_item("late.pdf", site.room, modified="2026-02-02T00:00:00Z")
    before, cursor = dict(synced.memory.tree), synced.cursor
    told, met = synced.window(day, day + timedelta(days=1))
    assert met == {inside, edge}
    assert late not in synced.memory.rows
    assert told.writes == 2
    assert (synced.memory.tree, synced.cursor) == (before, cursor)
    assert synced.window(day, day + timedelta(days=1))[0].writes == 0
    synced.tick()
    assert rows(synced.memory) == site.truth()


def test_s50_a_folder_that_only_a_window_met_takes_its_files_along(
    site: Site, synced: Sync
) -> None:
    """Until the next sweep they stayed, because the listing showed no folder we knew."""
    aps = site.sandbox.aps
    new = aps.add_folder("new", site.level)
    day = datetime(2026, 2, 1, tzinfo=timezone.utc)
    item = aps.add_item("f.pdf", aps.add_folder("below", new), modified="2026-02-01T10:00:00Z")
    synced.window(day, day + timedelta(days=1))
    assert item in synced.memory.live
    aps.delete(new)
    synced.tick()
    assert item not in synced.memory.live
    assert rows(synced.memory) == site.truth()


def test_a_window_works_before_the_first_sync(site: Site) -> None:
    sync = site.sync()
    _, met = sync.window(
        datetime(2026, 3, 2, tzinfo=timezone.utc), datetime(2026, 3, 3, tzinfo=timezone.utc)
    )
    assert met == set(site.truth())


# -- announcing itself -----------------------------------------------------------------------------


def test_check_says_who_and_where_in_two_calls(site: Site) -> None:
    connector = site.connector()
    who, where = connector.check()
    assert "sandbox-client (2-legged)" in who
    assert site.project in where
    assert "'Project Files'" in where
    assert connector.api_calls == site.calls() == 2


def test_the_type_announces_itself() -> None:
    assert (SPEC.type, SPEC.kind, SPEC.credentials_variable) == (
        "autodesk_construction_cloud",
        "autodesk",
        "APS_CREDENTIALS",
    )
    details = SPEC.details.model_validate({"project_id": "42", "file_types": [".RVT", "dwg"]})
    assert SPEC.describe(details) == (
        "Syncs dwg, rvt files in Project Files of Autodesk project b.42."
    )


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"project_id": ""},
        {"project_id": "b.1", "file_type": ["pdf"]},
        {"project_id": "b.1", "file_types": []},
        {"project_id": "b.1", "file_types": ["a/b"]},
        {"project_id": "b.1", "folder_id": "https://acc.autodesk.com/docs/files?folderUrn=x"},
        {"project_id": 7},
    ],
)
def test_wrong_details_are_refused(details: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        SPEC.details.model_validate(details)


def test_a_percent_encoded_folder_id_is_understood() -> None:
    details = SPEC.details.model_validate(
        {"project_id": "1", "folder_id": "urn%3Aadsk.wipprod%3Afs.folder%3Aco.x"}
    )
    assert getattr(details, "folder_id") == "urn:adsk.wipprod:fs.folder:co.x"  # noqa: B009


def test_default_credentials_name_what_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="APS_CLIENT_SECRET not set"):
        SPEC.default_credentials({"APS_CLIENT_ID": "x"})
    assert SPEC.default_credentials({"APS_CLIENT_ID": "x", "APS_CLIENT_SECRET": "y"}) == {
        "client_id": "x",
        "client_secret": "y",
    }
