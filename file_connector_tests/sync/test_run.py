"""One run, against a scripted source and the real SQLite store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from file_connector.destination.base import Store
from file_connector.errors import (
    BugError,
    BusyError,
    ConfigurationError,
    ConflictError,
    CursorRejectedError,
    TransientError,
)
from file_connector.models import (
    Batch,
    Blind,
    Commit,
    CommitResult,
    FileRecord,
    Folder,
    Gone,
    GoneReason,
    Mode,
    Outcome,
    RunReport,
)
from file_connector.sync.run import SyncRun, unique_sorted
from file_connector_tests.builders import NOON, a_file, an_identity, at
from file_connector_tests.sync.scripted import ScriptedConnector, listing

ME = an_identity()


def run(
    source: ScriptedConnector, store: Store, mode: Mode = Mode.INCREMENTAL, **kw: Any
) -> RunReport:
    return SyncRun(ME, source, store, mode, now=kw.pop("now", lambda: NOON), **kw).drain()


def live(store: Store, *ids: str) -> set[str]:
    """Which of ``ids`` are live rows."""
    files = store.known(ME.endpoint_id).files(ids)
    return {i for i, f in files.items() if f.live}


def synced(store: Store, *records: FileRecord) -> ScriptedConnector:
    """A source whose records were all listed and stored once."""
    source = ScriptedConnector()
    source.sweep_script = listing(*records)
    assert run(source, store).outcome is Outcome.COMPLETE
    source.calls.clear()
    return source


def many(count: int) -> list[FileRecord]:
    return [a_file(f"f{i:04}") for i in range(count)]


def test_what_the_database_refuses_makes_the_run_partial_and_costs_nothing_else(
    store: Store,
) -> None:
    class Picky:
        """A store whose database has a rule of its own."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def commit(self, commit: Commit) -> CommitResult:
            fine = [r for r in commit.records if r.external_id != "b"]
            result = store.commit(replace(commit, records=fine))
            bad = {r.external_id: "no such project" for r in commit.records if r not in fine}
            return replace(result, refused=bad)

    source = ScriptedConnector()
    source.sweep_script = listing(a_file("a"), a_file("b"), a_file("c"), cursor="t1")
    report = run(source, Picky())
    assert (report.outcome, report.cursor_after) == (Outcome.PARTIAL, "t1")
    assert "would not store 1 files: b: no such project" in report.reason
    assert live(store, "a", "b", "c") == {"a", "c"}
    status = store.status(ME.endpoint_id)
    assert status is not None
    assert status.retry_at is None


class TestFirstSync:
    def test_s16_lists_everything_then_replays_the_feed_from_the_token_taken_first(
        self, store: Store
    ) -> None:
        source = ScriptedConnector()
        source.sweep_script = listing(a_file("a"), a_file("b"), cursor="token-before-listing")
        source.change_scripts = [[Batch(records=[a_file("late")], cursor="t2")]]
        report = run(source, store)
        assert source.named("changes") == [("changes", "token-before-listing")]
        assert live(store, "a", "b", "late") == {"a", "b", "late"}
        assert (report.outcome, report.counts.inserted, report.cursor_after) == (
            Outcome.COMPLETE,
            3,
            "t2",
        )
        assert report.counts.missed_by_fast_path == 0

    def test_s17_a_death_keeps_the_progress_and_no_cursor_is_believed_before_the_end(
        self, store: Store
    ) -> None:
        source = ScriptedConnector()
        whole = listing(a_file("a"), a_file("b"), pages=2)
        source.sweep_script = [*whole[:2], TransientError("reset")]
        with pytest.raises(TransientError):
            run(source, store)
        state = store.state(ME.endpoint_id)
        assert (state.cursor, state.sweep, live(store, "a", "b")) == (None, {"at": "page 1"}, {"a"})
        source.sweep_script = whole[2:]
        assert run(source, store).outcome is Outcome.COMPLETE
        assert source.named("sweep") == [("sweep", None, 1), ("sweep", "page 1", 1)]
        assert live(store, "a", "b") == {"a", "b"}

    def test_a_death_after_the_last_page_goes_on_with_what_follows_from_it(
        self, store: Store
    ) -> None:
        source = synced(store, a_file("a"), a_file("b"))
        source.sweep_script = listing(a_file("a"))
        real = source.resolve

        def dies(*args: Any) -> Any:
            source.resolve = real  # type: ignore[method-assign]
            raise TransientError("reset")

        source.resolve = dies  # type: ignore[method-assign, assignment]
        source.truth = {"b": GoneReason.TRASHED}
        with pytest.raises(TransientError):
            run(source, store, Mode.SWEEP)
        source.sweep_script = [BugError("must not list again")]
        assert run(source, store).outcome is Outcome.COMPLETE
        assert live(store, "a", "b") == {"a"}

    def test_a_root_that_cannot_be_listed_changes_nothing(self, store: Store) -> None:
        source = synced(store, a_file("a"))
        before = store.state(ME.endpoint_id)
        source.scope = "another root"
        source.sweep_script = [ConfigurationError("folder not found")]
        with pytest.raises(ConfigurationError, match="endpoint 'plans': folder not found"):
            run(source, store)
        after = store.state(ME.endpoint_id)
        assert (after.scope, after.cursor) == (before.scope, before.cursor)
        assert live(store, "a") == {"a"}


class TestFastWay:
    def test_s26_nothing_new_writes_no_row(self, store: Store) -> None:
        source = synced(store, a_file("a"))
        seq = store.row(ME.endpoint_id, "a")
        source.change_scripts = [[Batch(records=[a_file("a")], cursor="t2")]]
        report = run(source, store)
        assert (report.counts.updated, report.counts.unchanged) == (0, 1)
        assert store.row(ME.endpoint_id, "a") == seq

    def test_batches_count_only_once_stored(self, store: Store) -> None:
        source = synced(store, a_file("a"))
        source.change_scripts = [[Batch(records=[a_file("b")], cursor="t2"), TransientError("cut")]]
        with pytest.raises(TransientError):
            run(source, store)
        assert (store.state(ME.endpoint_id).cursor, live(store, "b")) == ("t2", {"b"})

    def test_s17_the_cursor_is_never_ahead_of_the_data(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = synced(store, a_file("a"))
        source.change_scripts = [[Batch(records=[a_file("b")], cursor="t2")]]
        commit = store.commit

        def cut(change: Commit) -> CommitResult:
            if change.records:
                raise TransientError("the connection was cut")
            return commit(change)

        monkeypatch.setattr(store, "commit", cut)
        with pytest.raises(TransientError):
            run(source, store)
        assert store.state(ME.endpoint_id).cursor == "t1"

    def test_s18_rejected_cursor_lists_everything_then_takes_the_new_one(
        self, store: Store
    ) -> None:
        source = synced(store, a_file("a"), a_file("b"))
        first_seen = store.row(ME.endpoint_id, "a")["first_seen_at"]  # type: ignore[index]
        source.change_scripts = [[CursorRejectedError("page token refused")], [Batch(cursor="n2")]]
        source.sweep_script = listing(a_file("a", title="new"), cursor="n1")
        source.truth = {"b": GoneReason.DELETED}
        report = run(source, store, now=lambda: at(13))
        assert "re-baselined" in report.reason
        assert source.named("changes") == [("changes", "t1"), ("changes", "n1")]
        row = store.row(ME.endpoint_id, "a")
        assert row is not None
        assert (row["title"], row["first_seen_at"]) == ("new", first_seen)
        assert live(store, "a", "b") == {"a"}
        assert report.cursor_after == "n2"

    def test_s20_blind_spots_make_the_run_partial_and_are_named(self, store: Store) -> None:
        source = synced(store, a_file("a"))
        source.change_scripts = [
            [Batch(records=[a_file("b")], blind=[Blind("f9", "Secret plans", "403 forbidden")])]
        ]
        report = run(source, store)
        assert report.outcome is Outcome.PARTIAL
        assert "Secret plans" in report.reason
        assert (report.cursor_after, live(store, "b")) == ("t1", {"b"})
        assert [dict(b) for b in store.state(ME.endpoint_id).blind] == [
            {"folder_id": "f9", "name": "Secret plans", "why": "403 forbidden"}
        ]
        source.change_scripts = [[Batch(cursor="t2")]]
        assert run(source, store).outcome is Outcome.COMPLETE
        assert not store.state(ME.endpoint_id).blind


class TestSweep:
    def test_what_a_complete_listing_lacks_is_asked_for_never_assumed(self, store: Store) -> None:
        source = synced(store, *map(a_file, ["here", "trashed", "unknown", "flaky"]))
        source.sweep_script = listing(a_file("here"))
        source.truth = {"trashed": GoneReason.TRASHED, "flaky": a_file("flaky")}
        run(source, store, Mode.SWEEP)
        assert source.named("resolve") == [("resolve", ["flaky", "trashed", "unknown"])]
        assert live(store, "here", "trashed", "unknown", "flaky") == {"here", "unknown", "flaky"}

    def test_s14_flaky_listing_tombstones_nothing(self, store: Store) -> None:
        files = many(126)
        source = synced(store, *files)
        source.truth = {f.external_id: f for f in files}
        for shown in (100, 126):
            source.sweep_script = listing(*files[:shown])
            report = run(source, store, Mode.SWEEP)
            assert (report.outcome, report.counts.tombstoned) == (Outcome.COMPLETE, 0)
        assert store.known(ME.endpoint_id).live_count() == 126

    def test_s18_a_new_baseline_that_left_out_what_is_there_is_listed_once_more(
        self, store: Store
    ) -> None:
        """What was new was left out as well, and the new cursor lies behind it."""
        source = synced(store, a_file("a"), a_file("b"))
        source.change_scripts = [[CursorRejectedError("page token refused")], [Batch(cursor="n2")]]
        source.sweep_script = listing(a_file("a"), cursor="n1")
        source.truth = {"b": a_file("b")}
        report = run(source, store)
        assert "left out files that are there" in report.reason
        source.sweep_script = listing(a_file("a"), a_file("new"))
        for _ in range(2):
            run(source, store)
            assert len(source.named("sweep")) == 2, "once more, whatever that shows"
        assert live(store, "a", "b", "new") == {"a", "b", "new"}

    def test_s23_empty_world_is_held_back_until_three_passes_agree(self, store: Store) -> None:
        source = synced(store, *many(60))
        source.sweep_script = listing()
        for turn in (1, 2):
            report = run(source, store, Mode.SWEEP)
            assert report.outcome is Outcome.PARTIAL
            assert f"pass {turn} of 3" in report.reason
            assert store.known(ME.endpoint_id).live_count() == 60
        report = run(source, store, Mode.SWEEP)
        assert (report.outcome, report.counts.tombstoned) == (Outcome.COMPLETE, 60)

    def test_s23_passes_that_one_outage_explains_count_once(self, store: Store) -> None:
        """Every cursor is rejected, so everything is listed anew, and nothing is there."""
        source = synced(store, *many(60))
        source.sweep_script = listing()
        minutes = (0, 5, 15, 35, 61, 66, 120, 122)
        told = []
        for minute in minutes:
            source.change_scripts = [[CursorRejectedError("page token refused")]]
            report = run(source, store, now=lambda m=minute: NOON + timedelta(minutes=m))
            told.append((store.state(ME.endpoint_id).held_back, report.counts.tombstoned))
        assert told == [*[(1, 0)] * 4, *[(2, 0)] * 3, (0, 60)]

    def test_s23_the_endpoint_stays_flagged_until_it_is_judged(self, store: Store) -> None:
        source = synced(store, *many(60))
        source.sweep_script = listing()
        run(source, store, Mode.SWEEP)
        idle = run(source, store)
        assert (idle.outcome, idle.swept) == (Outcome.PARTIAL, False)
        assert "pass 1 of 3" in idle.reason
        status = store.status(ME.endpoint_id)
        assert status is not None
        assert status.status == "failing"
        assert status.retry_at is None, "fresh changes do not wait"

    def test_s03_what_is_shown_elsewhere_is_believed_however_much(self, store: Store) -> None:
        files = many(120)
        source = synced(store, *files)
        source.sweep_script = listing()
        source.truth = {f.external_id: GoneReason.OUT_OF_SCOPE for f in files}
        report = run(source, store, Mode.SWEEP)
        assert (report.outcome, report.counts.tombstoned) == (Outcome.COMPLETE, 120)

    def test_s23_a_world_that_comes_back_closes_the_breaker(self, store: Store) -> None:
        files = many(60)
        source = synced(store, *files)
        for shown, held_back in ((0, 1), (60, 0), (0, 1)):
            source.sweep_script = listing(*files[:shown])
            run(source, store, Mode.SWEEP)
            assert store.state(ME.endpoint_id).held_back == held_back
        assert store.known(ME.endpoint_id).live_count() == 60

    def test_s23_what_the_fast_way_doubts_is_judged_by_a_pass_at_once(self, store: Store) -> None:
        files = many(60)
        source = synced(store, *files)
        source.change_scripts = [
            [Batch(blind=[Blind("root", "Root", "60 files vanished at once")], suspect=True)]
        ]
        source.sweep_script = listing()
        report = run(source, store)
        assert report.outcome is Outcome.PARTIAL
        state = store.state(ME.endpoint_id)
        assert (state.held_back, state.blind) == (1, ())
        assert store.advance(replace(state, confirmed=True))
        source.truth = {f.external_id: GoneReason.OUT_OF_SCOPE for f in files}
        assert run(source, store).counts.tombstoned == 60
        row = store.row(ME.endpoint_id, "f0059")
        assert row is not None
        assert row["gone_reason"] == "out_of_scope", "the sample's reason"

    def test_s23_of_an_accepted_mass_stays_what_is_still_there(self, store: Store) -> None:
        files = many(60)
        source = synced(store, *files)
        source.sweep_script = listing()
        source.truth = {f.external_id: GoneReason.DELETED for f in files[::2]}
        source.truth.update({f.external_id: f for f in files[1::2]})
        for _ in range(3):
            run(source, store, Mode.SWEEP)
        assert store.known(ME.endpoint_id).live_count() == 30

    def test_s23_listings_that_agree_count_even_if_single_looks_find_every_file(
        self, store: Store
    ) -> None:
        """Otherwise an account whose listings stay empty could never be set right."""
        files = many(60)
        source = synced(store, *files)
        source.sweep_script = listing()
        source.truth = {f.external_id: f for f in files}
        for held in (60, 60, 0):
            run(source, store, Mode.SWEEP)
            assert store.known(ME.endpoint_id).live_count() == held
        row = store.row(ME.endpoint_id, "f0059")
        assert row is not None
        assert row["gone_reason"] == "access_lost"

    def test_s40_what_a_new_account_cannot_find_is_not_called_deleted(self, store: Store) -> None:
        source = synced(store, a_file("a"), a_file("b"))
        source.principal = "another robot"
        source.truth = {"b": GoneReason.DELETED}
        source.sweep_script = listing(a_file("a"))
        run(source, store)
        row = store.row(ME.endpoint_id, "b")
        assert row is not None
        assert row["gone_reason"] == "access_lost"

    def test_s40_a_death_while_another_account_lists_does_not_change_what_its_files_are_called(
        self, store: Store
    ) -> None:
        source = synced(store, a_file("a"), a_file("b"))
        source.principal = "another robot"
        source.truth = {"b": GoneReason.DELETED}
        whole = listing(a_file("a"))
        for died_after in (0, 1, 2):
            source.sweep_script = [*whole[:died_after], TransientError("reset")]
            with pytest.raises(TransientError):
                run(source, store)
        source.sweep_script = whole
        run(source, store)
        row = store.row(ME.endpoint_id, "b")
        assert row is not None
        assert row["gone_reason"] == "access_lost"

    @pytest.mark.parametrize("reason", [GoneReason.TRASHED, None], ids=str)
    def test_each_file_of_a_mass_disappearance_is_looked_at_once(
        self, store: Store, reason: GoneReason | None
    ) -> None:
        """Explained at once by the trash; or accepted, though some are still there."""
        files = many(120)
        source = synced(store, *files)
        source.truth = {f.external_id: reason or f for f in files}
        if reason is None:
            source.truth[files[0].external_id] = GoneReason.DELETED
            assert store.advance(replace(store.state(ME.endpoint_id), confirmed=True))
        source.sweep_script = listing()
        run(source, store, Mode.SWEEP)
        looked_at = [i for _, ids in source.named("resolve") for i in ids]  # type: ignore[attr-defined]
        assert sorted(looked_at) == sorted(f.external_id for f in files)
        assert store.known(ME.endpoint_id).live_count() == (0 if reason else 119)

    def test_s23_what_lies_below_a_blind_folder_says_nothing_about_the_rest(
        self, store: Store
    ) -> None:
        hidden = [a_file(f"a{i:04}", parent_id="dark") for i in range(500)]
        source = synced(store, *hidden, *many(200))
        source.sweep_script = [
            Batch(folders=[Folder("dark", "root", "Dark")]),
            Batch(blind=[Blind("dark", "Dark", "forbidden")]),
            *listing(),
        ]
        source.truth = {f.external_id: GoneReason.TRASHED for f in hidden}
        source.truth |= {f.external_id: GoneReason.DELETED for f in many(200)}
        assert store.advance(replace(store.state(ME.endpoint_id), confirmed=True))
        run(source, store, Mode.SWEEP)
        row = store.row(ME.endpoint_id, "f0001")
        assert row is not None
        assert row["gone_reason"] == "deleted"
        assert store.known(ME.endpoint_id).live_count() == 500

    def test_s23_exactly_fifty_or_a_fifth_is_no_mass_disappearance(self, store: Store) -> None:
        files = many(255)
        source = synced(store, *files)
        source.sweep_script = listing(*files[51:])
        source.truth = {f.external_id: GoneReason.DELETED for f in files[:51]}
        assert run(source, store, Mode.SWEEP).counts.tombstoned == 51

    def test_s23_an_operator_can_confirm(self, store: Store) -> None:
        source = synced(store, *many(60))
        source.sweep_script = listing()
        run(source, store, Mode.SWEEP)
        assert store.advance(replace(store.state(ME.endpoint_id), confirmed=True))
        assert run(source, store).counts.tombstoned == 60
        assert not store.state(ME.endpoint_id).confirmed

    def test_s20_nothing_below_a_blind_folder_is_tombstoned(self, store: Store) -> None:
        source = ScriptedConnector()
        tree = [
            Folder("root", None, "Root"),
            Folder("locked", "root", "Locked"),
            Folder("deep", "locked", "Deep"),
        ]
        source.sweep_script = [
            Batch(folders=tree, sweep=1),
            Batch(records=[a_file("a"), a_file("b", parent_id="deep")], sweep=2),
            Batch(done=True, cursor="t1"),
        ]
        run(source, store)
        source.truth = {"a": GoneReason.DELETED, "b": GoneReason.DELETED}
        source.sweep_script = [
            Batch(sweep=1, blind=[Blind("locked", "Locked", "403")]),
            Batch(done=True, cursor="t9"),
        ]
        report = run(source, store, Mode.SWEEP)
        assert live(store, "a", "b") == {"b"}
        assert report.cursor_after == "t1"

    def test_misses_of_the_fast_way_are_counted_and_races_are_not(self, store: Store) -> None:
        source = synced(store, a_file("a"))
        source.sweep_script = listing(a_file("a"), a_file("missed"), a_file("raced"))
        source.change_scripts = [
            [Batch(cursor="t2")],
            [Batch(records=[a_file("raced")], cursor="t3")],
        ]
        report = run(source, store, Mode.SWEEP)
        assert report.counts.missed_by_fast_path == 1
        assert store.runs(ME.endpoint_id)[0].counts.missed_by_fast_path == 1

    def test_a_file_the_feed_adds_during_the_pass_counts_as_seen(self, store: Store) -> None:
        source = synced(store, a_file("a"))
        source.sweep_script = [
            Batch(records=[a_file("a")], sweep=1),
            TransientError("cut"),
        ]
        with pytest.raises(TransientError):
            run(source, store, Mode.SWEEP)
        source.change_scripts = [[Batch(records=[a_file("new")], cursor="t5")]]
        source.sweep_script = [Batch(done=True, cursor="t1")]
        run(source, store)
        assert source.named("resolve") == []
        assert live(store, "a", "new") == {"a", "new"}

    def test_a_long_sweep_lets_the_fast_way_run_in_between(self, store: Store) -> None:
        source = synced(store, a_file("a"))
        clock = iter(range(0, 100_000, 200))
        source.sweep_script = listing(*many(8), pages=8)
        run(source, store, Mode.SWEEP, monotonic=lambda: float(next(clock)))
        assert len(source.named("changes")) > 3

    def test_a_sweep_that_just_stops_is_our_bug_not_an_empty_folder(self, store: Store) -> None:
        source = synced(store, a_file("a"))
        source.sweep_script = [Batch(sweep=1)]
        with pytest.raises(BugError):
            run(source, store, Mode.SWEEP)
        assert live(store, "a") == {"a"}


class TestScopeAndTenant:
    def test_s40_another_root_moves_old_rows_out_of_scope(self, store: Store) -> None:
        source = synced(store, a_file("old"), a_file("both"))
        source.scope = "another root"
        source.sweep_script = listing(a_file("both"), a_file("new"), cursor="n1")
        report = run(source, store)
        assert live(store, "old", "both", "new") == {"both", "new"}
        row = store.row(ME.endpoint_id, "old")
        assert row is not None
        assert row["gone_reason"] == "out_of_scope"
        assert source.named("resolve") == []
        assert report.cursor_after == "n1"

    def test_s40_a_scope_change_is_no_mass_disappearance(self, store: Store) -> None:
        source = synced(store, *many(60))
        source.scope = "another root"
        source.sweep_script = listing(a_file("new"))
        assert run(source, store).counts.tombstoned == 60

    def test_s40_another_account_relists_and_never_starts_from_now(self, store: Store) -> None:
        source = synced(store, a_file("a"), a_file("b"))
        source.principal = "another robot"
        source.truth = {"b": a_file("b")}
        source.sweep_script = listing(a_file("a"), cursor="n1")
        run(source, store)
        assert source.named("sweep")
        assert source.named("changes") == [("changes", "n1")]
        assert live(store, "a", "b") == {"a", "b"}

    def test_another_project_or_user_is_stamped_on_every_held_row(self, store: Store) -> None:
        source = synced(store, a_file("a"))
        moved = an_identity(project_id="tower-43", user_id="bo")
        SyncRun(moved, source, store, now=lambda: NOON).drain()
        row = store.row(ME.endpoint_id, "a")
        assert row is not None
        assert (row["project_id"], row["user_id"]) == ("tower-43", "bo")

    @pytest.mark.parametrize("what", ["scope", "account"])
    def test_s37_an_entry_given_to_another_customer_hands_over_no_row_of_the_first(
        self, store: Store, what: str
    ) -> None:
        """User and folder (or account) change in one edit: what only the first had stays hers."""
        source = synced(store, a_file("hers"), a_file("shared"))
        if what == "scope":
            source.scope = "another root"
        else:
            source.principal = "another robot"
        source.truth = {"hers": GoneReason.ACCESS_LOST}
        source.sweep_script = listing(a_file("shared"), a_file("his"), cursor="n1")
        bo = an_identity(project_id="tower-43", user_id="bo")
        SyncRun(bo, source, store, now=lambda: NOON).drain()
        owners = {key: store.row(ME.endpoint_id, key) for key in ("hers", "shared", "his")}
        assert {key: row and row["user_id"] for key, row in owners.items()} == {
            "hers": ME.user_id,
            "shared": "bo",
            "his": "bo",
        }
        assert live(store, "hers", "shared", "his") == {"shared", "his"}
        # The change is done: the next run stamps nothing.
        assert SyncRun(bo, source, store, now=lambda: NOON).drain().counts.updated == 0
        # Nor does one stamp them for whom the second customer's rows change hands once more.
        cy = an_identity(project_id="tower-43", user_id="cy")
        assert SyncRun(cy, source, store, now=lambda: NOON).drain().counts.updated == 2
        hers = store.row(ME.endpoint_id, "hers")
        assert hers is not None
        assert hers["user_id"] == ME.user_id


class TestWindow:
    def days(self, source: ScriptedConnector, store: Store) -> RunReport:
        span = (at(0, day=2), at(0, day=3))
        return run(source, store, Mode.WINDOW, window=span)

    def test_s50_rereads_the_days_and_leaves_the_cursor_alone(self, store: Store) -> None:
        inside = at(10, day=2)
        source = synced(
            store,
            a_file("outside"),
            a_file("kept", updated_at=inside),
            a_file("gone", updated_at=inside),
        )
        source.truth = {"gone": GoneReason.DELETED, "outside": GoneReason.DELETED}
        source.window_script = [
            Batch(records=[a_file("kept", updated_at=inside), a_file("new", updated_at=inside)]),
            Batch(done=True),
        ]
        report = self.days(source, store)
        assert live(store, "outside", "kept", "gone", "new") == {"outside", "kept", "new"}
        assert (report.cursor_before, report.cursor_after) == ("t1", "t1")
        assert report.counts.inserted == 1
        again = self.days(source, store)
        assert (again.counts.inserted, again.counts.updated, again.counts.tombstoned) == (0, 0, 0)

    @pytest.mark.parametrize("what", ["cursor", "scope", "account"])
    def test_s40_without_a_baseline_to_compare_with_everything_is_listed(
        self, store: Store, what: str
    ) -> None:
        """Chosen days of another folder say nothing about the rows of the old one."""
        inside = at(10, day=2)
        source = synced(store, a_file("old", updated_at=inside))
        if what == "scope":
            source.scope = "another root"
        elif what == "account":
            source.principal = "another robot"
        else:
            store.reset(ME.endpoint_id)
        source.window_script = [Batch(records=[a_file("new", updated_at=inside)], done=True)]
        source.sweep_script = listing(a_file("new", updated_at=inside), a_file("far"), cursor="n1")
        source.truth = {"old": GoneReason.DELETED}
        report = self.days(source, store)
        assert report.mode is Mode.INCREMENTAL
        assert store.runs(ME.endpoint_id, limit=1)[0].mode is Mode.INCREMENTAL
        assert source.named("window") == []
        assert live(store, "old", "new", "far") == {"new", "far"}
        assert store.state(ME.endpoint_id).cursor == "n1"

    def test_a_window_that_just_stops_is_our_bug(self, store: Store) -> None:
        source = synced(store, a_file("a", updated_at=at(10, day=2)))
        source.window_script = [Batch()]
        with pytest.raises(BugError):
            self.days(source, store)


class TestOneWriter:
    def test_s41_the_second_run_is_told_who_works(self, store: Store) -> None:
        source = synced(store, a_file("a"))
        other = SyncRun(ME, synced(store), store, now=lambda: NOON)

        def meanwhile() -> None:
            with pytest.raises(BusyError):
                other.drain()

        source.change_scripts = [[meanwhile, Batch(cursor="t2")]]
        assert run(source, store).outcome is Outcome.COMPLETE

    def test_a_stale_state_writes_nothing(self, store: Store) -> None:
        source = synced(store, a_file("a"))

        def meddle() -> None:
            # Somebody moved the cursor although we hold the lease.
            steal(store)

        def steal(target: Store) -> None:
            target.reset(ME.endpoint_id)

        source.change_scripts = [[meddle, Batch(records=[a_file("b")], cursor="t2")]]
        with pytest.raises(ConflictError):
            run(source, store)
        assert live(store, "b") == set()

    def test_a_failed_run_is_closed_and_the_endpoint_is_free_at_once(self, store: Store) -> None:
        source = synced(store, a_file("a"))
        source.change_scripts = [[TransientError("the provider sleeps")]]
        with pytest.raises(TransientError):
            run(source, store)
        row = store.runs(ME.endpoint_id)[0]
        assert row.outcome is Outcome.FAILED
        assert "the provider sleeps" in row.reason
        status = store.status(ME.endpoint_id)
        assert status is not None
        assert (status.failures, status.failing_since) == (1, NOON)
        assert run(source, store).outcome is Outcome.COMPLETE
        status = store.status(ME.endpoint_id)
        assert status is not None
        assert (status.failures, status.failing_since) == (0, None)

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
    def test_an_interrupted_run_is_closed_too(
        self, store: Store, stop: type[BaseException]
    ) -> None:
        source = synced(store, a_file("a"))

        def interrupt() -> None:
            raise stop

        source.change_scripts = [[interrupt]]
        with pytest.raises(stop):
            run(source, store)
        assert store.runs(ME.endpoint_id)[0].outcome is Outcome.FAILED

    def test_time_is_up_stops_at_a_batch_boundary(self, store: Store) -> None:
        source = synced(store, a_file("a"))
        source.change_scripts = [
            [Batch(records=[a_file("b")], cursor="t2"), Batch(records=[a_file("c")], cursor="t3")]
        ]
        clock = iter(range(0, 100_000, 10))
        report = run(source, store, time_limit_seconds=5, monotonic=lambda: float(next(clock)))
        assert report.outcome is Outcome.PARTIAL
        assert (report.cursor_after, live(store, "b", "c")) == ("t2", {"b"})
        assert "the next run goes on" in report.reason

    def test_a_backfill_that_takes_too_long_says_that_nobody_goes_on_with_it(
        self, store: Store
    ) -> None:
        source = synced(store, a_file("a"))
        source.window_script = [Batch(records=[a_file("b")]), Batch(done=True)]
        clock = iter(range(0, 100_000, 10))
        report = run(
            source,
            store,
            Mode.WINDOW,
            window=(at(0), at(23)),
            time_limit_seconds=5,
            monotonic=lambda: float(next(clock)),
        )
        assert report.outcome is Outcome.PARTIAL
        assert "choose fewer days" in report.reason


class TestPlumbing:
    def test_counts_in_the_report_are_those_of_the_database(self, store: Store) -> None:
        source = synced(store, a_file("a"), a_file("b"), a_file("c"))
        source.change_scripts = [
            [
                Batch(
                    records=[a_file("a"), a_file("b", title="B", version=2), a_file("d")],
                    gone=[Gone("c", GoneReason.TRASHED), Gone("stranger", GoneReason.TRASHED)],
                    cursor="t2",
                )
            ]
        ]
        counts = run(source, store).counts
        stored = store.runs(ME.endpoint_id)[0].counts
        for got in (counts, stored):
            assert (got.inserted, got.updated, got.unchanged, got.tombstoned) == (1, 1, 1, 1)

    def test_progress_is_told_after_each_batch(self, store: Store) -> None:
        source = ScriptedConnector()
        source.sweep_script = listing(a_file("a"), a_file("b"), pages=2)
        seen: list[int] = []
        run(source, store, on_commit=lambda counts: seen.append(counts.inserted))
        assert seen == sorted(seen)
        assert seen[-1] == 2

    def test_one_record_per_id_and_the_newest_wins(self) -> None:
        twins = [a_file("b", version=1), a_file("a", version=3), a_file("a", version=2)]
        assert [(r.external_id, r.version) for r in unique_sorted(twins)] == [("a", 3), ("b", 1)]

    @pytest.mark.parametrize("later", [None, 1])
    def test_among_equals_the_later_one_wins(self, later: int | None) -> None:
        twins = [a_file("a", version=later, title="old"), a_file("a", version=later, title="new")]
        assert [r.title for r in unique_sorted(twins)] == ["new"]

    def test_a_record_without_an_id_is_our_bug(self) -> None:
        with pytest.raises(BugError):
            unique_sorted([a_file("")])

    def test_secrets_in_a_foreign_error_do_not_reach_the_run_row(self, store: Store) -> None:
        source = synced(store, a_file("a"))
        source.change_scripts = [[RuntimeError("GET /?access_token=ya29.canary-secret failed")]]
        with pytest.raises(RuntimeError):
            run(source, store)
        assert "canary" not in store.runs(ME.endpoint_id)[0].reason
