"""Dagster runs: their process is killed; the next ticks of the schedule heal the endpoint."""

from __future__ import annotations

import signal
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.scheduler.instigation import TickStatus

from file_connector.models import Outcome
from file_connector_tests.crashes.child import Death
from file_connector_tests.crashes.house import LIVING, Child, House, Plot, wait_for

Status = dg.DagsterRunStatus
STORIES = ["first_sync", "changes", "sweep"]
SOURCES = ["drive", "autodesk"]
STORE_DEATHS = [
    Death("begin_run", before=False),
    Death("commit", 1, before=True),
    Death("commit", 1, before=False),
    Death("commit", 2, before=False),
    Death("commit", 3, before=False),
    Death("finish_run", before=True),
    Death("finish_run", before=False),
]
EVENT_DEATHS = [
    Death("event:PIPELINE_START", before=True),
    Death("event:PIPELINE_START", before=False),
    Death("event:STEP_START", before=True),
    Death("event:STEP_OUTPUT", before=False),
    Death("event:ASSET_MATERIALIZATION", before=True),
    Death("event:ASSET_MATERIALIZATION", before=False),
    Death("event:STEP_SUCCESS", before=False),
    Death("event:PIPELINE_SUCCESS", before=True),
]


def tell(house: House, source: str, story: str) -> Plot:
    """An endpoint for which the next run is this one."""
    plot = house.plot(source, synced=story != "first_sync", disturbed=story != "first_sync")
    if story == "sweep":
        house.make_sweep_due(plot)
    return plot


def launch(house: House, plot: Plot, death: Death | None = None) -> Child:
    """The run of the schedule's next tick."""
    tick = house.tick(plot)
    assert tick.status is TickStatus.SUCCESS, tick.skip_reason
    (child,) = house.dequeue(death)
    return child


def healed(house: House, plot: Plot) -> None:
    """With ticks alone all is well again, and Dagster and the store agree on what had happened."""
    (dead,) = house.runs(plot)
    rows = [r for r in house.store.runs(plot.id) if r.run_id.startswith(dead.run_id)]
    lost = [r.run_id for r in rows if r.outcome is None]
    assert house.heals(plot) <= 2
    assert [r.status for r in house.runs(plot)] == [Status.SUCCESS, Status.FAILURE]
    for row in house.store.runs(plot.id):
        if row.run_id in lost:
            assert row.outcome is Outcome.FAILED
            assert row.reason.startswith("lost: ")
    before = house.live(plot), house.store.state(plot.id).cursor
    tick = house.tick(plot)
    assert tick.status is TickStatus.SKIPPED, house.story(plot)
    assert str(tick.skip_reason).startswith("no change since ")
    assert (house.live(plot), house.store.state(plot.id).cursor) == before


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("death", STORE_DEATHS, ids=str)
def test_s17_killed_around_a_write(house: House, death: Death, story: str, source: str) -> None:
    plot = tell(house, source, story)
    assert launch(house, plot, death).wait() == -signal.SIGKILL
    assert [r.status for r in house.runs(plot)] == [Status.STARTED]
    healed(house, plot)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("request_number", [2])
def test_s17_killed_at_a_request(
    house: House, request_number: int, story: str, source: str
) -> None:
    plot = tell(house, source, story)
    tick = house.tick(plot)
    assert tick.run_ids
    children: list[Child] = []

    def kill() -> None:
        wait_for(lambda: children, "the process")[0].signal()

    rule = house.strike(request_number, kill)
    children += house.dequeue()
    assert children[0].wait() == -signal.SIGKILL
    assert rule.hits == 1
    healed(house, plot)


@pytest.mark.parametrize("death", EVENT_DEATHS, ids=str)
def test_s17_killed_around_an_event_of_dagster(house: House, death: Death) -> None:
    plot = tell(house, "drive", "changes")
    assert launch(house, plot, death).wait() == -signal.SIGKILL
    assert house.runs(plot)[0].status in LIVING
    healed(house, plot)


def test_a_run_killed_after_its_last_event_leaves_nothing_to_heal(house: House) -> None:
    plot = tell(house, "drive", "changes")
    death = Death("event:PIPELINE_SUCCESS", before=False)
    assert launch(house, plot, death).wait() == -signal.SIGKILL
    assert house.healthy(plot)
    assert house.tick(plot).status is TickStatus.SKIPPED


def test_s17_killed_again_and_again(house: House) -> None:
    """Each dead run counts as a failure; what follows the second in a row waits a little."""
    plot = tell(house, "autodesk", "changes")
    assert launch(house, plot, Death("commit", 1)).wait() == -signal.SIGKILL
    house.pass_time(plot, timedelta(minutes=5))
    assert launch(house, plot, Death("commit", 2)).wait() == -signal.SIGKILL
    assert house.heals(plot) <= 2
    assert [r.status for r in house.runs(plot)] == [Status.SUCCESS, Status.FAILURE, Status.FAILURE]


def test_s41_a_run_that_was_never_started_is_given_up(house: House) -> None:
    """The daemon died between taking the run off the queue and starting its process."""
    plot = tell(house, "drive", "changes")
    house.tick(plot)
    (run,) = house.runs(plot)
    house.instance.report_dagster_event(
        DagsterEvent(DagsterEventType.PIPELINE_STARTING.value, job_name=run.job_name),
        run_id=run.run_id,
    )
    assert house.dequeue() == []
    healed(house, plot)


def test_s41_a_cancelled_run_whose_process_died_first(house: House) -> None:
    plot = tell(house, "drive", "changes")
    assert launch(house, plot, Death("commit", 1)).wait() == -signal.SIGKILL
    (run,) = house.runs(plot)
    house.instance.report_run_canceling(run)
    assert house.runs(plot)[0].status is Status.CANCELING
    healed(house, plot)


def test_s41_a_queued_run_outlives_the_daemon(house: House) -> None:
    """A run that waits in the queue when everything dies is the one that is started later."""
    plot = tell(house, "drive", "changes")
    house.tick(plot)
    (queued,) = house.runs(plot)
    assert queued.status is Status.QUEUED
    house.pass_time(plot, timedelta(hours=1))
    tick = house.tick(plot)
    assert tick.status is TickStatus.SKIPPED
    assert f"run {queued.run_id[:8]} waits in the queue" in str(tick.skip_reason)
    (child,) = house.dequeue()
    assert child.wait() == 0
    assert house.healthy(plot)


def test_s41_a_dead_run_does_not_keep_its_place_in_the_pool(house: House) -> None:
    """Somebody's Materialize waits behind a run that died when nothing was left to do: it gets its
    turn, although no tick finds a change."""
    plot = tell(house, "drive", "changes")
    assert launch(house, plot, Death("finish_run")).wait() == -signal.SIGKILL
    assert house.true(plot)
    asked = house.materialize(plot)
    assert house.dequeue() == [], "the dead run holds the pool"
    house.pass_time(plot, timedelta(minutes=5))
    house.tick(plot)
    for _ in range(2):
        for child in house.dequeue():
            assert child.wait() == 0
    run = house.instance.get_run_by_id(asked.run_id)
    assert run is not None
    assert run.status is Status.SUCCESS
    assert house.heals(plot) <= 1


def test_s41_a_living_silent_run_is_left_alone(house: House) -> None:
    """A run that waits for its provider for long says nothing, but keeps its lease."""
    plot = tell(house, "drive", "changes")
    house.tick(plot)
    stuck = house.hold()
    (child,) = house.dequeue()
    stuck.reached()
    house.pass_clock(timedelta(hours=1))
    tick = house.tick(plot, lease_renewed=True)
    assert tick.status is TickStatus.SKIPPED
    assert "is started" in str(tick.skip_reason)
    stuck.let_go()
    assert child.wait() == 0
    assert house.healthy(plot)


def test_s17_sigterm_closes_the_run_at_once(house: House) -> None:
    plot = tell(house, "drive", "changes")
    house.tick(plot)
    stuck = house.hold()
    (child,) = house.dequeue()
    stuck.reached()
    child.signal(signal.SIGTERM)
    stuck.let_go()
    child.wait()
    (row,) = [r for r in house.store.runs(plot.id) if r.outcome is not Outcome.COMPLETE]
    assert row.outcome is Outcome.FAILED
    assert row.reason.startswith("interrupted: ")
    assert house.runs(plot)[0].status in {Status.FAILURE, Status.CANCELED}
    house.sync(plot)
    assert house.true(plot), "the lease was given back: nobody had to wait for its end"
