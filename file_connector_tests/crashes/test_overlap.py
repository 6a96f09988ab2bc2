"""Many want to write one endpoint at once: one does, the others wait or are told who it is."""

from __future__ import annotations

from datetime import date, timedelta

import dagster as dg
import pytest
from sqlalchemy import func, select, update

from file_connector.destination.tables import files
from file_connector.models import Mode, Outcome
from file_connector.orchestration.factory import asset_key
from file_connector_tests.crashes.house import House, Plot, one_after_the_other, wait_for
from file_connector_tests.histories.machine import rows_of

Status = dg.DagsterRunStatus


@pytest.mark.parametrize("source", ["drive", "autodesk"])
def test_s41_two_commands_and_a_run_at_once(house: House, source: str) -> None:
    plot = house.plot(source, synced=True, disturbed=True)
    house.tick(plot)
    hold = house.hold()
    first = house.command("sync", plot.id)
    hold.reached()
    (holder,) = house.open_runs(plot)

    second = house.command("sync", plot.id)
    assert second.wait() == 1
    assert f"run {holder.run_id} is writing this endpoint since" in second.said

    (run,) = house.dequeue()
    wait_for(lambda: f"waiting: endpoint '{plot.id}'" in run.said, "the run to say that it waits")
    assert holder.run_id in run.said
    assert first.running
    assert run.running

    hold.let_go()
    assert first.wait() == 0
    assert run.wait() == 0
    assert house.healthy(plot), house.story(plot)
    assert one_after_the_other(house.store, plot)


def thirty_days(plot: Plot) -> list[str]:
    first = date(2026, 2, 5)
    return [(first + timedelta(days=n)).isoformat() for n in range(30)]


def spoil(house: House, plot: Plot, ids: set[str]) -> None:
    """As if we had missed something: the rows differ from the truth."""
    with house.store._engine.begin() as conn:
        conn.execute(
            update(files)
            .where(files.c.endpoint_id == plot.id, files.c.external_id.in_(ids))
            .values(title="spoilt", version=None)
        )


def highest(house: House, plot: Plot) -> int:
    with house.store._engine.connect() as conn:
        mine = select(func.max(files.c.change_seq)).where(files.c.endpoint_id == plot.id)
        return int(conn.execute(mine).scalar_one())


@pytest.mark.parametrize("source", ["drive", "autodesk"])
def test_s50_a_backfill_of_thirty_days_while_the_schedule_runs(house: House, source: str) -> None:
    plot = house.plot(source, synced=True, old=True)
    days = thirty_days(plot)
    inside = {i for i, s in plot.stage.truth().items() if (s.updated_at or "")[:10] in days}
    outside = plot.stage.truth().keys() - inside
    assert inside
    assert outside
    new = plot.stage.new_file(plot.ids["A"], old=False)

    house.tick(plot)
    hold = house.hold()
    (scheduled,) = house.dequeue()
    hold.reached()
    (backfill,) = house.backfill(plot, days)
    assert house.dequeue() == [], "one writer at a time"
    waiting = house.instance.get_run_by_id(backfill.run_id)
    assert waiting is not None
    assert waiting.status is Status.QUEUED
    hold.let_go()
    assert scheduled.wait() == 0
    cursor = house.store.state(plot.id).cursor
    assert new in house.live(plot)

    spoil(house, plot, inside | outside)
    (child,) = house.dequeue()
    assert child.wait() == 0, child.said
    live, truth = house.live(plot), plot.stage.truth()
    assert {i: live[i] for i in inside} == {i: truth[i] for i in inside}
    assert {live[i].title for i in outside} == {"spoilt"}, "other days are left alone"
    assert house.store.state(plot.id).cursor == cursor
    newest = house.store.runs(plot.id, limit=1)[0]
    assert (newest.mode, newest.outcome) == (Mode.WINDOW, Outcome.COMPLETE)
    assert newest.counts.updated == len(inside)
    assert set(days) <= house.instance.get_materialized_partitions(asset_key(plot.id))
    assert one_after_the_other(house.store, plot)

    rows, seq = rows_of(house.store, plot.id), highest(house, plot)
    (again,) = house.backfill(plot, days)
    (child,) = house.dequeue()
    assert child.wait() == 0, child.said
    assert house.instance.get_run_by_id(again.run_id).status is Status.SUCCESS  # type: ignore[union-attr]
    assert (rows_of(house.store, plot.id), highest(house, plot)) == (rows, seq)
    assert house.store.state(plot.id).cursor == cursor
