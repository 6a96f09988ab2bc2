"""Intervals as cron expressions: no gap longer than asked for, ticks of many endpoints apart."""

from __future__ import annotations

from collections import Counter

import pytest
from dagster._utils.schedules import is_valid_cron_schedule
from hypothesis import given
from hypothesis import strategies as st

from file_connector.endpoints.cron import parse_cron
from file_connector.orchestration.schedules import _hash, interval_crons

DAY = 24 * 60


def ticks(crons: list[str]) -> list[int]:
    """All minutes of the day at which one of the expressions fires."""
    parsed = [parse_cron(text) for text in crons]
    return sorted({h * 60 + m for cron in parsed for h in cron.hours for m in cron.minutes})


@given(interval=st.integers(1, DAY), seed=st.integers(0, 2**64 - 1))
def test_no_gap_is_longer_than_the_interval(interval: int, seed: int) -> None:
    crons = interval_crons(interval, seed)
    assert all(is_valid_cron_schedule(cron) for cron in crons)
    times = ticks(crons)
    gaps = [b - a for a, b in zip(times, [*times[1:], times[0] + DAY], strict=True)]
    assert max(gaps) <= interval
    shorter = [gap for gap in gaps if gap < interval]
    if DAY % interval == 0:
        assert shorter == []
    else:
        assert len(shorter) <= 2
    assert len(times) <= DAY // interval + 2


@pytest.mark.parametrize(
    ("interval", "crons"),
    [
        (1, ["* * * * *"]),
        (5, ["3-59/5 * * * *"]),
        (30, ["13-59/30 * * * *"]),
        (60, ["13 * * * *"]),
        (120, ["13 0,2,4,6,8,10,12,14,16,18,20,22 * * *"]),
        (1440, ["13 0 * * *"]),
    ],
)
def test_well_known_intervals_read_well(interval: int, crons: list[str]) -> None:
    assert interval_crons(interval, 13) == crons


def test_an_interval_that_does_not_divide_the_hour_keeps_its_distance() -> None:
    times = ticks(interval_crons(7, 13))
    assert times[:10] == [1, 6, 13, 20, 27, 34, 41, 48, 55, 62]


def test_s43_endpoints_spread_over_the_interval() -> None:
    starts = Counter(_hash(f"endpoint_{n}") % 5 for n in range(200))
    assert set(starts) == {0, 1, 2, 3, 4}
    assert max(starts.values()) <= 60


def test_s39_the_minute_of_an_endpoint_never_changes() -> None:
    assert interval_crons(5, _hash("tower_42_models")) == ["2-59/5 * * * *"]
