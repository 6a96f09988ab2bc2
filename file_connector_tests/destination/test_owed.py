"""What concerns very many rows is done in pieces. Killed in between, it ends as if it had been one
transaction, whatever the next run is about."""

from __future__ import annotations

from typing import Any

import pytest

from file_connector.destination.owed import FOLDERS
from file_connector.models import Folder, FolderGone, Gone, GoneReason, Identity, Outcome
from file_connector_tests.builders import a_file, an_identity
from file_connector_tests.destination.conftest import Clock, Place
from file_connector_tests.destination.helpers import Writer, folders

PIECE = 2
ANA, BEN, CY = (an_identity(user_id=user) for user in ("ana", "ben", "cy"))


class KilledError(Exception):
    pass


def a_run(place: Place, clock: Clock) -> Writer:
    """A run of ``ANA`` whose store changes two rows at a time; it holds f0 to f6 and top."""
    writer = Writer(place.open(piece=PIECE, clock=clock, sleep=clock.sleep), ANA)
    stamped = {"project_id": ANA.project_id, "user_id": "ana", "cursor": "before"}
    writer.commit(
        *[a_file(f"f{i}", parent_id="bc"[i % 2]) for i in range(7)],
        a_file("top", parent_id="a"),
        folders=folders("a", "a/b", "b/c"),
        moved=stamped,
    )
    writer.commit(gone=[Gone("f6", GoneReason.DELETED)])
    return writer


def killed_after(store: Any, pieces: int) -> None:
    """From now on, whoever settles dies after so many pieces."""
    call = store._settle_piece
    left = pieces

    def piece(*args: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError
        return call(*args)

    store._settle_piece = piece


def next_run(place: Place, identity: Identity) -> Writer:
    """A later run, in another process, after the first one ended."""
    store = place.open(piece=PIECE)
    store.finish_run("run-1", Outcome.FAILED, "", 0, 0)
    return Writer(store, identity, "run-2")


def column(place: Place, name: str) -> dict[str, Any]:
    return {key: row[name] for key, row in place.files().items()}


def test_each_row_follows_once(place: Place, clock: Clock) -> None:
    store = place.open(piece=PIECE, clock=clock)
    writer = Writer(store)
    writer.commit(*[a_file(f"f{i}", parent_id="b") for i in range(5)], folders=folders("a", "a/b"))
    renamed = writer.commit(folders=[Folder("b", "a", "NEW")], moved={"cursor": "after"})
    assert (renamed.updated, len(renamed.changed_ids)) == (5, 5)
    assert sorted(column(place, "change_seq").values()) == [6, 7, 8, 9, 10]
    assert store.state("plans") == renamed.state == writer.state
    assert (writer.state.cursor, writer.state.version) == ("after", 2)
    lost = writer.commit(folders_gone=[FolderGone("b", GoneReason.TRASHED)])
    assert (lost.tombstoned, place.counter()) == (5, 15)
    counts = store.runs("plans")[0].counts
    assert (counts.inserted, counts.updated, counts.tombstoned) == (5, 5, 5)


def test_a_folder_with_very_many_below_it_is_asked_about_in_parts(
    place: Place, clock: Clock
) -> None:
    """Even to find out how many rows are to follow took half a minute for 20,000 folders."""
    store = place.open(clock=clock)
    writer = Writer(store)
    below = [Folder(f"s{i}", "b", f"S{i}") for i in range(FOLDERS + 1)]
    files = [a_file(f"f{i}", parent_id=f"s{i}") for i in (0, FOLDERS)]
    writer.commit(folders=[*folders("a", "a/b"), *below])
    writer.commit(*files)
    killed_after(store, 1)
    with pytest.raises(KilledError):
        writer.commit(folders=[Folder("b", "a", "NEW")])
    next_run(place, an_identity()).commit()
    assert column(place, "path") == {
        "f0": "NEW/S0/f0.pdf",
        f"f{FOLDERS}": f"NEW/S{FOLDERS}/f{FOLDERS}.pdf",
    }


@pytest.mark.parametrize("pieces", [0, 1, 2])
def test_s17_a_rename_cut_short_goes_on(place: Place, clock: Clock, pieces: int) -> None:
    writer = a_run(place, clock)
    store = writer.store
    killed_after(store, pieces)
    with pytest.raises(KilledError):
        writer.commit(folders=[Folder("b", "a", "NEW")], moved={"cursor": "after"})
    assert store.state("plans").cursor == "before"
    done = column(place, "change_seq")
    result = next_run(place, ANA).commit(folders=[Folder("b", "a", "NEW")])
    assert result.updated == 6 - PIECE * pieces
    paths = column(place, "path")
    assert {key: paths[key] for key in ("f0", "f1", "f5", "top")} == {
        "f0": "NEW/f0.pdf",
        "f1": "NEW/C/f1.pdf",
        "f5": "NEW/C/f5.pdf",
        "top": "top.pdf",
    }
    assert paths["f6"] == "B/f6.pdf"  # a tombstone stays as it was
    unchanged = [key for key, seq in column(place, "change_seq").items() if seq == done[key]]
    assert len(unchanged) == 2 + PIECE * pieces


def test_s17_a_rename_cut_short_and_taken_back_leaves_no_trace(place: Place, clock: Clock) -> None:
    writer = a_run(place, clock)
    store = writer.store
    before = column(place, "path")
    killed_after(store, 1)
    with pytest.raises(KilledError):
        writer.commit(folders=[Folder("b", "a", "NEW")])
    next_run(place, ANA).commit(folders=[Folder("b", "a", "B")])
    assert column(place, "path") == before


@pytest.mark.parametrize("back", [False, True], ids=["still lost", "back again"])
def test_s17_a_lost_folder_cut_short(place: Place, clock: Clock, back: bool) -> None:
    """Its tree is gone at once, so that whoever finds the folder again lists all that is in it."""
    writer = a_run(place, clock)
    store = writer.store
    killed_after(store, 1)
    with pytest.raises(KilledError):
        writer.commit(folders_gone=[FolderGone("b", GoneReason.TRASHED)])
    later = next_run(place, ANA)
    assert [f.folder_id for f in later.store.known("plans").folders()] == ["a"]
    found = [a_file(f"f{i}", parent_id="bc"[i % 2]) for i in range(6)] if back else []
    tree = folders("a", "a/b", "b/c") if back else []
    result = later.commit(*found, folders=tree)
    assert result.tombstoned == 6 - PIECE
    assert column(place, "gone_reason") == {
        **dict.fromkeys([f"f{i}" for i in range(6)], None if back else "trashed"),
        "f6": "deleted",
        "top": None,
    }


def test_the_order_of_a_commit_holds_in_pieces(place: Place, clock: Clock) -> None:
    """What moves out of a leaving folder stays, what is told inside it leaves, and each with the
    reason that came first."""
    writer = a_run(place, clock)
    store = writer.store
    result = writer.commit(
        a_file("f0", parent_id="a"),
        a_file("late", parent_id="c"),
        folders=[Folder("b", "a", "NEW")],
        folders_gone=[FolderGone("b", GoneReason.TRASHED)],
        gone=[Gone("f2", GoneReason.DELETED), Gone("top", GoneReason.DELETED)],
        mark_seen=True,
        moved={"pass_no": 1, "cursor": "after"},
    )
    assert (result.inserted, result.tombstoned) == (1, 7)
    reasons = column(place, "gone_reason")
    trashed = dict.fromkeys(["f1", "f2", "f3", "f4", "f5", "late"], "trashed")
    assert reasons == {**trashed, "f0": None, "f6": "deleted", "top": "deleted"}
    assert store.unseen_count("plans", 1) == 0
    assert store.state("plans").cursor == "after"


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_s37_a_tenant_changed_by_halves_is_changed_to_its_end(
    place: Place, clock: Clock, pieces: int
) -> None:
    writer = a_run(place, clock)
    store = writer.store
    killed_after(store, pieces)
    with pytest.raises(KilledError):
        store.restamp(BEN, "run-1")
    users = column(place, "user_id").values()
    assert sorted(users) == ["ana"] * (8 - PIECE * pieces) + ["ben"] * (PIECE * pieces)
    next_run(place, BEN).commit()
    assert set(column(place, "user_id").values()) == {"ben"}
    assert store.runs("plans")[1].counts.updated == PIECE * pieces
    assert store.runs("plans")[0].counts.updated == 8 - PIECE * pieces


@pytest.mark.parametrize("then", [ANA, CY], ids=["the former again", "a third"])
def test_s37_a_tenant_changed_by_halves_keeps_no_row(
    place: Place, clock: Clock, then: Identity
) -> None:
    """Nobody is left with rows of an entry that is another's by now, tombstones included."""
    writer = a_run(place, clock)
    store = writer.store
    killed_after(store, 1)
    with pytest.raises(KilledError):
        store.restamp(BEN, "run-1")
    later = next_run(place, then)
    assert later.store.restamp(then, "run-2") == 8
    assert set(column(place, "user_id").values()) == {then.user_id}
    assert later.store.state("plans").user_id == then.user_id


def test_s37_another_folder_of_a_third_takes_over_nothing(place: Place, clock: Clock) -> None:
    """Its run stamps no rows: it commits what it lists. The rest stays the second tenant's."""
    writer = a_run(place, clock)
    store = writer.store
    killed_after(store, 1)
    with pytest.raises(KilledError):
        store.restamp(BEN, "run-1")
    later = next_run(place, CY)
    moved = {"project_id": CY.project_id, "user_id": "cy"}
    later.commit(a_file("hers", parent_id="x"), moved=moved, forget_folders=True)
    users = column(place, "user_id")
    assert users.pop("hers") == "cy"
    assert set(users.values()) == {"ben"}


def test_a_reset_in_between_is_settled_too(place: Place, clock: Clock) -> None:
    writer = a_run(place, clock)
    store = writer.store
    killed_after(store, 1)
    with pytest.raises(KilledError):
        writer.commit(folders=[Folder("b", "a", "NEW")])
    store.reset("plans")
    later = next_run(place, ANA)
    later.commit(folders=folders("a", "a/b", "b/c"))
    assert column(place, "path")["f1"] == "B/C/f1.pdf"
