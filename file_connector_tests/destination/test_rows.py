"""What one commit does to ``files``: the same promises on every database."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from file_connector.destination.sql_store import SqlStore
from file_connector.errors import ConflictError
from file_connector.models import CommitResult, Folder, FolderGone, Gone, GoneReason, Json
from file_connector_tests.builders import NOON, a_file, an_identity, at
from file_connector_tests.destination.conftest import Clock, Place
from file_connector_tests.destination.helpers import Writer, folders

DELETED, TRASHED = GoneReason.DELETED, GoneReason.TRASHED


def seqs(place: Place, endpoint_id: str = "plans") -> dict[str, int]:
    return {key: row["change_seq"] for key, row in place.files(endpoint_id).items()}


def test_a_new_file_becomes_a_full_row(store: SqlStore) -> None:
    result = Writer(store).commit(
        a_file("f1", created_at=at(8), updated_at=at(9), version=7, raw={"md5": "x", "n": [1, {}]})
    )
    assert (result.inserted, result.updated, result.unchanged, result.tombstoned) == (1, 0, 0, 0)
    assert result.changed_ids == {"f1"}
    assert store.row("plans", "f1") == {
        "endpoint_id": "plans",
        "external_id": "f1",
        "source": "google_drive",
        "project_id": "tower-42",
        "user_id": "ana",
        "title": "f1.pdf",
        "link": "https://files.example/f1",
        "created_at": "2026-03-01T08:00:00.000000Z",
        "updated_at": "2026-03-01T09:00:00.000000Z",
        "mime_type": "application/pdf",
        "size_bytes": 100,
        "version": 7,
        "path": "f1.pdf",
        "parent_id": "root",
        "gone_at": None,
        "gone_reason": None,
        "first_seen_at": "2026-03-01T12:00:00.000000Z",
        "changed_at": "2026-03-01T12:00:00.000000Z",
        "change_seq": 1,
        "raw": {"md5": "x", "n": [1, {}]},
    }


def test_what_python_takes_for_equal_is_told_apart(store: SqlStore, place: Place) -> None:
    """One and true, in rows that agree in all but their ids."""
    writer = Writer(store)
    for version in (1, 2):  # inserted, then overwritten
        writer.commit(
            a_file("f1", version=version, raw={"n": 1, "v": version}),
            a_file("f2", version=version, raw={"n": True, "v": version}),
        )
        for external_id, told in (("f1", 1), ("f2", True)):
            row = store.row("plans", external_id)
            assert row is not None
            raw = row["raw"]
            assert (raw["n"], type(raw["n"]), raw["v"]) == (told, type(told), version)


def test_a_file_may_tell_almost_nothing(store: SqlStore) -> None:
    bare = {"link": None, "created_at": None, "updated_at": None, "mime_type": None}
    Writer(store).commit(
        a_file("f1", size_bytes=None, version=None, parent_id=None, title="", **bare)
    )
    row = store.row("plans", "f1")
    assert row is not None
    assert {name for name, value in row.items() if value is None} == {
        *bare,
        "size_bytes",
        "version",
        "parent_id",
        "gone_at",
        "gone_reason",
    }


def test_s26_the_same_batch_twice_writes_no_row(
    store: SqlStore, place: Place, clock: Clock
) -> None:
    writer = Writer(store)
    batch = [
        a_file(f"f{i}", raw={"a": [1.5, None, {"b": "ü"}], "big": 2**60, "e": 1e22}, parent_id="b")
        for i in range(3)
    ]
    tree = folders("a", "a/b")
    writer.commit(*batch, folders=tree)
    before = place.files()
    clock.pass_by(60)
    result = writer.commit(*batch, folders=tree)
    assert (result.inserted, result.updated, result.unchanged) == (0, 0, 3)
    assert result.changed_ids == frozenset()
    assert place.files() == before
    assert place.counter() == 3


NEWS: list[dict[str, Any]] = [
    {"title": "other"},
    {"link": "https://files.example/other"},
    {"link": None},
    {"created_at": at(7)},
    {"updated_at": at(9) + timedelta(microseconds=1)},
    {"updated_at": at(3)},
    {"mime_type": "text/plain"},
    {"size_bytes": 101},
    {"size_bytes": 2**40},
    {"parent_id": "elsewhere"},
    {"raw": {"md5": "y"}},
    {"version": 2},
]


def test_any_difference_is_news(store: SqlStore, place: Place, clock: Clock) -> None:
    """S07 rename only, S08 time goes backwards, S32 new version."""
    writer = Writer(store)
    writer.commit(a_file("same"), *[a_file(f"f{i:02}") for i in range(len(NEWS))])
    first = place.files()
    clock.pass_by(60)
    changed = [a_file(f"f{i:02}", **news) for i, news in enumerate(NEWS)]
    result = writer.commit(a_file("same"), *changed)
    assert (result.inserted, result.updated, result.unchanged) == (0, len(NEWS), 1)
    now = place.files()
    assert now["same"] == first["same"]
    for record in changed:
        before, after = first[record.external_id], now[record.external_id]
        assert after["first_seen_at"] == before["first_seen_at"]
        assert after["changed_at"] > before["changed_at"]
        assert after["change_seq"] > max(row["change_seq"] for row in first.values())
    assert writer.commit(*changed).unchanged == len(NEWS)


def test_s26_a_version_that_only_counts_views_is_no_news(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    writer.commit(a_file("f1", version=1, version_is_content=False))
    result = writer.commit(a_file("f1", version=9, version_is_content=False))
    assert result.unchanged == 1
    assert place.files()["f1"]["version"] == 1


def test_an_older_version_never_overwrites(store: SqlStore) -> None:
    writer = Writer(store)
    for stored, incoming, wins in [
        (5, 4, False),
        (5, 5, True),
        (5, 6, True),
        (5, None, True),
        (None, 1, True),
    ]:
        name = f"{stored}-{incoming}"
        writer.commit(a_file(name, title="stored", version=stored))
        result = writer.commit(a_file(name, title="incoming", version=incoming))
        row = store.row("plans", name)
        assert row is not None
        assert row["title"] == ("incoming" if wins else "stored"), name
        assert (result.updated, result.unchanged) == ((1, 0) if wins else (0, 1)), name


def test_an_older_version_does_not_revive(store: SqlStore) -> None:
    writer = Writer(store)
    writer.commit(a_file("f1", version=5))
    writer.commit(gone=[Gone("f1", TRASHED)])
    assert writer.commit(a_file("f1", version=4)).unchanged == 1
    assert store.row("plans", "f1")["gone_reason"] == "trashed"  # type: ignore[index]


def test_s05_a_restored_file_is_the_same_row(store: SqlStore, place: Place, clock: Clock) -> None:
    writer = Writer(store)
    writer.commit(a_file("f1"))
    clock.pass_by(60)
    gone = writer.commit(gone=[Gone("f1", TRASHED)])
    assert (gone.tombstoned, set(gone.changed_ids)) == (1, {"f1"})
    tombstone = place.files()["f1"]
    assert (tombstone["gone_reason"], tombstone["change_seq"]) == ("trashed", 2)
    assert tombstone["gone_at"] == tombstone["changed_at"] > tombstone["first_seen_at"]
    clock.pass_by(60)
    back = writer.commit(a_file("f1"))
    assert (back.inserted, back.updated) == (0, 1)
    row = place.files()["f1"]
    assert (row["gone_at"], row["gone_reason"], row["change_seq"]) == (None, None, 3)
    assert row["first_seen_at"] == tombstone["first_seen_at"]


def test_gone_means_live_rows_only(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    writer.commit(a_file("f1"), a_file("f2"))
    writer.commit(gone=[Gone("f1", TRASHED)])
    before = place.files()
    result = writer.commit(gone=[Gone("f1", DELETED), Gone("never", DELETED)])
    assert result.tombstoned == 0
    assert place.files() == before
    assert place.counter() == 3


def test_many_are_gone_at_once_each_with_its_reason(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    writer.commit(*[a_file(f"f{i:04}") for i in range(1200)])
    result = writer.commit(
        gone=[Gone(f"f{i:04}", TRASHED if i % 2 else DELETED) for i in reversed(range(1100))]
    )
    assert result.tombstoned == 1100
    rows = place.files()
    assert rows["f0001"]["gone_reason"] == "trashed"
    assert rows["f0002"]["gone_reason"] == "deleted"
    assert rows["f1100"]["gone_at"] is None
    assert len(set(seqs(place).values())) == 1200


def test_s09_twins_are_two_rows(store: SqlStore, place: Place) -> None:
    Writer(store).commit(a_file("f1", title="same"), a_file("f2", title="same"))
    assert [row["title"] for row in place.files().values()] == ["same", "same"]


def test_s37_the_same_file_of_two_tenants_is_two_rows(store: SqlStore, place: Place) -> None:
    ana = Writer(store, an_identity("ana-plans"), "run-a")
    ben = Writer(store, an_identity("ben-plans", user_id="ben", project_id="mall"), "run-b")
    for writer in (ana, ben):
        title = f"of {writer.identity.user_id}"
        writer.commit(a_file("f1", title=title, parent_id="b"), folders=folders("a", "a/b"))
    assert place.files("ana-plans")["f1"]["user_id"] == "ana"
    assert place.files("ben-plans")["f1"]["project_id"] == "mall"
    before = place.files("ben-plans")
    ana.commit(folders=[Folder("b", "a", "renamed")])
    assert place.files("ana-plans")["f1"]["path"] == "renamed/of ana"
    ana.commit(gone=[Gone("f1", DELETED)], folders_gone=[FolderGone("a", DELETED)])
    store.reset("ana-plans")
    store.mirror([])
    assert place.files("ben-plans") == before
    assert [f.name for f in store.known("ben-plans").folders()] == ["A", "B"]


# -- paths -----------------------------------------------------------------------------------------


def paths(place: Place) -> dict[str, str]:
    return {key: row["path"] for key, row in place.files().items()}


def test_paths_begin_below_the_start_folder(store: SqlStore, place: Place) -> None:
    Writer(store).commit(
        a_file("deep", parent_id="c"),
        a_file("top", parent_id="a"),
        a_file("lost", parent_id="nowhere"),
        a_file("orphan", parent_id=None),
        folders=folders("a", "a/b", "b/c"),
    )
    assert paths(place) == {
        "deep": "B/C/deep.pdf",
        "lost": "lost.pdf",
        "orphan": "orphan.pdf",
        "top": "top.pdf",
    }


def test_s07_a_renamed_folder_renames_the_paths_below(
    store: SqlStore, place: Place, clock: Clock
) -> None:
    writer = Writer(store)
    writer.commit(
        a_file("in_b", parent_id="b"),
        a_file("in_c", parent_id="c"),
        a_file("in_d", parent_id="d"),
        a_file("gone", parent_id="c"),
        folders=folders("a", "a/b", "b/c", "a/d"),
    )
    writer.commit(gone=[Gone("gone", DELETED)])
    before = place.files()
    clock.pass_by(60)
    result = writer.commit(folders=[Folder("b", "a", "neu/ü")])
    assert (result.updated, set(result.changed_ids)) == (2, {"in_b", "in_c"})
    after = place.files()
    assert paths(place) == {
        "in_b": "neu/ü/in_b.pdf",
        "in_c": "neu/ü/C/in_c.pdf",
        "in_d": "D/in_d.pdf",
        "gone": "B/C/gone.pdf",
    }
    assert (after["in_d"], after["gone"]) == (before["in_d"], before["gone"])
    assert sorted(after[key]["change_seq"] for key in ("in_b", "in_c")) == [6, 7]
    assert after["in_b"]["changed_at"] > before["in_b"]["changed_at"]


def test_a_moved_folder_takes_its_files_along(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    writer.commit(a_file("f", parent_id="c"), folders=folders("a", "a/b", "b/c", "a/d"))
    assert writer.commit(folders=[Folder("c", "d", "C")]).updated == 1
    assert paths(place) == {"f": "D/C/f.pdf"}


def test_a_rename_and_its_files_in_one_batch_count_once(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    both = [a_file("f1", parent_id="b"), a_file("f2", parent_id="b")]
    writer.commit(*both, folders=folders("a", "a/b"))
    result = writer.commit(
        both[0], a_file("f2", parent_id="b", title="new"), folders=[Folder("b", "a", "N")]
    )
    assert (result.inserted, result.updated, result.unchanged) == (0, 2, 0)
    assert paths(place) == {"f1": "N/f1.pdf", "f2": "N/new"}


def test_a_folder_known_late_completes_the_paths(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    writer.commit(a_file("f", parent_id="c"), folders=folders("b/c"))
    assert paths(place) == {"f": "C/f.pdf"}
    assert writer.commit(folders=folders("a", "a/b")).updated == 1
    assert paths(place) == {"f": "B/C/f.pdf"}


def test_a_folder_that_seems_to_lie_in_itself_is_survived(store: SqlStore, place: Place) -> None:
    """A feed may tell "c moved below d" before "d moved out of c"."""
    writer = Writer(store)
    writer.commit(a_file("f", parent_id="d"), folders=folders("a", "a/c", "c/d"))
    writer.commit(folders=[Folder("c", "d", "C")])
    writer.commit(folders=[Folder("d", "a", "D")])
    writer.commit(a_file("g", parent_id="c"))
    assert paths(place) == {"f": "D/f.pdf", "g": "D/C/g.pdf"}


def test_a_folder_in_a_circle_can_go(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    writer.commit(a_file("f", parent_id="d"), folders=folders("d/c", "c/d"))
    assert writer.commit(folders_gone=[FolderGone("c", DELETED)]).tombstoned == 1
    assert list(store.known("plans").folders()) == []


def test_many_folders_and_files_below_a_rename(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    names = [f"s{i:04}" for i in range(1100)]
    writer.commit(
        *[a_file(f"f{i:04}", parent_id=names[i % 1100]) for i in range(2200)],
        folders=[*folders("a", "a/b"), *(Folder(n, "b", n) for n in names)],
    )
    assert writer.commit(folders=[Folder("b", "a", "N")]).updated == 2200
    rows = place.files()
    assert {row["path"] for row in rows.values()} == {
        f"N/{row['parent_id']}/{row['title']}" for row in rows.values()
    }
    assert len(set(seqs(place).values())) == 2200


def test_a_folders_own_state_is_no_news_to_readers(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    writer.commit(a_file("f", parent_id="b"), folders=folders("a", "a/b"))
    result = writer.commit(folders=[Folder("b", "a", "B", {"rollup": "t2", "nul": "a\x00b"})])
    assert result.updated == 0
    assert place.counter() == 1
    known = store.known("plans").folder("b")
    assert known is not None
    assert known.state == {"rollup": "t2", "nul": "ab"}


# -- folders that leave ----------------------------------------------------------------------------


def test_s03_a_folder_takes_its_whole_known_subtree(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    writer.commit(
        a_file("in_b", parent_id="b"),
        a_file("in_c", parent_id="c"),
        a_file("early", parent_id="c"),
        a_file("in_a", parent_id="a"),
        folders=folders("a", "a/b", "b/c", "a/d"),
    )
    writer.commit(gone=[Gone("early", TRASHED)])
    result = writer.commit(folders_gone=[FolderGone("b", GoneReason.OUT_OF_SCOPE)])
    assert (result.tombstoned, set(result.changed_ids)) == (2, {"in_b", "in_c"})
    rows = place.files()
    assert {key: row["gone_reason"] for key, row in rows.items()} == {
        "in_a": None,
        "in_b": "out_of_scope",
        "in_c": "out_of_scope",
        "early": "trashed",
    }
    assert [f.folder_id for f in store.known("plans").folders()] == ["a", "d"]


def test_files_of_an_unknown_folder_leave_with_it(store: SqlStore) -> None:
    writer = Writer(store)
    writer.commit(a_file("f", parent_id="x"))
    assert writer.commit(folders_gone=[FolderGone("x", DELETED)]).tombstoned == 1


def test_the_parts_of_a_commit_are_applied_in_order(store: SqlStore, place: Place) -> None:
    """Folders first, so what moves out of a leaving folder stays; records; then what leaves."""
    writer = Writer(store)
    writer.commit(a_file("saved", parent_id="c"), folders=folders("a", "a/b", "b/c"))
    result = writer.commit(
        a_file("late", parent_id="b"),
        a_file("both", parent_id="a"),
        folders=[Folder("c", "a", "C")],
        folders_gone=[FolderGone("b", DELETED)],
        gone=[Gone("both", TRASHED)],
    )
    assert (result.inserted, result.updated, result.tombstoned) == (2, 1, 2)
    rows = place.files()
    assert {key: row["gone_reason"] for key, row in rows.items()} == {
        "saved": None,
        "late": "deleted",
        "both": "trashed",
    }
    assert rows["saved"]["path"] == "C/saved.pdf"


def test_s40_the_known_tree_can_be_forgotten_first(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    writer.commit(a_file("f", parent_id="b"), folders=folders("a", "a/b"))
    writer.commit(folders=folders("z"), forget_folders=True)
    assert [f.folder_id for f in store.known("plans").folders()] == ["z"]
    assert paths(place) == {"f": "B/f.pdf"}


# -- values ----------------------------------------------------------------------------------------

NASTY = [
    "tab\there",
    "line\nbreak\r\n",
    "back\\slash \\N \\. \\\\n",
    "\\N",
    "\\.",
    "quote ' \" `; drop table files; --",
    "percent %s %(x)s :name",
    "emoji 👷🏽‍♀️ ümläut 日本語 \u202egnp.exe",
    "\x01\x02\x7f\x1b[31mred\u2028",
    "",
    " ",
    "null",
    "{}",
    "long " + "x" * 100_000,
]


def test_titles_come_back_as_they_are(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    records = [
        a_file(f"f{i:02}", title=title, mime_type=title, raw={"t": title, title: [title]})
        for i, title in enumerate(NASTY)
    ]
    writer.commit(*records)
    for _ in range(2):
        for record, title in zip(records, NASTY, strict=True):
            row = store.row("plans", record.external_id)
            assert row is not None
            assert (row["title"], row["mime_type"], row["path"]) == (title, title, title)
            assert row["raw"] == {"t": title, title: [title]}
        assert writer.commit(*records).unchanged == len(NASTY)
        writer.commit(*[a_file(r.external_id, title="between") for r in records])
        writer.commit(*records)
    alone = [a_file(f"t{i:02}", title=title) for i, title in enumerate(NASTY)]
    writer.commit(*alone)
    stored = place.files()
    assert [stored[r.external_id]["title"] for r in alone] == NASTY


def test_ids_are_found_again_as_they_are(store: SqlStore, place: Place) -> None:
    ids = {*NASTY[:-1], 'a","b', "{x}", "\\", '"', ",", "NULL", "o'hara", " lead", '\\"'} - {""}
    writer = Writer(store)
    records = [a_file(i, parent_id=i) for i in ids]
    tree = [Folder("a", None, "A"), *(Folder(i, "a", "D") for i in ids)]
    assert writer.commit(*records, folders=tree).inserted == len(ids)
    assert set(place.files()) == ids
    assert set(store.known("plans").files([*ids, "nul\x00", "\ud800"])) == ids
    assert writer.commit(*records, folders=tree, mark_seen=True).unchanged == len(ids)
    assert store.unseen_count("plans", 0) == 0
    gone = [FolderGone(i, DELETED) for i in ids]
    assert writer.commit(folders_gone=gone).tombstoned == len(ids)


def test_what_no_database_takes_is_cleaned_at_the_border(store: SqlStore) -> None:
    writer = Writer(store)
    record = a_file(
        "f\x001",
        title="a\x00b\ud800c\ud83d\ude00",
        mime_type="\x00",
        parent_id="p\x00",
        size_bytes=2**63,
        version=-(2**63) - 1,
        raw={"k\x00": "v\x00", "s": "\udfff", "nan": float("nan"), "n": [float("inf"), (1,)]},
    )
    writer.commit(record, folders=[Folder("p\x00", None, "P"), Folder("q\x00", "p", "Q\x00")])
    row = store.row("plans", "f1")
    assert row is not None
    assert row["title"] == "ab\ufffdc😀"
    assert (row["mime_type"], row["parent_id"]) == ("", "p")
    assert (row["size_bytes"], row["version"]) == (None, None)
    assert row["raw"] == {"k": "v", "s": "\ufffd", "nan": None, "n": [None, [1]]}
    assert writer.commit(record).unchanged == 1
    assert [f.name for f in store.known("plans").subfolders("p")] == ["Q"]
    assert writer.commit(gone=[Gone("f\x001", DELETED)]).tombstoned == 1


def long_text(seed: int) -> str:
    """6,000 characters that no index can make shorter."""
    return random.Random(seed).randbytes(3000).hex()


def nested(levels: int) -> Json:
    value: Json = {}
    for _ in range(levels):
        value = {"in": [value]}
    return value


POISON = [
    a_file("twin", title="one"),
    a_file("twin\x00", title="two"),
    a_file(long_text(1), title="long id"),
    a_file(long_text(1)[:-1] + "?", title="its neighbour"),
    a_file("f01", parent_id=long_text(2)),
    a_file("f02", title=long_text(3) * 500, mime_type=long_text(3)),
    a_file("f03", raw=nested(2_000)),
    a_file("f04", raw=nested(300)),
    a_file("f05", raw={"n": 10**5_000, "m": [1e308, 1e23, -0.0, 5e-324, 10**200]}),
    a_file("f06", raw={"b": b"\xff", "t": NOON, None: [2**70, (), {1: 2}]}),
    a_file("f07", title="\uffff\ufdd0\U0010ffff\u0378"),
]


def test_no_record_costs_its_batch(store: SqlStore, place: Place) -> None:
    """Whatever a provider tells: everything else is stored, and the same again is no news."""
    writer = Writer(store)

    def commit() -> CommitResult:
        return writer.commit(
            *POISON,
            a_file("good"),
            folders=[Folder(long_text(4), long_text(5), "D"), Folder("e\x00", None, "E\ud800")],
            folders_gone=[FolderGone(long_text(6), DELETED)],
            gone=[Gone(long_text(7), DELETED), Gone("\ud800", DELETED)],
            seen=[long_text(8), "s\x00", "\udfff"],
            mark_seen=True,
            moved={
                "cursor": {"at": "c\x00\ud800"},
                "sweep": {"at": ["\x00"]},
                "scope": "s\ud800",
                "principal": "p\x00",
                "blind": ({"folder_id": "b\x00", "name": "B\ud800", "why": "403"},),
            },
        )

    assert commit().inserted == len(POISON)
    rows = place.files()
    assert {r["title"] for r in rows.values()} >= {"two", "long id", "its neighbour", "good.pdf"}
    assert max(len(key) for key in rows) < 1_100
    assert "not_stored" in str(rows["f03"]["raw"])
    assert "not_stored" in str(rows["f04"]["raw"])
    state = store.state("plans")
    assert (state.cursor, state.sweep) == ({"at": "c\ufffd"}, {"at": [""]})
    assert state.blind == ({"folder_id": "b", "name": "B\ufffd", "why": "403"},)
    assert (state.scope, state.principal) == ("s\ufffd", "p")
    writer.state = state
    again = commit()
    assert (again.inserted, again.updated, again.tombstoned) == (0, 0, 0)
    assert writer.commit(gone=[Gone(long_text(1), DELETED)]).tombstoned == 1


@contextmanager
def picky(store: SqlStore, place: Place) -> Iterator[None]:
    """Somebody put a rule of their own on ``files``: it takes no title that begins with "bad". Its
    words, and those of the row, may be words that databases use on other occasions."""
    events = ("INSERT", "UPDATE")
    told = "CREATE TRIGGER picky_{0} BEFORE {0} ON files WHEN new.title LIKE 'bad%' "
    told += "BEGIN SELECT RAISE(ABORT, 'no such table'); END"
    made = [told.format(what) for what in events]
    undo = [f"DROP TRIGGER picky_{what}" for what in events]
    if place.url is not None:
        made = ["alter table files add constraint picky check (title !~ '^bad')"]
        undo = ["alter table files drop constraint picky"]
    for statements in (made, undo):
        with store._engine.begin() as conn:
            for statement in statements:
                conn.exec_driver_sql(statement)
        if statements is made:
            yield


def test_a_refused_row_is_left_out_with_a_reason(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    writer.commit(a_file("f01"), a_file("f02"), a_file("f03"))
    before = place.files()
    bad, ids = {"f02", "f07", "f09"}, {f"f{i:02}" for i in range(12)}
    with picky(store, place):
        result = writer.commit(
            *[a_file(i, title=f"{'bad' if i in bad else 'ok'}: connection refused") for i in ids],
            folders=folders("a"),
            gone=[Gone("f03", DELETED)],
            moved={"cursor": "c"},
        )
        again = writer.commit(
            a_file("f07", title="bad again"), a_file("f08", title="ok: connection refused")
        )
    assert (result.inserted, result.updated, result.tombstoned) == (7, 2, 1)
    assert set(result.refused) == bad
    for reason in result.refused.values():
        assert reason.startswith("the database refuses what we sent (")
        assert "bad" not in reason
    assert result.changed_ids == ids - bad
    rows = place.files()
    assert set(rows) == ids - {"f07", "f09"}
    assert rows["f02"] == before["f02"]
    assert len({row["change_seq"] for row in rows.values()}) == len(rows)
    assert store.state("plans").cursor == "c"
    counts = store.runs("plans")[0].counts
    assert (counts.inserted, counts.updated, counts.tombstoned) == (10, 2, 1)
    assert (list(again.refused), again.inserted, again.unchanged) == (["f07"], 0, 1)


def test_s49_only_web_addresses_are_links(store: SqlStore, place: Place) -> None:
    """Which ones are: see test_cleaning."""
    links = ["https://drive.example/x", "javascript:alert(1)"]
    Writer(store).commit(*[a_file(f"f{i}", link=link) for i, link in enumerate(links)])
    assert [row["link"] for row in place.files().values()] == ["https://drive.example/x", None]


TIMES = [
    (
        datetime(2024, 1, 1, 5, 30, 0, 123456, timezone(timedelta(hours=5.5))),
        "2024-01-01T00:00:00.123456Z",
    ),
    (datetime(2024, 1, 1), "2024-01-01T00:00:00.000000Z"),  # noqa: DTZ001
    (datetime(800, 12, 25, tzinfo=timezone.utc), "0800-12-25T00:00:00.000000Z"),
    (datetime(1601, 1, 1, tzinfo=timezone.utc), "1601-01-01T00:00:00.000000Z"),
    (datetime(9998, 12, 31, 23, 59, 59, 999999, timezone.utc), "9998-12-31T23:59:59.999999Z"),
    (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), None),
    (datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=12))), None),
]


def test_times_are_instants_in_utc(store: SqlStore) -> None:
    writer = Writer(store)
    records = [a_file(f"f{i}", updated_at=given) for i, (given, _) in enumerate(TIMES)]
    writer.commit(*records)
    for record, (_, stored) in zip(records, TIMES, strict=True):
        row = store.row("plans", record.external_id)
        assert row is not None
        assert row["updated_at"] == stored
    assert writer.commit(*records).unchanged == len(TIMES)


def test_s31_times_sort_as_they_pass(store: SqlStore, place: Place) -> None:
    moments = [at(9), at(9) + timedelta(microseconds=1), at(9, 1), at(10), at(9, day=2)]
    Writer(store).commit(*[a_file(f"f{i}", updated_at=m) for i, m in enumerate(moments)])
    found = place.query("select external_id from files order by updated_at")
    assert [row["external_id"] for row in found] == [f"f{i}" for i in range(5)]


# -- guards ----------------------------------------------------------------------------------------


def everything(place: Place) -> list[list[Any]]:
    tables = ("files", "sync_state", "sync_folders", "sync_met", "sync_runs", "change_counter")
    return [sorted(map(repr, place.query(f"select * from {table}"))) for table in tables]


def test_a_stale_state_writes_nothing(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    writer.commit(a_file("f1", parent_id="b"), folders=folders("a", "a/b"))
    before = everything(place)
    writer.state = replace(writer.state, version=writer.state.version - 1)
    with pytest.raises(ConflictError, match=r"version 1.*started from 0.*nothing was written"):
        writer.commit(
            a_file("f2"),
            a_file("f1", title="x"),
            folders=[Folder("b", "a", "N")],
            gone=[Gone("f1", DELETED)],
            folders_gone=[FolderGone("a", DELETED)],
            mark_seen=True,
            forget_folders=True,
            moved={"cursor": "next"},
        )
    assert everything(place) == before


def test_s41_a_run_without_the_lease_writes_nothing(store: SqlStore, place: Place) -> None:
    stranger = Writer(store, run_id="never-begun", begin=False)
    with pytest.raises(ConflictError, match="nobody holds it"):
        stranger.commit(a_file("f1"))
    Writer(store, run_id="run-1")
    before = everything(place)
    with pytest.raises(ConflictError, match="run run-1 took it over"):
        stranger.commit(a_file("f1"))
    with pytest.raises(ConflictError):
        store.restamp(an_identity(), "never-begun")
    assert everything(place) == before


def test_restamp_puts_the_tenant_on_every_row_that_differs(
    store: SqlStore, place: Place, clock: Clock
) -> None:
    writer = Writer(store)
    writer.commit(a_file("f1"), a_file("f2"))
    writer.commit(gone=[Gone("f2", DELETED)])
    other = Writer(store, an_identity("other"), "run-2")
    other.commit(a_file("f1"))
    version = store.state("plans").version
    clock.pass_by(60)
    moved = an_identity(project_id="mall", user_id="ben")
    assert store.restamp(moved, "run-1") == 2
    rows = place.files()
    assert {(r["project_id"], r["user_id"]) for r in rows.values()} == {("mall", "ben")}
    assert rows["f2"]["gone_reason"] == "deleted"
    assert sorted(r["change_seq"] for r in rows.values()) == [5, 6]
    state = store.state("plans")
    assert (state.project_id, state.user_id, state.version) == ("mall", "ben", version + 1)
    assert place.files("other")["f1"]["user_id"] == "ana"
    assert store.runs("plans")[0].counts.updated == 2
    counter = place.counter()
    assert store.restamp(moved, "run-1") == 0
    assert place.counter() == counter


def test_s37_restamp_takes_over_no_row_that_an_earlier_tenant_left_behind(
    store: SqlStore, place: Place
) -> None:
    ana, ben, cy = (an_identity(user_id=user) for user in ("ana", "ben", "cy"))
    Writer(store, ana).commit(a_file("hers"), gone=[Gone("hers", DELETED)])
    theirs = {"project_id": ben.project_id, "user_id": "ben"}
    Writer(store, ben, begin=False).commit(a_file("his"), moved=theirs)
    assert store.restamp(cy, "run-1") == 1
    assert {i: r["user_id"] for i, r in place.files().items()} == {"hers": "ana", "his": "cy"}
