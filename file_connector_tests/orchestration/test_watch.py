"""Killed runs are found out, whatever ticks; living ones and other people's are left alone."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.test_utils import create_run_for_test

from file_connector.models import Mode, Outcome
from file_connector.orchestration import watch
from file_connector.orchestration.factory import asset_key
from file_connector.orchestration.runs import SILENCE, START_SILENCE
from file_connector.orchestration.schedules import Mirror
from file_connector.times import utc_now
from file_connector_tests.builders import an_identity
from file_connector_tests.orchestration.conftest import House
from file_connector_tests.orchestration.test_instance import open_instance

Status = dg.DagsterRunStatus
BY_HAND = ", schedule: {type: manual}"


def looked(house: House, later: timedelta, more: str = BY_HAND) -> str:
    """What the sensor says after so long a time."""
    catalog = house.catalog("plans", "models", more=more)
    sensor = watch.build_watch(
        catalog, Mirror(catalog), house.deployment(), now=lambda: utc_now() + later
    )
    with dg.build_sensor_context(instance=house.instance) as context:
        answer = sensor.evaluate_tick(context)
    assert answer.run_requests == []
    return str(answer.skip_message)


def a_run(house: House, status: Status, *keys: dg.AssetKey, **tags: str) -> Callable[[], Status]:
    run = create_run_for_test(
        house.instance, status=status, tags=tags, asset_selection=frozenset(keys)
    )

    def now() -> Status:
        found = house.instance.get_run_by_id(run.run_id)
        assert found is not None
        return found.status

    return now


def test_s41_a_killed_run_frees_its_endpoint_although_nothing_ticks(house: House) -> None:
    status = a_run(house, Status.STARTED, asset_key("plans"))
    assert looked(house, timedelta()) == "no run has lost its process"
    assert status() is Status.STARTED
    assert "lost its process" in looked(house, SILENCE)
    assert status() is Status.FAILURE


def test_s41_two_minutes_are_kept() -> None:
    assert SILENCE + timedelta(seconds=watch.EVERY_SECONDS) <= timedelta(minutes=2)


def test_s41_a_run_at_work_is_left_alone(house: House) -> None:
    status = a_run(house, Status.STARTED, asset_key("plans"), asset_key("models"))
    house.store.begin_run(an_identity(source="fake"), Mode.INCREMENTAL, "at-work")
    assert looked(house, SILENCE) == "no run has lost its process"
    assert status() is Status.STARTED


def test_a_run_that_has_just_given_back_its_lease_is_left_alone(house: House) -> None:
    """After minutes without a word it says all that it has to say, but not in the same instant."""
    status = a_run(house, Status.STARTED, asset_key("plans"))
    (run,) = house.instance.get_runs()
    working = dg.DagsterEvent(
        dg.DagsterEventType.ENGINE_EVENT.value,
        run.job_name,
        event_specific_data=EngineEventData(),
    )
    long_ago = utc_now() - SILENCE
    house.instance.report_dagster_event(working, run.run_id, timestamp=long_ago.timestamp())
    house.store.begin_run(an_identity(source="fake"), Mode.INCREMENTAL, f"{run.run_id}:plans")
    house.store.finish_run(f"{run.run_id}:plans", Outcome.COMPLETE, "", 1, 0)
    assert looked(house, timedelta()) == "no run has lost its process"
    assert status() is Status.STARTED
    house.age("sync_runs", "ended_at", SILENCE)
    assert "lost its process" in looked(house, timedelta())
    assert status() is Status.FAILURE


def test_s41_a_run_that_waits_for_a_dead_ones_lease_is_left_alone(house: House) -> None:
    """It looks every two seconds; in between, the lease has lapsed and nobody holds it."""
    status = a_run(house, Status.STARTED, asset_key("plans"))
    house.store.begin_run(an_identity(source="fake"), Mode.INCREMENTAL, "dead")
    house.age("sync_leases", "expires_at", timedelta(seconds=1))
    assert looked(house, SILENCE) == "no run has lost its process"
    assert status() is Status.STARTED
    house.age("sync_leases", "expires_at", SILENCE)
    assert "lost its process" in looked(house, SILENCE)
    assert status() is Status.FAILURE


def test_s41_a_run_whose_own_lease_lapsed_is_dead_at_once(house: House) -> None:
    status = a_run(house, Status.STARTED, asset_key("plans"))
    (run,) = house.instance.get_runs()
    house.store.begin_run(an_identity(source="fake"), Mode.INCREMENTAL, f"{run.run_id}:plans")
    house.age("sync_leases", "expires_at", timedelta(seconds=1))
    assert "lost its process" in looked(house, SILENCE)
    assert status() is Status.FAILURE


def test_a_run_that_is_slow_to_start_is_given_dagsters_time(house: House) -> None:
    status = a_run(house, Status.STARTING, asset_key("plans"))
    looked(house, SILENCE)
    assert status() is Status.STARTING
    looked(house, START_SILENCE)
    assert status() is Status.FAILURE


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [dg.AssetKey("report")],
        [dg.AssetKey("report"), asset_key("plans")],
        [asset_key("of_another_deployment")],
    ],
    ids=str,
)
def test_how_long_other_peoples_work_is_silent_is_not_for_us_to_judge(
    house: House, keys: list[dg.AssetKey]
) -> None:
    status = a_run(house, Status.STARTED, *keys)
    looked(house, timedelta(hours=2))
    synced_tick = house.tick(utc_now() + timedelta(hours=2))
    assert isinstance(synced_tick, (dg.RunRequest, dg.SkipReason))
    assert status() is Status.STARTED


def test_where_nothing_ticks_the_endpoints_are_mirrored_all_the_same(house: House) -> None:
    looked(house, timedelta())
    mirrored = house.store.status("models")
    assert mirrored is not None
    assert mirrored.status == "new"


def test_s42_evaluations_leave_nothing_behind(synced: House) -> None:
    """Each opening of Dagster's storages registers something with ``atexit``, which stays."""
    defs = synced.definitions()
    repository = defs.get_repository_def()

    def evaluate() -> int:
        ref = instance.get_ref()
        with dg.build_schedule_context(
            instance_ref=ref,
            repository_def=repository,
            resources=defs.resources,
            scheduled_execution_time=utc_now(),
        ) as tick:
            answer = repository.get_schedule_def("plans_schedule").evaluate_tick(tick)
            assert str(answer.skip_message).startswith("no change since ")
        with dg.build_sensor_context(instance_ref=ref, repository_def=repository) as look:
            repository.get_sensor_def(watch.NAME).evaluate_tick(look)
        return atexit._ncallbacks()

    with open_instance(synced.folder) as instance:
        first = evaluate()
        assert [evaluate() for _ in range(5)] == [first] * 5
