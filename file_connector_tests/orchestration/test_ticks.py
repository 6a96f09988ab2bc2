"""What one tick of a schedule does: run, or skip with a reason a person can read."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from file_connector.destination.base import Store
from file_connector.errors import ConfigurationError, TransientError, remember_secrets
from file_connector.models import Mode, Probe, SyncState
from file_connector.orchestration import schedules
from file_connector.orchestration.factory import ENDPOINT_TAG, MODE_TAG, asset_key
from file_connector.orchestration.resources import SupabaseResource
from file_connector.times import utc_now
from file_connector_tests.builders import a_file, an_identity
from file_connector_tests.orchestration.conftest import House
from file_connector_tests.sync.scripted import listing


def skipped(answer: dg.RunRequest | dg.SkipReason) -> str:
    assert isinstance(answer, dg.SkipReason), answer
    return str(answer.skip_message)


def launched(answer: dg.RunRequest | dg.SkipReason) -> dict[str, str]:
    assert isinstance(answer, dg.RunRequest), answer
    assert answer.run_key is None
    return dict(answer.tags)


def test_the_first_tick_launches_an_incremental_run(house: House) -> None:
    now = utc_now()
    tags = launched(house.tick(now))
    assert tags[MODE_TAG] == "incremental"
    assert tags[ENDPOINT_TAG] == "plans"
    assert tags["dagster/asset_partition_range_end"] == now.date().isoformat()
    assert house.plans.calls == []


def test_s42_no_change_no_run(synced: House) -> None:
    now = utc_now()
    said = skipped(synced.tick(now + timedelta(minutes=1)))
    assert said.startswith("no change since ")
    assert "next sweep" in said
    assert synced.plans.named("probe") == [("probe", "t1")]


def test_a_change_launches_a_run(synced: House) -> None:
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    launched(synced.tick(utc_now()))


def test_s51_the_run_covers_all_days_since_the_last_success(house: House) -> None:
    endpoint = house.endpoint()
    state = house.store.state("plans")
    late = utc_now().replace(hour=23, minute=58)
    house.store.note_success(endpoint.identity, late)
    covered = schedules.days_to_cover(
        endpoint,
        house.store.status("plans"),
        SyncState("plans", cursor="t1"),
        late + timedelta(minutes=5),
    )
    assert covered == (late.date(), late.date() + timedelta(days=1))
    assert schedules.days_to_cover(endpoint, None, state, late)[1] == late.date()


def test_s45_after_an_outage_one_run_covers_it_and_no_more_than_a_month(house: House) -> None:
    endpoint = house.endpoint()
    cursor = SyncState("plans", cursor="t1")
    now = utc_now()
    for days_down, days_covered in ((0, 1), (2, 3), (700, schedules.MAX_DAYS)):
        house.store.note_success(endpoint.identity, now - timedelta(days=days_down))
        first, last = schedules.days_to_cover(endpoint, house.store.status("plans"), cursor, now)
        assert (last - first).days + 1 == days_covered
        assert last == now.date()


def test_the_first_sync_never_begins_before_the_start_date(house: House) -> None:
    now = utc_now()
    start = (now - timedelta(days=3)).date()
    endpoint = house.endpoint(more=f", start_date: {start}")
    tags = launched(house.tick(now, endpoint))
    assert tags["dagster/asset_partition_range_start"] == start.isoformat()


def test_s44_a_failing_probe_launches_one_run_per_episode_then_backs_off(synced: House) -> None:
    synced.plans.probe_answer = TransientError("the host is dead.")
    synced.plans.change_scripts = [[TransientError("the host is dead.")]]
    now = utc_now()
    launched(synced.tick(now))
    assert not synced.run().success

    said = skipped(synced.tick(now + timedelta(minutes=1)))
    assert said.startswith("failing since ")
    assert "next attempt" in said
    assert "the host is dead." in said

    probes = len(synced.plans.named("probe"))
    answers = [synced.tick(now + timedelta(minutes=5 * k)) for k in range(2, 288)]
    assert all(isinstance(a, dg.SkipReason) for a in answers)
    assert len(synced.plans.named("probe")) - probes <= 30

    synced.plans.probe_answer = Probe(False, "quiet")
    launched(synced.tick(now + timedelta(days=1, hours=2)))
    assert synced.run().success
    status = synced.store.status("plans")
    assert status is not None
    assert status.failures == 0


def test_s44_a_missing_secret_takes_the_same_way(synced: House) -> None:
    synced.connectors.refuses = ConfigurationError("X is not set.", remedy="Set X.")
    now = utc_now()
    launched(synced.tick(now))
    assert not synced.run().success
    assert "X is not set. Set X." in skipped(synced.tick(now + timedelta(minutes=1)))
    assert "X is not set. Set X." in skipped(synced.tick(now + timedelta(minutes=30)))
    synced.connectors.refuses = None
    launched(synced.tick(now + timedelta(hours=3)))


@pytest.fixture
def sleepy(synced: House) -> Iterator[threading.Event]:
    """The provider answers probes only when this event is set."""
    wake = threading.Event()
    quick = synced.plans.probe

    def slow_probe(cursor: object, known: object) -> Probe:
        wake.wait(30)
        return quick(cursor, known)  # type: ignore[arg-type]

    synced.plans.probe = slow_probe  # type: ignore[method-assign]
    yield wake
    wake.set()


def test_a_provider_that_does_not_answer_cannot_hold_a_tick(
    synced: House, sleepy: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "PROBE_SECONDS", 0.1)
    closed = threading.Event()
    synced.plans.close = closed.set  # type: ignore[method-assign]
    began = time.monotonic()
    launched(synced.tick(utc_now()))
    assert time.monotonic() - began < 5
    assert not closed.is_set()
    sleepy.set()
    assert closed.wait(10), "the late answer must close its connector"


def test_the_probes_deadline_leaves_room_in_dagsters_minute() -> None:
    assert schedules.PROBE_SECONDS <= 30


def test_a_disabled_endpoint_never_runs(house: House) -> None:
    catalog = house.catalog(more=", enabled: false")
    schedule = house.definitions(catalog).resolve_schedule_def("plans_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    with dg.build_schedule_context(
        instance=house.instance, resources={"fake": house.connectors, "supabase": None}
    ) as context:
        data = schedule.evaluate_tick(context)
    assert data.run_requests == []
    assert data.skip_message == "switched off in endpoints.yaml, line 3"


def test_the_schedule_itself_ticks_and_mirrors_the_endpoints(house: House) -> None:
    defs = house.definitions(house.catalog("plans", "models"))
    repository = defs.get_repository_def()
    with (
        dg.instance_for_test() as instance,
        dg.build_schedule_context(
            instance=instance,
            repository_def=repository,
            resources=defs.resources,
            scheduled_execution_time=utc_now(),
        ) as context,
    ):
        data = repository.get_schedule_def("plans_schedule").evaluate_tick(context)
    assert [r.tags[MODE_TAG] for r in data.run_requests or []] == ["incremental"]
    for endpoint_id in ("plans", "models"):
        status = house.store.status(endpoint_id)
        assert status is not None
        assert status.status == "new"


# -- S41: one writer at a time -------------------------------------------------------------------


def a_run(house: House, status: dg.DagsterRunStatus, *, by_schedule: bool = True) -> dg.DagsterRun:
    run: dg.DagsterRun = create_run_for_test(
        house.instance,
        job_name="plans_sync",
        status=status,
        tags={ENDPOINT_TAG: "plans"} if by_schedule else {},
        asset_selection=frozenset({asset_key("plans")}),
    )
    return run


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_s41_a_tick_does_not_pile_up_runs(synced: House, status: dg.DagsterRunStatus) -> None:
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    run = a_run(synced, status)
    said = skipped(synced.tick(utc_now()))
    assert run.run_id[:8] in said
    assert "2 changes waiting" in said


def test_s41_a_run_from_the_ui_counts_as_well(synced: House) -> None:
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    run = a_run(synced, dg.DagsterRunStatus.STARTED, by_schedule=False)
    assert run.run_id[:8] in skipped(synced.tick(utc_now()))


def test_s41_a_run_whose_process_vanished_is_declared_failed(synced: House) -> None:
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    dead = a_run(synced, dg.DagsterRunStatus.STARTED)
    later = utc_now() + schedules.GRACE + timedelta(seconds=1)
    launched(synced.tick(later))
    run = synced.instance.get_run_by_id(dead.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE


def test_s41_a_long_run_that_renews_its_lease_is_left_alone(synced: House) -> None:
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    long = a_run(synced, dg.DagsterRunStatus.STARTED)
    synced.store.begin_run(an_identity(source="fake"), Mode.INCREMENTAL, f"{long.run_id}:plans")
    later = utc_now() + schedules.GRACE + timedelta(hours=1)
    assert long.run_id[:8] in skipped(synced.tick(later))
    run = synced.instance.get_run_by_id(long.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.STARTED


def test_s41_the_runs_of_other_endpoints_do_not_matter(synced: House) -> None:
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    create_run_for_test(
        synced.instance,
        job_name="models_sync",
        status=dg.DagsterRunStatus.STARTED,
        tags={ENDPOINT_TAG: "models"},
        asset_selection=frozenset({asset_key("models")}),
    )
    launched(synced.tick(utc_now()))


def test_s48_a_tick_that_breaks_says_so_without_secrets(house: House) -> None:
    canary = "canary-31c9e0aa"
    remember_secrets([canary])

    class Broken(SupabaseResource):
        def store(self) -> Store:
            raise OSError(f"cannot open postgresql://u:{canary}@db.example/x")

    schedule = house.definitions().resolve_schedule_def("plans_schedule")
    resources = {"fake": house.connectors, "supabase": Broken()}
    with (
        dg.build_schedule_context(instance=house.instance, resources=resources) as context,
        pytest.raises(dg.Failure) as caught,
    ):
        schedule.evaluate_tick(context)
    assert "OSError" in str(caught.value)
    assert canary not in "".join(traceback.format_exception(caught.value))


def test_a_tick_after_the_first_listing_finds_nothing_to_do(house: House) -> None:
    house.plans.sweep_script = listing(a_file("a"))
    launched(house.tick(utc_now()))
    assert house.run().success
    skipped(house.tick(utc_now()))
