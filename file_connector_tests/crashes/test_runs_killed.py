"""Dagster runs: their process is killed; the next ticks of the schedule heal the endpoint."""

from __future__ import annotations

import pytest

from file_connector_tests.crashes.child import Death
from file_connector_tests.crashes.house import House


def test_undisturbed(house: House) -> None:
    import time
    t=time.monotonic()
    plot = house.plot("drive")
    print("plot", time.monotonic()-t); t=time.monotonic()
    tick=house.tick(plot)
    print("tick", time.monotonic()-t, tick.run_ids); t=time.monotonic()
    (child,) = house.dequeue()
    print("dequeue", time.monotonic()-t); t=time.monotonic()
    assert child.wait() == 0
    print("run", time.monotonic()-t); t=time.monotonic()
    assert house.true(plot)
    assert house.healthy(plot), house.story(plot)
    print("healthy", time.monotonic()-t); t=time.monotonic()
    print(house.tick(plot).skip_reason)
    print("tick", time.monotonic()-t); t=time.monotonic()
