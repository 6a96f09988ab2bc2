"""Autodesk: from documents to records, however odd the documents are."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from file_connector.connectors.autodesk.api import Api, Page
from file_connector.connectors.autodesk.connector import AutodeskConnector
from file_connector.connectors.autodesk.mapping import folder_entry, item_entry
from file_connector.connectors.autodesk.tree import settled
from file_connector.connectors.autodesk.walk import _Arrivals, _End, walk
from file_connector.errors import ForbiddenError, NotFoundError, TransientError
from file_connector.models import FileRecord
from file_connector.sandbox import faults
from file_connector_tests.connectors.acc import Site, a_site, rows

FOLDER = "urn:adsk.wipprod:fs.folder:co.AAAAAAAAAAAAAAAAAAAAAA"
LINEAGE = "urn:adsk.wipprod:dm.lineage:CCCCCCCCCCCCCCCCCCCCCC"

ITEM: dict[str, Any] = {
    "type": "items",
    "id": LINEAGE,
    "attributes": {
        "displayName": "S-101 Slab.pdf",
        "createTime": "2024-03-01T08:00:00.0000000Z",
        "createUserName": "",
        "lastModifiedTime": "2024-03-04T16:20:05.0000000Z",
        "lastModifiedUserName": "Jo Doe",
        "hidden": False,
        "reserved": False,
        "extension": {"type": "items:autodesk.bim360:File", "data": {}},
    },
    "links": {"self": {"href": "…"}},
    "relationships": {
        "tip": {"data": {"type": "versions", "id": f"{LINEAGE}?version=2"}},
        "parent": {"data": {"type": "folders", "id": FOLDER}},
    },
}
TIP: dict[str, Any] = {
    "type": "versions",
    "id": "urn:adsk.wipprod:fs.file:vf.CCCCCCCCCCCCCCCCCCCCCC?version=2",
    "attributes": {
        "name": "S-101 Slab (rev 2).pdf",
        "displayName": "S-101 Slab.pdf",
        "createTime": "2024-03-04T16:20:01.0000000Z",
        "lastModifiedTime": "2024-03-04T16:20:06.0000000Z",
        "versionNumber": 2,
        "storageSize": 135654,
        "fileType": "pdf",
        "extension": {"type": "versions:autodesk.bim360:File", "data": {}},
    },
    "links": {"webView": {"href": "https://acc.autodesk.com/docs/files/projects/1111?x=1"}},
}


@pytest.fixture
def site() -> Iterator[Site]:
    with a_site() as site:
        yield site


def record(item: dict[str, Any], tip: dict[str, Any] | None) -> FileRecord:
    found = item_entry(item, tip, project="b.1111").record
    assert found is not None
    return found


def changed(document: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    """A copy; an attribute set to ``...`` is left out."""
    copied = copy.deepcopy(document)
    for name, value in attributes.items():
        copied["attributes"][name] = value
        if value is ...:
            del copied["attributes"][name]
    return copied


def test_the_documented_example() -> None:
    assert record(ITEM, TIP) == FileRecord(
        external_id=LINEAGE,
        title="S-101 Slab (rev 2).pdf",
        link="https://acc.autodesk.com/docs/files/projects/1111?x=1",
        created_at=datetime(2024, 3, 1, 8, tzinfo=timezone.utc),
        updated_at=datetime(2024, 3, 4, 16, 20, 6, tzinfo=timezone.utc),
        mime_type="application/pdf",
        size_bytes=135654,
        version=2,
        parent_id=FOLDER,
        raw={
            "tip": TIP["id"],
            "file_type": "pdf",
            "extension": "items:autodesk.bim360:File",
            "modified_by": "Jo Doe",
        },
        version_is_content=True,
    )


def test_updated_is_the_later_of_item_and_tip() -> None:
    later = changed(ITEM, lastModifiedTime="2024-03-05T00:00:00Z")
    assert record(later, TIP).updated_at == datetime(2024, 3, 5, tzinfo=timezone.utc)
    assert record(changed(ITEM, lastModifiedTime=...), TIP).updated_at is not None
    assert record(changed(ITEM, lastModifiedTime="soon"), None).updated_at is None


@pytest.mark.parametrize(
    "stamp",
    [
        "2024-03-04T16:20:06Z",
        "2024-03-04T16:20:06.000Z",
        "2024-03-04T16:20:06.0000Z",
        "2024-03-04T16:20:06.0000000Z",
        "2024-03-04T16:20:06+00:00",
        "2024-03-04T16:20:06+0000",
        "2024-03-04T17:20:06.000+01:00",
    ],
)
def test_s31_times_of_every_form(stamp: str) -> None:
    found = record(changed(ITEM, createTime=stamp), changed(TIP, lastModifiedTime=stamp))
    assert (
        found.created_at == found.updated_at == datetime(2024, 3, 4, 16, 20, 6, tzinfo=timezone.utc)
    )
    folder = {"id": FOLDER, "attributes": {"lastModifiedTimeRollup": stamp}}
    assert folder_entry(folder).rollup == "2024-03-04T16:20:06.000000Z"


def test_s31_mixed_times_never_look_like_changes(site: Site) -> None:
    site.sandbox.aps.time_style = "mixed"
    sync = site.sync()
    sync.tick()
    for _ in range(5):
        assert not sync.connector.probe(sync.cursor, sync.memory).changed
    assert sync.sweep().writes == 0


def test_a_rollup_that_is_no_time_is_compared_as_text() -> None:
    assert folder_entry({"id": "f", "attributes": {"lastModifiedTimeRollup": "v7"}}).rollup == "v7"
    assert folder_entry({"id": "f"}).rollup is None


@pytest.mark.parametrize(
    ("tip_link", "item_link", "link"),
    [
        ("https://a.example/1", "https://b.example/2", "https://a.example/1"),
        (None, "https://b.example/2", "https://b.example/2"),
        ("javascript:alert(1)", "http://b.example/2", "http://b.example/2"),
        ("https://x.example/\nSet-Cookie", None, "built"),
        ("https://[broken", None, "built"),
        ("ftp://x.example/", "data:text/html,x", "built"),
    ],
)
def test_s49_only_web_links(tip_link: str | None, item_link: str | None, link: str) -> None:
    item, tip = copy.deepcopy(ITEM), copy.deepcopy(TIP)
    tip["links"] = {"webView": {"href": tip_link}} if tip_link else {}
    item["links"] = {"webView": {"href": item_link}} if item_link else {}
    built = (
        "https://acc.autodesk.com/docs/files/projects/1111?folderUrn=urn%3Aadsk.wipprod%3Afs.folder"
        "%3Aco.AAAAAAAAAAAAAAAAAAAAAA&entityId=urn%3Aadsk.wipprod%3Adm.lineage"
        "%3ACCCCCCCCCCCCCCCCCCCCCC"
    )
    assert record(item, tip).link == (built if link == "built" else link)


def test_s30_without_tip_a_row_with_nulls_and_a_reason() -> None:
    row = record(ITEM, None)
    assert (row.title, row.version, row.size_bytes) == ("S-101 Slab.pdf", None, None)
    assert row.raw["remark"] == "no version of this file is shown (yet)"


def test_s30_without_storage_a_reason() -> None:
    row = record(ITEM, changed(TIP, storageSize=..., fileType=...))
    assert row.size_bytes is None
    assert "upload in progress" in row.raw["remark"]
    assert row.raw["file_type"] == "pdf", "from the title"


def test_s30_empty_names_are_absent() -> None:
    assert "created_by" not in record(ITEM, TIP).raw
    assert record(changed(ITEM, displayName=""), changed(TIP, name="", displayName="")).title == (
        LINEAGE
    )


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "items", "id": "i"},
        {"type": "items", "id": "i", "attributes": None, "relationships": [], "links": 7},
        {"type": "items", "id": "i", "attributes": {"extension": "x", "displayName": 5}},
    ],
)
def test_s30_whatever_is_broken_is_a_row(broken: dict[str, Any]) -> None:
    tip = {"id": "t", "attributes": {"versionNumber": "3", "storageSize": True, "name": None}}
    row = record(broken, tip)
    assert (row.external_id, row.title, row.version, row.size_bytes) == ("i", "i", 3, None)
    assert row.link is None


@pytest.mark.parametrize(
    ("told", "size"),
    [("12", 12), (True, None), ("\u00b2", None), ("9" * 5000, None), (1e400, None)],
)
def test_s30_a_size_that_is_no_number_is_none(told: Any, size: int | None) -> None:
    assert record(ITEM, changed(TIP, storageSize=told)).size_bytes == size


def test_s29_a_deleted_tip_hides_the_item() -> None:
    tip = changed(TIP, extension={"type": "versions:autodesk.core:Deleted"}, name="0a1b-guid")
    assert item_entry(ITEM, tip, project="b.1").record is None
    assert item_entry(changed(ITEM, hidden=True), TIP, project="b.1").hidden


@pytest.mark.parametrize(
    "name",
    [
        "100% #1 & more + less.pdf",
        "Plan \U0001f3d7️.pdf",
        "Bu\u0308ro e\u0301tage.pdf",
        "ü" * 251 + ".pdf",
        "no extension",
        " leading and trailing .pdf ",
        "quote ' \" back\\slash.pdf",
        "line\nbreak.pdf",
    ],
)
def test_odd_names_arrive_unchanged(site: Site, name: str) -> None:
    item = site.sandbox.aps.add_item(name, site.room)
    sync = site.sync()
    sync.tick()
    assert sync.memory.rows[item].title == name
    assert rows(sync.memory) == site.truth()


def test_s30_odd_items_of_a_project_are_all_there(site: Site) -> None:
    aps = site.sandbox.aps
    no_tip = aps.add_item("no tip.pdf", site.room, tip_included=False)
    uploading = aps.add_item("big.ifc", site.room, storage=False, state="PROCESSING")
    linkless = aps.add_item("no link.pdf", site.room, web_view=False)
    aps.empty_users = True
    sync = site.sync()
    sync.tick()
    assert rows(sync.memory) == site.truth()
    assert sync.memory.rows[no_tip].version == 1, "looked up on its own"
    assert sync.memory.rows[no_tip].parent_id == site.room
    assert sync.memory.rows[uploading].size_bytes is None
    link = sync.memory.rows[linkless].link
    assert link is not None
    assert link.startswith("https://acc.autodesk.com/docs/files/projects/")
    assert sync.sweep().writes == 0


@pytest.mark.parametrize("status", [403, 404])
def test_s30_a_tip_that_cannot_be_looked_up_leaves_nulls(site: Site, status: int) -> None:
    item = site.sandbox.aps.add_item("no tip.pdf", site.room, tip_included=False)
    site.sandbox.faults.add(faults.aps_error(status), kind="aps.item", times=None)
    sync = site.sync()
    sync.tick()
    assert sync.memory.rows[item].version is None
    assert "remark" in sync.memory.rows[item].raw


def test_s30_a_listing_without_included(site: Site) -> None:
    site.sandbox.faults.add(faults.without_included(), kind="aps.contents", times=None)
    sync = site.sync()
    sync.tick()
    assert rows(sync.memory) == site.truth()


# -- same second -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rollup", "second", "trusted"),
    [
        ("2026-03-02T09:00:10.000000Z", 10, False),
        ("2026-03-02T09:00:10.000000Z", 11, True),
        ("2026-03-02T09:00:10.000000Z", 9, True),
        ("2026-03-02T09:00:10.250000Z", 10, True),
        ("nonsense", 10, True),
        (None, 10, True),
    ],
)
def test_a_listing_within_the_second_of_its_rollup_is_not_final(
    rollup: str | None, second: int, trusted: bool
) -> None:
    served = datetime(2026, 3, 2, 9, 0, second, tzinfo=timezone.utc)
    assert settled(rollup, served) is trusted
    assert settled(rollup, None) is True


class Within(Api):
    """Listings answered within one given second of the server's clock."""

    second: datetime | None = None

    def contents(self, folder_id: str) -> Iterator[Page]:
        for page in super().contents(folder_id):
            page.served_at = self.second
            yield page


@pytest.mark.parametrize("first", [True, False])
def test_two_changes_in_one_second_are_both_found(site: Site, first: bool) -> None:
    """The second comes after the listing; the rollup, in whole seconds, stays what it was."""
    sync = site.sync()
    assert isinstance(sync.connector, AutodeskConnector)
    api = sync.connector._api = Within(sync.connector._transport, site.project)
    if not first:
        sync.tick()
    site.sandbox.aps.add_item("one.pdf", site.room)
    api.second = site.sandbox.clock.now()
    sync.tick()
    site.sandbox.clock.step *= 0
    site.sandbox.aps.add_item("two.pdf", site.room)
    api.second = site.sandbox.clock.advance(1)
    sync.tick()
    assert rows(sync.memory) == site.truth()
    assert not sync.connector.probe(sync.cursor, sync.memory).changed


# -- walking ---------------------------------------------------------------------------------------


def tree(name: str) -> Iterator[str]:
    """Each name has two children down to three letters; one page per child, one at least."""
    if len(name) < 3:
        yield from (f"{name}{c}" for c in "xy")
    else:
        yield ""


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize("prompt", [0.0, 60.0])
def test_every_folder_is_handed_out_once_and_whole(workers: int, prompt: float) -> None:
    todo = ["b", "a"]
    found: dict[str, list[object]] = {}
    for name, page in walk(todo, tree, workers, prompt):
        found.setdefault(name, []).append(page)
        if isinstance(page, str) and page:
            todo.append(page)
    names = {"a", "b", *(f"{p}{c}" for p in "ab" for c in "xy")}
    leaves = {f"{p}{c}{d}" for p in "ab" for c in "xy" for d in "xy"}
    assert found == {name: list(tree(name)) for name in names | leaves}


def test_s46_while_answers_come_promptly_a_kill_costs_one_folder() -> None:
    begun: list[str] = []

    def pages(name: str) -> Iterator[str]:
        begun.append(name)
        yield from tree(name)

    todo = ["b", "a"]
    stored: set[str] = set()
    for name, page in walk(todo, pages, 4, prompt_seconds=60.0):
        assert set(begun) - stored == {name}, "what dying here and now would repeat"
        if isinstance(page, str) and page:
            todo.append(page)
        if len(name) == 3 or page == f"{name}y":
            stored.add(name)
    assert len(begun) == len(stored) == 14


def test_s46_a_slow_provider_s_folders_are_under_way_until_they_are_stored() -> None:
    """What dying costs: one folder for each worker and the one that is being stored, no more."""
    begun: list[str] = []

    def pages(name: str) -> Iterator[str]:
        begun.append(name)
        yield "first"
        yield "last"

    stored = 0
    for _, page in walk([str(n) for n in range(40)], pages, 4, prompt_seconds=0.0):
        assert len(begun) - stored <= 4 + 1
        stored += page == "last"
    assert stored == 40


@pytest.mark.parametrize(("late", "slow"), [({1}, False), ({1, 6}, False), ({1, 3}, True)])
def test_s46_a_hiccup_is_no_slowness(late: set[int], slow: bool) -> None:
    seen: list[bool] = []
    arrivals = _Arrivals[str, str](room=99, prompt_seconds=1.0)
    for n in range(9):
        arrivals.put("a", "page", seconds=1.1 if n in late else 0.1)
        seen.append(arrivals.slow)
    assert any(seen) == slow
    assert not seen[-1], "it is prompt again"


def test_the_end_of_what_is_stored_comes_before_other_pages() -> None:
    """So that the next listing is asked for at once; but never before the folder's own pages."""
    arrivals = _Arrivals[str, str](room=99, prompt_seconds=1.0)
    arrivals.put("a", "a1", 0.0)
    arrivals.put("b", "b1", 0.0)
    assert arrivals.get() == ("a", "a1")
    arrivals.put("b", end := _End(), 0.0)
    arrivals.put("a", end, 0.0)
    assert [arrivals.get() for _ in range(3)] == [("a", end), ("b", "b1"), ("b", end)]


def test_folders_are_listed_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=30)

    def pages(name: str) -> Iterator[str]:
        together.wait()
        yield name

    assert len(list(walk(list("abcd"), pages, 4))) == 4


def test_s46_no_answer_waits_for_a_slower_one() -> None:
    """What waits would be asked for again after a kill, and hold up what can be stored."""
    slow = threading.Event()

    def pages(name: str) -> Iterator[str]:
        if name == "a":
            assert slow.wait(30)
        yield name

    walking = walk(list("edcba"), pages, 4, prompt_seconds=0.001)
    assert sorted(next(walking)[0] for _ in range(4)) == ["b", "c", "d", "e"]
    slow.set()
    assert list(walking) == [("a", "a")]


@pytest.mark.parametrize("refusal", [ForbiddenError("no"), NotFoundError("gone")])
def test_a_refusal_ends_its_folder_only(refusal: Exception) -> None:
    def pages(name: str) -> Iterator[str]:
        yield "page"
        if name == "b":
            raise refusal

    found = list(walk(["c", "b", "a"], pages, 2))
    assert [page for name, page in found if name == "b"] == ["page", refusal]
    assert [(n, p) for n, p in sorted(found, key=str) if n != "b"] == [("a", "page"), ("c", "page")]


def test_a_failure_is_raised_after_what_arrived_before_it() -> None:
    def pages(name: str) -> Iterator[str]:
        if name == "b":
            raise TransientError("away")
        yield "page"

    walking = walk(["c", "b", "a"], pages, 1)
    assert next(walking) == ("a", "page")
    with pytest.raises(TransientError):
        next(walking)


def test_only_a_few_pages_are_held_and_an_abandoned_walk_stops() -> None:
    made = threading.Semaphore(0)
    count = [0]

    def pages(name: str) -> Iterator[int]:
        while True:
            count[0] += 1
            made.release()
            yield count[0]

    walking = walk(["a"], pages, 1)
    next(walking)
    for _ in range(3):
        assert made.acquire(timeout=30)
    walking.close()
    assert count[0] <= 5
    assert not [t for t in threading.enumerate() if t.name == "autodesk-listing"]
