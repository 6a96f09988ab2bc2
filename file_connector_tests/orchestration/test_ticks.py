"""What one tick of a schedule does: run, or skip with a reason a person can read."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from file_connector.destination.base import Store
from file_connector.errors import ConfigurationError, TransientError, remember_secrets
from file_connector.models import Mode, Outcome, Probe
from file_connector.orchestration import runs, schedules
from file_connector.orchestration.factory import asset_key
from file_connector.orchestration.resources import SupabaseResource
from file_connector.orchestration.runs import ENDPOINT_TAG, MODE_TAG
from file_connector.sync.plan import sweep_due
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


def covered(tags: dict[str, str]) -> tuple[str, str]:
    return tags["dagster/asset_partition_range_start"], tags["dagster/asset_partition_range_end"]


def succeeded(house: House, day: str, *, by_schedule: bool = True) -> None:
    """Dagster remembers a successful run that covered days to this one."""
    create_run_for_test(
        house.instance,
        job_name="plans_sync",
        status=dg.DagsterRunStatus.SUCCESS,
        tags={
            ENDPOINT_TAG: "plans",
            "dagster/asset_partition_range_start": day,
            "dagster/asset_partition_range_end": day,
            **({MODE_TAG: "incremental"} if by_schedule else {}),
        },
    )


def test_s51_the_run_covers_all_days_since_the_last_success(synced: House) -> None:
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    midnight = utc_now().replace(hour=0, minute=3) + timedelta(days=1)
    yesterday = (midnight - timedelta(days=1)).date().isoformat()
    succeeded(synced, yesterday)
    assert covered(launched(synced.tick(midnight))) == (yesterday, midnight.date().isoformat())


def test_s45_after_an_outage_one_run_covers_it_and_no_more_than_a_month(synced: House) -> None:
    now = utc_now()
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    for days_down, days_covered in ((700, schedules.MAX_DAYS), (2, 3), (0, 1)):
        last = (now - timedelta(days=days_down)).date().isoformat()
        succeeded(synced, last)
        first = (now - timedelta(days=days_covered - 1)).date().isoformat()
        assert covered(launched(synced.tick(now))) == (first, now.date().isoformat())


def test_a_day_that_dagster_was_not_told_of_is_covered_by_the_next_run(synced: House) -> None:
    """Rows may be right without Dagster: a run killed after its last commit, the command line, one
    day somebody clicked. None of these is what the schedule covered."""
    now = utc_now()
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    told = (now - timedelta(days=4)).date().isoformat()
    today = now.date().isoformat()
    succeeded(synced, told)
    synced.store.note_success(synced.endpoint().identity, now)
    succeeded(synced, today, by_schedule=False)
    assert covered(launched(synced.tick(now))) == (told, today)


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
    assert time.monotonic() - began < 10
    assert not closed.is_set()
    sleepy.set()
    assert closed.wait(30), "the late answer must close its connector"


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
        tags={ENDPOINT_TAG: "plans", MODE_TAG: "incremental"} if by_schedule else {},
        asset_selection=frozenset({asset_key("plans")}),
    )
    return run


def status_of(house: House, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = house.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_s41_a_tick_does_not_pile_up_runs(synced: House, status: dg.DagsterRunStatus) -> None:
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    run = a_run(synced, status)
    assert run.run_id[:8] in skipped(synced.tick(utc_now()))
    assert synced.plans.named("probe") == [], "nobody waits for a provider to learn nothing"


def test_s41_a_run_from_the_ui_counts_as_well(synced: House) -> None:
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    run = a_run(synced, dg.DagsterRunStatus.STARTED, by_schedule=False)
    assert run.run_id[:8] in skipped(synced.tick(utc_now()))


def test_s41_a_run_whose_process_vanished_is_declared_failed(synced: House) -> None:
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    dead = a_run(synced, dg.DagsterRunStatus.STARTED)
    synced.age("sync_runs", "ended_at", runs.SILENCE)
    later = utc_now() + runs.SILENCE + timedelta(seconds=1)
    launched(synced.tick(later))
    run = synced.instance.get_run_by_id(dead.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE


def test_s41_a_long_run_that_renews_its_lease_is_left_alone(synced: House) -> None:
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    long = a_run(synced, dg.DagsterRunStatus.STARTED)
    synced.store.begin_run(an_identity(source="fake"), Mode.INCREMENTAL, f"{long.run_id}:plans")
    later = utc_now() + runs.SILENCE + timedelta(hours=1)
    assert long.run_id[:8] in skipped(synced.tick(later))
    run = synced.instance.get_run_by_id(long.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.STARTED


def test_s41_a_run_that_was_never_handed_over_is_given_up(synced: House) -> None:
    """Who made it died before it stood in the queue: nobody will ever start it."""
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    orphan = a_run(synced, dg.DagsterRunStatus.NOT_STARTED)
    synced.age("sync_runs", "ended_at", runs.SILENCE)
    launched(synced.tick(utc_now() + runs.START_SILENCE + timedelta(seconds=1)))
    assert status_of(synced, orphan) is dg.DagsterRunStatus.FAILURE


def test_s41_a_writer_beyond_dagster_is_named_and_not_run_into(synced: House) -> None:
    """The command line syncs for an hour: no tick launches a run that could only wait and fail."""
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    synced.store.begin_run(an_identity(source="fake"), Mode.INCREMENTAL, "by-hand")
    said = skipped(synced.tick(utc_now()))
    assert "run by-hand is writing" in said
    assert "2 changes waiting" in said
    synced.store.finish_run("by-hand", Outcome.COMPLETE, "", 0, 0)
    launched(synced.tick(utc_now()))


def test_s44_runs_that_die_without_a_verdict_back_off(synced: House) -> None:
    """A process that is killed each time (out of memory, say) cannot note its own failure."""
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    now = utc_now()
    launches = 0
    for _ in range(288):
        now += timedelta(minutes=5)
        if isinstance(synced.tick(now), dg.RunRequest):
            launches += 1
            a_run(synced, dg.DagsterRunStatus.FAILURE)
    assert launches <= 2 + 4 + 24, "after the first two: 5, 10, 20, 40 minutes, then hourly"
    assert "ended without a verdict" in skipped(synced.tick(now + timedelta(minutes=1)))
    status = synced.store.status("plans")
    assert status is not None
    assert status.failures == launches


def test_s44_a_run_that_told_its_failure_is_not_counted_twice(synced: House) -> None:
    synced.plans.probe_answer = Probe(True, "2 changes waiting")
    synced.plans.change_scripts = [[TransientError("the host is dead.")]]
    assert not synced.run().success
    skipped(synced.tick(utc_now() + timedelta(minutes=1)))
    status = synced.store.status("plans")
    assert status is not None
    assert status.failures == 1


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(days=400)], ids=str)
def test_s17_a_clock_that_jumped_stops_nothing(synced: House, jump: timedelta) -> None:
    """Everything was noted by a clock that was wrong; then it is set right."""
    wrong = utc_now() + jump
    synced.store.note_failure(
        synced.endpoint().identity, wrong, "no answer", wrong + timedelta(minutes=5)
    )
    state = synced.store.state("plans")
    synced.store.advance(replace(state, synced_at=wrong, swept_at=wrong))
    dead = a_run(synced, dg.DagsterRunStatus.STARTED, by_schedule=False)
    synced.age("sync_runs", "ended_at", runs.SILENCE)
    now = utc_now() + runs.SILENCE + timedelta(seconds=1)
    launched(synced.tick(now))
    assert status_of(synced, dead) is dg.DagsterRunStatus.FAILURE
    state = synced.store.state("plans")
    assert sweep_due("plans", state, now)


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
