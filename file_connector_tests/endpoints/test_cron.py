"""The cron dialect: what passes means the same to Dagster, what does not is explained."""

from __future__ import annotations

import pytest
from dagster._utils.schedules import is_valid_cron_schedule
from hypothesis import given, settings
from hypothesis import strategies as st

from file_connector.endpoints.cron import parse_cron


@pytest.mark.parametrize(
    ("text", "gap"),
    [
        ("* * * * *", 1),
        ("*/5 * * * *", 5),
        ("*/7 * * * *", 4),
        ("0 6 * * *", 24 * 60),
        ("0 0,12 * * mon-fri", 12 * 60),
        ("10-50/20 8-18 1,15 jan-jun *", 20),
        ("0-30/30 * * * *", 30),
        ("58,2 0 * * *", 56),
        ("59 23 * * 7", 24 * 60),
        ("0 0 29 2 *", 24 * 60),
    ],
)
def test_what_fires_how_often(text: str, gap: int) -> None:
    assert parse_cron(text).densest_gap_minutes() == gap
    assert is_valid_cron_schedule(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has 0 fields"),
        ("5", "it has 1 field;"),
        ("0 0 6 * * *", "it has 6 fields"),
        ("@daily", "'0 0 * * *'"),
        ("@every 5m", "2 fields"),
        ("60 * * * *", "minute 60 is outside 0 to 59"),
        ("* 24 * * *", "hour 24"),
        ("* * 0 * *", "day of the month 0"),
        ("* * * 13 *", "month 13"),
        ("* * * * 8", "day of the week 8"),
        ("*/90 * * * *", "the step /90"),
        ("*/0 * * * *", "the step /0"),
        ("5/10 * * * *", "write 5-59/10"),
        ("50-10 * * * *", "runs backwards"),
        ("* * * foo *", "'foo' is not a month"),
        ("1,,2 * * * *", "'' is not a minute"),
        ("-5 * * * *", "'-5' is not a minute"),
        ("*-5 * * * *", "'*-5' is not a minute"),
        ("٣ * * * *", "'٣' is not a minute"),
        ("0 0 30 2 *", "no month has that day"),
        ("0 0 31 2 1", "no month has that day"),
        ("0 0 31 2,4,6 *", "no month has that day"),
        ("* * L * *", "'L' is not a day of the month"),
    ],
)
def test_what_is_refused_and_why(text: str, words: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_cron(text)
    assert words in str(raised.value)


PART = st.sampled_from(
    ["*", "*/2", "*/5", "1", "2,3", "1-5", "1-5/2", "7", "0", "31", "mon", "feb"]
)


@settings(max_examples=300, deadline=None)
@given(fields=st.lists(PART, min_size=5, max_size=5))
def test_dagster_accepts_whatever_we_accept(fields: list[str]) -> None:
    text = " ".join(fields)
    try:
        parse_cron(text)
    except ValueError:
        return
    assert is_valid_cron_schedule(text)
