"""Autodesk through the real engine and store: what only shows when all three meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from file_connector.connectors.autodesk import descent
from file_connector.destination.sqlite import SqliteStore
from file_connector.models import GoneReason, Identity, Mode, Outcome, RunReport
from file_connector.sandbox import faults
from file_connector.sync.plan import BLIND_TRIES, decide
from file_connector.sync.run import BREAKER_PASSES, SyncRun
from file_connector_tests.connectors.acc import Site, a_site

ME = Identity("tower", "autodesk_construction_cloud", "tower-42", "ana")


@pytest.fixture
def site() -> Iterator[Site]:
    with a_site() as site:
        yield site


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "supabase.db")
    yield opened
    opened.close()


def run(
    site: Site,
    store: SqliteStore,
    mode: Mode = Mode.INCREMENTAL,
    details: Mapping[str, Any] | None = None,
) -> RunReport:
    connector = site.connector(details)
    try:
        return SyncRun(ME, connector, store, mode, heartbeat_seconds=3600).drain()
    finally:
        connector.close()


def live(site: Site, store: SqliteStore) -> set[str]:
    known = store.known(ME.endpoint_id)
    return {i for i, file in known.files(list(site.sandbox.aps.items)).items() if file.live}


def test_s27_first_sync_then_idle_then_one_change(site: Site, store: SqliteStore) -> None:
    report = run(site, store)
    assert report.outcome is Outcome.COMPLETE
    assert (report.counts.inserted, report.counts.api_calls) == (6, 5 + 3)
    assert run(site, store).counts.api_calls == 1
    site.sandbox.aps.upload(next(iter(site.sandbox.aps.truth(site.room))))
    report = run(site, store)
    assert (report.counts.updated, report.counts.api_calls) == (1, 1 + 4)
    row = store.row(ME.endpoint_id, next(iter(site.sandbox.aps.truth(site.room))))
    assert row is not None
    assert row["path"] == "Plans/Level 1/Room/R-1.pdf"


def test_s27b_what_the_fast_way_missed_is_counted(site: Site, store: SqliteStore) -> None:
    run(site, store)
    with site.sandbox.aps.silent():
        site.sandbox.aps.add_item("quiet.pdf", site.room)
        site.sandbox.aps.delete(next(iter(site.sandbox.aps.truth(site.models))))
    assert run(site, store).counts.inserted == 0
    report = run(site, store, Mode.SWEEP)
    assert report.counts.missed_by_fast_path == 2
    assert live(site, store) == set(site.truth())


def test_s20_a_folder_forbidden_for_ever_costs_few_runs(
    site: Site, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else changes for five hours; then something does, and then the folder opens."""
    aps = site.sandbox.aps
    aps.refuse(site.level)
    now = site.sandbox.clock.now()
    runs: list[RunReport] = []

    def tick() -> bool:
        nonlocal now
        now = site.sandbox.clock.advance(minutes=5)
        with closing(site.connector()) as connector:
            if not decide(ME, connector, store, now).run:
                return False
            runs.append(SyncRun(ME, connector, store, now=lambda: now).drain())
            return True

    assert sum(tick() for _ in range(60)) <= BLIND_TRIES + 1 + 3, "then after 1, 2, 4 ... hours"
    assert {run.outcome for run in runs} == {Outcome.PARTIAL}
    new = aps.add_item("new.pdf", site.models)
    with monkeypatch.context() as listed_within_a_second:
        listed_within_a_second.setattr(descent, "settled", lambda *_: False)
        assert tick()
    assert new in live(site, store)
    assert tick(), "who may see all has to look again, and so has he who may not"
    assert not tick()
    aps.unrefuse(site.level)
    while not tick():
        pass
    assert runs[-1].outcome is Outcome.COMPLETE
    assert live(site, store) == set(site.truth())
    assert not tick()


def test_s20_a_forbidden_folder_makes_the_run_partial(site: Site, store: SqliteStore) -> None:
    run(site, store)
    site.sandbox.aps.refuse(site.level)
    site.sandbox.aps.add_item("bump.pdf", site.room)
    site.sandbox.aps.add_item("seen.pdf", site.models)
    for mode in (Mode.INCREMENTAL, Mode.SWEEP, Mode.INCREMENTAL):
        report = run(site, store, mode)
        assert report.outcome is Outcome.PARTIAL
        assert "'Level 1'" in report.reason
    assert len(live(site, store)) == 7
    site.sandbox.aps.unrefuse(site.level)
    assert run(site, store).outcome is Outcome.COMPLETE
    assert live(site, store) == set(site.truth())


def test_s23_an_empty_world_is_believed_after_as_many_passes_as_agreed(
    site: Site, store: SqliteStore
) -> None:
    aps = site.sandbox.aps
    aps.add_items(120, site.plans)
    run(site, store)
    aps.add_item("bump.pdf", site.files)
    aps.deny(site.plans)
    for mode in [Mode.INCREMENTAL, *[Mode.SWEEP] * (BREAKER_PASSES - 2)]:
        report = run(site, store, mode)
        assert report.outcome is Outcome.PARTIAL
        assert "mass disappearance" in report.reason
        assert report.counts.tombstoned == 0
    report = run(site, store, Mode.SWEEP)
    assert report.counts.tombstoned == 124
    assert run(site, store).outcome is Outcome.COMPLETE
    assert run(site, store).counts.api_calls == 1
    aps.grant(site.plans)
    run(site, store, Mode.SWEEP)
    assert live(site, store) == set(site.truth())


@pytest.mark.parametrize("way", ["folder", "files", "folder, silently", "files, silently"])
def test_s03_most_of_a_project_may_move_out_at_once(
    site: Site, store: SqliteStore, way: str
) -> None:
    """Autodesk shows where it went, so no listing is in doubt, and nothing is held back."""
    aps = site.sandbox.aps
    ids = aps.add_items(60, site.plans)
    elsewhere = aps.top_folder(site.project, "Photos")
    run(site, store)

    def move_out() -> None:
        for thing in [site.plans] if way.startswith("folder") else ids:
            aps.move(thing, elsewhere)

    if "silently" in way:
        with aps.silent():
            move_out()
        report = run(site, store, Mode.SWEEP)
    else:
        move_out()
        report = run(site, store)
    assert report.outcome is Outcome.COMPLETE
    assert live(site, store) == set(site.truth())
    known = store.known(ME.endpoint_id).files(ids)
    assert {f.gone_reason for f in known.values()} == {GoneReason.OUT_OF_SCOPE}
    assert run(site, store).counts.api_calls == 1


def test_s23_an_empty_root_is_flagged_although_its_folders_are_found_one_by_one(
    site: Site, store: SqliteStore
) -> None:
    aps = site.sandbox.aps
    aps.add_items(120, site.plans)
    run(site, store)
    aps.add_item("bump.pdf", site.files)
    site.sandbox.faults.add(
        faults.empty_world(), path=f"/folders/{site.files}/contents", times=None
    )
    report = run(site, store)
    assert (report.outcome, report.counts.tombstoned) == (Outcome.PARTIAL, 0)
    site.sandbox.faults.clear()
    assert run(site, store, Mode.SWEEP).outcome is Outcome.COMPLETE
    assert live(site, store) == set(site.truth())


def test_s23_an_empty_root_once_believed_stays_believed(site: Site, store: SqliteStore) -> None:
    """Single looks still find the folders below, which must not bring back what was accepted."""
    site.sandbox.aps.add_items(120, site.plans)
    run(site, store)
    site.sandbox.faults.add(
        faults.empty_world(), path=f"/folders/{site.files}/contents", times=None
    )
    report = run(site, store, Mode.SWEEP)
    assert (report.outcome, report.counts.tombstoned) == (Outcome.PARTIAL, 0)
    assert store.advance(replace(store.state(ME.endpoint_id), confirmed=True))
    for mode in (Mode.SWEEP, Mode.INCREMENTAL, Mode.SWEEP):
        assert run(site, store, mode).outcome is Outcome.COMPLETE
        assert live(site, store) == set()
    assert run(site, store).counts.api_calls == 1
    site.sandbox.faults.clear()
    assert run(site, store, Mode.SWEEP).outcome is Outcome.COMPLETE
    assert live(site, store) == set(site.truth())


def test_s20_a_forbidden_folder_with_most_of_the_files_is_no_mass_disappearance(
    site: Site, store: SqliteStore
) -> None:
    """It explains by itself what the listing lacks, and no flag outlives it."""
    site.sandbox.aps.add_items(120, site.plans)
    run(site, store)
    site.sandbox.aps.refuse(site.plans)
    report = run(site, store, Mode.SWEEP)
    assert (report.outcome, report.counts.tombstoned) == (Outcome.PARTIAL, 0)
    assert "could not see 'Plans'" in report.reason
    assert "disappearance" not in report.reason
    site.sandbox.aps.unrefuse(site.plans)
    assert run(site, store).outcome is Outcome.COMPLETE
    assert live(site, store) == set(site.truth())


def test_s23_an_empty_world_that_passes_by_changes_nothing(site: Site, store: SqliteStore) -> None:
    site.sandbox.aps.add_items(120, site.plans)
    run(site, store)
    site.sandbox.faults.add(faults.empty_world(), kind="aps.contents", times=None)
    for mode in (Mode.SWEEP, Mode.SWEEP):
        assert run(site, store, mode).counts.tombstoned == 0
    site.sandbox.faults.clear()
    assert run(site, store, Mode.SWEEP).outcome is Outcome.COMPLETE
    assert live(site, store) == set(site.truth())


def test_s23_a_person_s_word_counts_even_if_single_looks_still_find_the_files(
    site: Site, store: SqliteStore
) -> None:
    """Otherwise an account whose listings stay empty could never be set right."""
    site.sandbox.aps.add_items(120, site.plans)
    run(site, store)
    site.sandbox.faults.add(faults.empty_world(), kind="aps.contents", times=None)
    assert run(site, store, Mode.SWEEP).counts.tombstoned == 0
    assert store.advance(replace(store.state(ME.endpoint_id), confirmed=True))
    assert run(site, store, Mode.SWEEP).outcome is Outcome.COMPLETE
    assert live(site, store) == set()
    site.sandbox.faults.clear()
    run(site, store, Mode.SWEEP)
    assert live(site, store) == set(site.truth())


def test_s40_another_root_and_back(site: Site, store: SqliteStore) -> None:
    run(site, store)
    report = run(site, store, details={"folder_id": site.plans})
    assert report.outcome is Outcome.COMPLETE
    assert live(site, store) == set(site.truth(site.plans))
    reasons = {f.gone_reason for f in store.known("tower").files(list(site.truth())).values()}
    assert {r.value for r in reasons if r} == {"out_of_scope"}
    assert run(site, store, details={"folder_id": site.plans}).counts.api_calls == 1
    run(site, store)
    assert live(site, store) == set(site.truth())
    assert run(site, store).counts.api_calls == 1


@pytest.mark.parametrize("truth", ["there", "deleted"])
def test_s22_a_file_that_neither_a_sweep_nor_a_look_tells_of_makes_the_run_partial(
    site: Site, store: SqliteStore, truth: str
) -> None:
    """Its row stays, and the next runs look again; a green run would say that all is well."""
    run(site, store)
    (file,) = site.sandbox.aps.truth(site.models)
    missing = faults.drop([file])
    unclear = faults.status(400, {"errors": [{"title": "odd"}]})
    site.sandbox.faults.add(missing, path=f"/folders/{site.models}/contents", times=None)
    site.sandbox.faults.add(unclear, path=f"/items/{file}", times=None)
    for mode in (Mode.SWEEP, Mode.INCREMENTAL):
        report = run(site, store, mode)
        assert report.outcome is Outcome.PARTIAL
        assert file in report.reason
        assert "missing from its folder's listing" in report.reason
        assert (report.counts.tombstoned, file in live(site, store)) == (0, True)
    site.sandbox.faults.clear()
    if truth == "deleted":
        with site.sandbox.aps.silent():
            site.sandbox.aps.delete(file)
    assert run(site, store).outcome is Outcome.COMPLETE
    assert live(site, store) == set(site.truth())
    assert run(site, store).counts.api_calls == 1
