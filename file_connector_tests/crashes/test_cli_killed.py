"""``file-connector sync``: killed anywhere, the next one goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from file_connector.destination.sql_store import LEASE_SECONDS
from file_connector.models import Outcome
from file_connector_tests.crashes.child import Death
from file_connector_tests.crashes.house import PATIENCE, House, Plot, wait_for

SOURCES = ["drive", "autodesk"]


def goes_on(house: House, plot: Plot) -> None:
    """The dead one's lease keeps nobody waiting, and the next run brings truth."""
    house.sandbox.faults.clear()
    (dead,) = house.open_runs(plot)
    following = house.command("sync", plot.id)
    assert following.wait() == 0, following.said
    assert house.true(plot)
    assert house.open_runs(plot) == []
    (row,) = [r for r in house.store.runs(plot.id) if r.run_id == dead.run_id]
    assert row.outcome is Outcome.FAILED
    assert row.reason == "lost: its process died"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("request_number", [2, 4])
def test_s17_killed_at_a_request(house: House, request_number: int, source: str) -> None:
    plot = house.plot(source, synced=request_number == 2, disturbed=request_number == 2)
    began: list[subprocess.Popen[bytes]] = []

    def kill() -> None:
        (process,) = wait_for(lambda: began, "the process")
        os.killpg(process.pid, signal.SIGKILL)

    rule = house.strike(request_number, kill)
    process = subprocess.Popen(
        [sys.executable, "-m", "file_connector", "sync", plot.id],
        env=house.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    began.append(process)
    assert process.wait(PATIENCE) == -signal.SIGKILL
    assert rule.hits == 1
    goes_on(house, plot)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "death",
    [Death("commit", 1), Death("commit", 3, before=False), Death("finish_run")],
    ids=str,
)
def test_s17_killed_around_a_commit(house: House, death: Death, source: str) -> None:
    plot = house.plot(source)
    assert house.command("sync", plot.id, death=death).wait() == -signal.SIGKILL
    goes_on(house, plot)


@pytest.mark.parametrize("source", SOURCES)
def test_s17_killed_in_a_sweep(house: House, source: str) -> None:
    plot = house.plot(source, synced=True, disturbed=True)
    death = Death("commit", 3)
    assert house.command("sync", plot.id, "--sweep", death=death).wait() == -signal.SIGKILL
    goes_on(house, plot)


def test_s41_a_killed_process_of_which_nothing_is_told_is_waited_for(house: House) -> None:
    """On another machine, or in Supabase, only the end of its lease says that it died."""
    assert LEASE_SECONDS < 120
    plot = house.plot("drive", synced=True, disturbed=True)
    hold = house.hold()
    holder = house.zygote.start("command_line_with_lease", ["1.5", "sync", plot.id])
    hold.reached()
    holder.signal(signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    for lock in (house.folder / ".file_connector").glob("*.lock"):
        lock.unlink()
    hold.let_go()
    following = house.command("sync", plot.id)
    assert following.wait() == 0, following.said
    assert house.true(plot)
    (lost,) = [r for r in house.store.runs(plot.id) if r.outcome is Outcome.FAILED]
    assert lost.reason.startswith("lost: its process stopped answering")


@pytest.mark.parametrize("source", SOURCES)
def test_s17_sigterm_closes_the_run_at_once(house: House, source: str) -> None:
    plot = house.plot(source)
    hold = house.hold(3)
    child = house.command("sync", plot.id)
    hold.reached()
    child.signal(signal.SIGTERM)
    hold.let_go()
    assert child.wait() == 143
    (row,) = house.store.runs(plot.id)
    assert row.outcome is Outcome.FAILED
    assert row.reason.startswith("interrupted: ")
    assert house.command("sync", plot.id).wait() == 0, "nobody had to wait for the lease"
    assert house.true(plot)
