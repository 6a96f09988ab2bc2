"""A day without news. ``benchmarks/idle_day.py`` measures the same for twenty endpoints, Dagster's
files and memory included."""

from __future__ import annotations

import itertools
from datetime import timedelta

import dagster as dg
import pytest

from file_connector.deployment import Deployment
from file_connector.endpoints.schema import Endpoint
from file_connector.orchestration.schedules import evaluate
from file_connector.times import utc_now
from file_connector_tests.crashes.house import House

TICKS = 24 * 12


@pytest.mark.parametrize("source", ["drive", "autodesk"])
def test_s42_a_day_without_news_is_one_sweep_and_one_question_per_tick(
    house: House, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plot = house.plot(source, synced=True)
    provider = {"drive": "drive.", "autodesk": "aps."}[source]
    deployment = Deployment.from_environ(house.environ, house.folder)
    (endpoint,) = [e for e in deployment.catalog().endpoints if e.id == plot.id]

    def opened(endpoint: Endpoint, store: object) -> object:
        return deployment.open_connector(endpoint, house.store, retry_budget_seconds=0.0)

    begin = now = utc_now()
    runs, calls = 0, []
    # An account's budget is one of calls a minute: they must be minutes of this day.
    monkeypatch.setattr(house.store, "_clock", lambda: now)
    for n in range(1, TICKS + 1):
        now = begin + timedelta(minutes=5 * n)
        mark = house.sandbox.log.mark()
        answer = evaluate(endpoint, house.store, opened, house.instance, now)  # type: ignore[arg-type]
        kinds = [c.kind for c in house.sandbox.log.calls(since=mark)]
        calls.append([k for k in kinds if k.startswith(provider) and not k.endswith(".token")])
        if isinstance(answer, dg.RunRequest):
            runs += 1
            report = house.sync(plot, now=itertools.repeat(now).__next__)
            assert report.swept
            assert report.counts.inserted + report.counts.updated == 0
        else:
            assert str(answer.skip_message).startswith("no change since ")
    assert runs == 1
    assert max(map(len, calls)) == 1, [c for c in calls if len(c) > 1]
    assert sum(map(len, calls)) >= TICKS - 1
    assert house.runs(plot) == []
