"""State, reads, runs, leases, endpoints: the same promises on every database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from file_connector.destination.base import EndpointStatus, Turn
from file_connector.destination.open import FILE_NAME
from file_connector.destination.sql_store import SqlStore
from file_connector.destination.sqlite import SqliteStore
from file_connector.destination.tables import sync_state
from file_connector.errors import BusyError, ConflictError, FileConnectorError
from file_connector.models import (
    Commit,
    Folder,
    Gone,
    GoneReason,
    KnownFile,
    Mode,
    Outcome,
    RunCounts,
    SyncState,
)
from file_connector_tests.builders import NOON, a_file, an_identity, at
from file_connector_tests.destination.conftest import Clock, Place
from file_connector_tests.destination.helpers import Writer, folders


def at_once(*works: Callable[[], object]) -> list[object]:
    """What each of ``works`` returned or raised, all run at the same time."""
    results: list[object] = [None] * len(works)
    start = threading.Barrier(len(works))

    def run(index: int) -> None:
        start.wait()
        try:
            results[index] = works[index]()
        except FileConnectorError as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# -- state -----------------------------------------------------------------------------------------


def test_a_new_endpoint_has_a_fresh_state(store: SqlStore) -> None:
    assert store.state("plans") == SyncState("plans")


def test_every_part_of_the_state_survives(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    wanted = SyncState(
        "plans",
        cursor={"token": "t\u00fc\u2028", "n": [1, None, True, 1.5], "big": 2**62},
        sweep={"at": None, "stack": ["a"]},
        pass_no=3,
        pass_started_at=at(1),
        swept_at=at(2),
        scope="scope",
        principal="who",
        rescoped=True,
        synced_at=at(3) + timedelta(microseconds=7),
        held_back=2,
        confirmed=True,
        blind=({"folder_id": "b", "name": "B", "why": "403"},),
        project_id="tower-42",
        user_id="ana",
    )
    result = writer.store.commit(_commit(writer, wanted))
    assert result.state == replace(wanted, version=1)
    assert place.open().state("plans") == replace(wanted, version=1)


def _commit(writer: Writer, state: SyncState) -> Commit:
    return Commit(writer.identity, writer.run_id, state)


def test_a_cursor_is_any_json(store: SqlStore) -> None:
    writer = Writer(store)
    cursors: list[Any] = ["page-7", 7, 0, "", [], {}, {"a": None}, False]
    for cursor in cursors:
        writer.commit(moved={"cursor": cursor})
        assert store.state("plans").cursor == cursor
        writer.commit(moved={"cursor": None})
        assert store.state("plans").cursor is None


def test_a_tick_may_advance_the_cursor_between_runs(store: SqlStore) -> None:
    state = store.advance(SyncState("plans", cursor="c1"))
    assert state == SyncState("plans", version=1, cursor="c1")
    assert store.state("plans") == state
    assert store.advance(SyncState("plans", cursor="c2")) is None
    assert store.state("plans") == state


def test_a_tick_leaves_a_running_endpoint_alone(store: SqlStore, clock: Clock) -> None:
    writer = Writer(store)
    assert store.advance(replace(writer.state, cursor="c1")) is None
    clock.pass_by(91)
    assert store.advance(replace(writer.state, cursor="c1")) is not None
    with pytest.raises(ConflictError):
        writer.commit(a_file("f1"))


def test_reset_forgets_the_way_but_not_the_rows(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    writer.commit(
        a_file("f1"),
        folders=folders("root"),
        mark_seen=True,
        moved={
            "cursor": "c",
            "sweep": {"at": 1},
            "pass_no": 4,
            "swept_at": at(1),
            "synced_at": at(1),
            "scope": "s",
            "principal": "p",
            "held_back": 1,
            "confirmed": True,
            "blind": ({"folder_id": "b"},),
            "project_id": "tower-42",
            "user_id": "ana",
        },
    )
    rows = place.files()
    store.reset("plans")
    assert store.state("plans") == SyncState(
        "plans", version=2, pass_no=4, project_id="tower-42", user_id="ana"
    )
    assert place.files() == rows
    assert list(store.known("plans").folders()) == []
    assert place.query("select * from sync_met") == []
    with pytest.raises(ConflictError):
        writer.commit(a_file("f2"))


# -- reading ---------------------------------------------------------------------------------------


def test_known_answers_from_what_is_stored(store: SqlStore) -> None:
    writer = Writer(store)
    known = store.known("plans")
    assert (known.folder("a"), list(known.folders()), known.live_count()) == (None, [], 0)
    writer.commit(
        a_file("f1", parent_id="b", version=3),
        a_file("f2", parent_id="b"),
        a_file("f3", parent_id="a"),
        folders=[*folders("a", "a/b", "a/c"), Folder("d", "b", "D", {"rollup": "x"})],
    )
    writer.commit(gone=[Gone("f2", GoneReason.TRASHED)])
    assert known.folder("d") == Folder("d", "b", "D", {"rollup": "x"})
    assert {f.folder_id for f in known.folders()} == {"a", "b", "c", "d"}
    assert [f.folder_id for f in known.subfolders("a")] == ["b", "c"]
    assert known.subfolders("zz") == []
    one = KnownFile("f1", "f1.pdf", "b", 3, at(9))
    two = KnownFile("f2", "f2.pdf", "b", 1, at(9), GoneReason.TRASHED)
    assert known.files(["f1", "f2", "nope"]) == {"f1": one, "f2": two}
    assert known.files([]) == {}
    assert known.files_in("b") == [one]
    assert known.live_count() == 2
    assert store.known("other").live_count() == 0


def test_large_answers_come_in_pages(store: SqlStore) -> None:
    writer = Writer(store)
    ids = [f"f{i:05}" for i in range(2500)]
    writer.commit(
        *[a_file(i, parent_id="a") for i in ids],
        folders=[Folder(i, "a", i) for i in ids],
        mark_seen=True,
        moved={"pass_no": 1},
    )
    known = store.known("plans")
    assert len(known.files(ids)) == len(known.files_in("a")) == known.live_count() == 2500
    assert [f.folder_id for f in known.folders()] == ids
    assert [f.external_id for f in store.live_between("plans", at(9), at(10))] == ids
    assert store.unseen_count("plans", 1) == 0
    assert store.unseen_count("plans", 2) == 2500
    found: list[str] = []
    while page := store.unseen("plans", 2, found[-1] if found else "", 999):
        found += [f.external_id for f in page]
    assert found == ids


def test_unseen_is_what_a_pass_did_not_meet(store: SqlStore, place: Place) -> None:
    writer = Writer(store)
    writer.commit(*[a_file(f"f{i}") for i in range(5)], moved={"pass_no": 1})
    writer.commit(gone=[Gone("f4", GoneReason.DELETED)])
    writer.commit(a_file("f0"), seen=["f1", "f1", "unheard"], mark_seen=True)
    writer.commit(a_file("f0"), a_file("f2"), mark_seen=True)
    writer.commit(a_file("f3"))
    assert [f.external_id for f in store.unseen("plans", 1)] == ["f3"]
    assert store.unseen_count("plans", 1) == 1
    assert store.unseen_count("plans", 2) == 4
    other = Writer(store, an_identity("other"), "run-2")
    other.commit(a_file("f3"), mark_seen=True, moved={"pass_no": 1})
    assert store.unseen_count("plans", 1) == 1
    store.forget_seen("plans")
    assert store.unseen_count("plans", 1) == 4
    assert store.unseen_count("other", 1) == 0


def test_an_endpoint_whose_state_was_deleted_has_met_nothing(store: SqlStore) -> None:
    writer = Writer(store)
    writer.commit(a_file("f1"), a_file("f2"), mark_seen=True, moved={"pass_no": 1})
    store.finish_run("run-1", Outcome.COMPLETE, "", 0, 0)
    with store._engine.begin() as conn:
        conn.execute(delete(sync_state))
    Writer(store, run_id="run-2").commit(a_file("f1"), mark_seen=True, moved={"pass_no": 1})
    assert [f.external_id for f in store.unseen("plans", 1)] == ["f2"]


def test_s50_live_between_takes_the_start_and_leaves_the_end(store: SqlStore) -> None:
    writer = Writer(store)
    moments = {"early": at(8, 59), "start": at(9), "in": at(9, 30), "end": at(10), "none": None}
    writer.commit(*[a_file(name, updated_at=moment) for name, moment in moments.items()])
    writer.commit(a_file("gone", updated_at=at(9, 30)), gone=[Gone("gone", GoneReason.DELETED)])
    found = [f.external_id for f in store.live_between("plans", at(9), at(10))]
    assert found == ["in", "start"]


def test_newest_shows_the_latest_changes_first(store: SqlStore) -> None:
    writer = Writer(store)
    writer.commit(*[a_file(f"f{i}") for i in range(4)])
    writer.commit(a_file("f1", title="new"), gone=[Gone("f3", GoneReason.DELETED)])
    newest = store.newest("plans", 2)
    assert [row["external_id"] for row in newest] == ["f1", "f2"]
    assert newest[0]["updated_at"] == "2026-03-01T09:00:00.000000Z"
    assert store.row("plans", "nope") is None


# -- runs and leases -------------------------------------------------------------------------------


def test_a_run_adds_up_what_it_did(store: SqlStore, clock: Clock) -> None:
    writer = Writer(store)
    writer.commit(a_file("f1"), a_file("f2"))
    clock.pass_by(5)
    writer.commit(a_file("f1"), a_file("f2", title="x"), gone=[Gone("f1", GoneReason.DELETED)])
    store.finish_run("run-1", Outcome.PARTIAL, "could not see\x00 'B'", 7, 3)
    (run,) = store.runs("plans")
    assert run.counts == RunCounts(
        inserted=2, updated=1, unchanged=1, tombstoned=1, api_calls=7, missed_by_fast_path=3
    )
    assert (run.run_id, run.mode, run.outcome) == ("run-1", Mode.INCREMENTAL, Outcome.PARTIAL)
    assert (run.started_at, run.ended_at) == (NOON, NOON + timedelta(seconds=5))
    assert run.reason == "could not see 'B'"


def test_runs_are_listed_newest_first(store: SqlStore, clock: Clock) -> None:
    for name in ("a", "b", "c"):
        store.begin_run(an_identity(), Mode.SWEEP, name)
        store.finish_run(name, Outcome.COMPLETE, "", 0, 0)
        clock.pass_by(60)
    assert [run.run_id for run in store.runs("plans", limit=2)] == ["c", "b"]
    assert store.runs("other") == []


def test_s41_one_writer_at_a_time(store: SqlStore) -> None:
    store.begin_run(an_identity(), Mode.INCREMENTAL, "first")
    store.begin_run(an_identity("other"), Mode.INCREMENTAL, "elsewhere")
    with pytest.raises(BusyError) as busy:
        store.begin_run(an_identity(), Mode.WINDOW, "second")
    assert "run first is writing this endpoint since 2026-03-01T12:00:00" in str(busy.value)
    assert [run.run_id for run in store.runs("plans")] == ["first"]
    store.finish_run("first", Outcome.COMPLETE, "", 0, 0)
    store.begin_run(an_identity(), Mode.WINDOW, "second")


def test_s41_a_living_holder_keeps_its_endpoint_whatever_its_lock_says(place: Place) -> None:
    """A lock of some earlier run, left by its process, says nothing about the holder."""
    first, second = place.open(), place.open()
    first.begin_run(an_identity(), Mode.INCREMENTAL, "first")
    first.finish_run("first", Outcome.COMPLETE, "", 0, 0)
    first.begin_run(an_identity(), Mode.INCREMENTAL, "holder")
    for lock in place.home.glob("*.lock"):
        lock.unlink()
        lock.write_text("first")
    with pytest.raises(BusyError, match="run holder"):
        second.begin_run(an_identity(), Mode.INCREMENTAL, "second")


def test_s41_where_no_file_can_be_locked_nobody_is_known_to_live(tmp_path: Path) -> None:
    """Windows, or a file system without locks: then the lease is waited out like anywhere."""
    (tmp_path / f"{FILE_NAME}-plans.lock").mkdir()
    with closing(SqliteStore(tmp_path / FILE_NAME)) as store:
        store.begin_run(an_identity(), Mode.INCREMENTAL, "holder")
        with pytest.raises(BusyError) as busy:
            store.begin_run(an_identity(), Mode.INCREMENTAL, "second")
        assert busy.value.free_at is not None
        store.finish_run("holder", Outcome.COMPLETE, "", 0, 0)
        store.begin_run(an_identity(), Mode.INCREMENTAL, "second")


def test_s41_a_dead_holder_frees_the_endpoint_within_two_minutes(
    store: SqlStore, clock: Clock
) -> None:
    dead = Writer(store, run_id="dead")
    dead.commit(a_file("f1"))
    clock.pass_by(60)
    assert store.renew("plans", "dead")
    clock.pass_by(89)
    with pytest.raises(BusyError):
        store.begin_run(an_identity(), Mode.INCREMENTAL, "next")
    clock.pass_by(2)
    store.begin_run(an_identity(), Mode.INCREMENTAL, "next")
    lost = store.runs("plans")[1]
    assert (lost.run_id, lost.outcome, lost.ended_at) == ("dead", Outcome.FAILED, clock.now)
    assert lost.reason.startswith("lost: ")
    assert lost.counts.inserted == 1

    # Should it wake up, it finds itself replaced and changes nothing.
    assert not store.renew("plans", "dead")
    with pytest.raises(ConflictError, match="run next took it over"):
        dead.commit(a_file("f2"))
    store.finish_run("dead", Outcome.COMPLETE, "", 9, 9)
    assert store.runs("plans")[1] == lost
    with pytest.raises(BusyError, match="run next"):
        store.begin_run(an_identity(), Mode.INCREMENTAL, "third")


def test_a_late_heartbeat_keeps_what_nobody_took(store: SqlStore, clock: Clock) -> None:
    writer = Writer(store)
    clock.pass_by(600)
    writer.commit(a_file("f1"))
    assert store.renew("plans", "run-1")
    with pytest.raises(BusyError):
        store.begin_run(an_identity(), Mode.INCREMENTAL, "next")


def test_s41_a_lease_taken_by_a_clock_that_was_wrong_blocks_nobody(
    store: SqlStore, clock: Clock
) -> None:
    """The clock ran a day ahead, the holder was killed, the clock was set right."""
    identity = an_identity()
    clock.pass_by(86_400)
    store.begin_run(identity, Mode.INCREMENTAL, "dead")
    clock.pass_by(-86_400)
    assert store.turn("plans").free_for is None
    assert store.advance(replace(store.state("plans"), cursor="c")) is not None
    store.begin_run(identity, Mode.INCREMENTAL, "next")
    with pytest.raises(BusyError):
        store.begin_run(identity, Mode.INCREMENTAL, "one too many")
    assert store.advance(replace(store.state("plans"), cursor="d")) is None


def test_s41_whose_turn_it_is_can_be_asked(store: SqlStore, place: Place, clock: Clock) -> None:
    assert store.turn("plans") == Turn()
    began = clock.now
    store.begin_run(an_identity(), Mode.INCREMENTAL, "run-1")
    store.begin_run(an_identity("other"), Mode.INCREMENTAL, "run-2")
    before = place.query("select * from sync_state order by 1")
    clock.pass_by(89)
    assert store.turn("plans") == Turn("run-1", began, timedelta())
    clock.pass_by(4)
    assert store.turn("plans") == Turn("run-1", began, timedelta(seconds=3))
    store.finish_run("run-1", Outcome.COMPLETE, "", 0, 0)
    clock.pass_by(7)
    assert store.turn("plans") == Turn(free_for=timedelta(seconds=7))
    clock.pass_by(-60)  # what is still to come was noted by a clock that was wrong
    assert store.turn("plans") == Turn()
    assert place.query("select * from sync_state order by 1") == before


def test_s41_many_begin_at_once_and_one_wins(place: Place) -> None:
    stores = [place.open() for _ in range(6)]
    results = at_once(
        *[
            lambda s=s, i=i: s.begin_run(an_identity(), Mode.INCREMENTAL, f"run-{i}")
            for i, s in enumerate(stores)
        ]
    )
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, BusyError) for result in results) == 5
    assert len(stores[0].runs("plans")) == 1


def test_two_commits_from_one_state_and_one_wins(place: Place) -> None:
    writers = [Writer(place.open(), begin=i == 0) for i in range(4)]
    results = at_once(*[lambda w=w, i=i: w.commit(a_file(f"f{i}")) for i, w in enumerate(writers)])
    assert sum(isinstance(result, ConflictError) for result in results) == 3
    assert len(place.files()) == 1
    assert writers[0].store.state("plans").version == 1


def test_without_a_clock_of_ours_leases_run_out_too(place: Place) -> None:
    store = place.open(lease_seconds=0.0)
    store.begin_run(an_identity(), Mode.INCREMENTAL, "first")
    store.begin_run(an_identity(), Mode.INCREMENTAL, "second")
    assert [run.outcome for run in store.runs("plans")] == [None, Outcome.FAILED]


# -- endpoints -------------------------------------------------------------------------------------


def an_endpoint(endpoint_id: str = "plans", **values: str) -> EndpointStatus:
    given: dict[str, Any] = {
        "name": "Plans",
        "endpoint_type": "google_drive",
        "project_id": "tower-42",
        "user_id": "ana",
        **values,
    }
    return EndpointStatus(endpoint_id, **given)


def status_of(store: SqlStore, endpoint_id: str = "plans") -> EndpointStatus:
    status = store.status(endpoint_id)
    assert status is not None
    return status


def test_the_yaml_is_mirrored(store: SqlStore) -> None:
    assert store.status("plans") is None
    store.mirror([an_endpoint(), an_endpoint("bad", status="quarantined", message="line 7: type")])
    assert status_of(store) == an_endpoint()
    assert status_of(store, "bad").message == "line 7: type"
    store.mirror([an_endpoint(name="Renamed", user_id="ben")])
    assert status_of(store) == an_endpoint(name="Renamed", user_id="ben")
    assert status_of(store, "bad").status == "removed"
    store.mirror([])
    assert status_of(store).status == "removed"
    store.mirror([an_endpoint(), an_endpoint("bad")])
    assert (status_of(store).status, status_of(store, "bad").status) == ("new", "new")
    assert status_of(store, "bad").message == ""


def test_mirroring_the_same_yaml_writes_nothing(store: SqlStore, place: Place) -> None:
    listed = [an_endpoint(), an_endpoint("two")]
    store.mirror(listed)
    if place.url is not None:
        version = "select xmin::text as x from endpoints"
        before = place.query(version)
        store.mirror(listed)
        assert place.query(version) == before


def test_s44_an_episode_of_failure(store: SqlStore) -> None:
    store.mirror([an_endpoint()])
    identity = an_identity()
    store.note_success(identity, at(1))
    assert (status_of(store).status, status_of(store).last_success_at) == ("ok", at(1))
    first = store.note_failure(identity, at(2), "revoked", at(3))
    assert first == status_of(store)
    store.note_failure(identity, at(4), "still revoked", None)
    status = status_of(store)
    assert (status.status, status.failing_since, status.failures) == ("failing", at(2), 2)
    assert (status.retry_at, status.message) == (None, "still revoked")
    store.mirror([an_endpoint(name="Renamed")])
    assert status_of(store) == replace(status, name="Renamed")
    store.mirror([an_endpoint(status="disabled")])
    assert (status_of(store).status, status_of(store).failures) == ("disabled", 2)
    store.mirror([an_endpoint()])
    assert status_of(store).status == "failing"
    store.note_success(identity, at(5))
    assert status_of(store) == replace(an_endpoint(), status="ok", last_success_at=at(5))


def test_an_endpoint_may_run_before_it_is_mirrored(store: SqlStore) -> None:
    assert store.note_failure(an_identity(), at(1), "x", None).failures == 1
    store.note_success(an_identity("other", name="The others"), at(1))
    assert status_of(store).endpoint_type == "google_drive"
    assert status_of(store, "other").status == "ok"
    assert [status_of(store, id_).name for id_ in ("plans", "other")] == ["plans", "The others"]


def test_many_may_mirror_at_once(place: Place) -> None:
    listed = [an_endpoint(f"e{i}") for i in range(30)]
    stores = [place.open() for _ in range(4)]
    works = [
        lambda s=s, i=i: s.mirror(listed[::-1] if i % 2 else listed) for i, s in enumerate(stores)
    ]
    assert at_once(*works) == [None] * 4
    assert len(place.query("select * from endpoints")) == 30


def test_s44_a_failure_noted_while_the_yaml_is_mirrored_counts(place: Place) -> None:
    store, other = place.open(), place.open()
    store.mirror([an_endpoint()])
    threads = [
        threading.Thread(target=other.note_failure, args=(an_identity(), at(1), "revoked", None)),
        threading.Thread(target=store.mirror, args=([an_endpoint(name="Renamed")],)),
    ]
    waiting = (
        "select count(*) as n from pg_stat_activity "
        "where wait_event_type = 'Lock' and datname = current_database()"
    )
    with store._engine.connect() as conn:
        conn.exec_driver_sql("select 1 from endpoints for update" if place.url else "begin")
        for number, thread in enumerate(threads, 1):
            thread.start()
            while place.url and thread.is_alive() and place.query(waiting)[0]["n"] < number:
                pass
    for thread in threads:
        thread.join()
    status = status_of(store)
    assert (status.name, status.status, status.failures) == ("Renamed", "failing", 1)
