"""What a ``Retry-After`` header asks for, whatever is written in it."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from file_connector.connectors.retry import asked_wait

NOW = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 7.5 ", 7.5),
        ("0", 0.0),
        ("-3", 0.0),
        ("86400", 86400.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("7, 7", None),
        ("Mon, 02 Mar 2026 12:00:09 GMT", 9.0),
        ("Mon, 02 Mar 2026 12:00:09 -0000", 9.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 99999999999 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 +9999999", None),
    ],
)
def test_s21_retry_after(told: str | None, seconds: float | None) -> None:
    headers = {} if told is None else {"retry-after": told}
    assert asked_wait(headers, NOW) == seconds


def test_s21_a_date_is_by_the_clock_of_who_says_it() -> None:
    """Three hours off, theirs or ours: the wait asked for is nine seconds all the same."""
    headers = {
        "retry-after": "Mon, 02 Mar 2026 15:00:09 GMT",
        "date": "Mon, 02 Mar 2026 15:00:00 GMT",
    }
    assert asked_wait(headers, NOW) == 9.0
    assert asked_wait({**headers, "date": "today"}, NOW) == 3 * 3600 + 9.0
