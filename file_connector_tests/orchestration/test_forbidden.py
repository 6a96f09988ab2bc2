"""A folder that is forbidden for ever: what it costs, and whom it delays."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import repeat

import dagster as dg

from file_connector.models import Batch, Blind, Outcome, Probe
from file_connector.sync.plan import BLIND_TRIES
from file_connector.sync.run import SyncRun
from file_connector.times import utc_now
from file_connector_tests.builders import a_file
from file_connector_tests.orchestration.conftest import House
from file_connector_tests.sync.scripted import listing

TICK = timedelta(minutes=5)
DAYS = 3
BLIND = Batch(blind=[Blind("dark", "Dark", "forbidden")])


def test_s20_a_folder_forbidden_for_ever_delays_nobody_and_costs_few_runs(synced: House) -> None:
    """Twelve changes a day come to the rest of the endpoint; each is stored by the next tick."""
    now = utc_now()
    endpoint, plans = synced.endpoint(), synced.plans
    runs: list[datetime] = []
    late = 0
    waiting: str | None = None
    files = [a_file("a"), a_file("b")]
    for n in range(DAYS * 288):
        now += TICK
        if n % 24 == 0:
            waiting = f"f{n}"
            files.append(a_file(waiting))
            plans.probe_answer = Probe(True, "1 change waiting")
        if not isinstance(synced.tick(now), dg.RunRequest):
            late += waiting is not None
            continue
        plans.sweep_script = [*listing(*files)[:-1], BLIND, listing(*files)[-1]]
        new = [files[-1]] if waiting else []
        plans.change_scripts = [[Batch(records=new, cursor=f"t{n}"), BLIND]] * 3
        report = SyncRun(endpoint.identity, plans, synced.store, now=repeat(now).__next__).drain()
        assert report.outcome is Outcome.PARTIAL
        runs.append(now)
        waiting, plans.probe_answer = None, Probe(False, "quiet")
    assert late == 0
    at_first = BLIND_TRIES + 2
    assert len(runs) <= DAYS * (12 + 1) + at_first, "one a day beyond those that had news"
