"""The one place where provider calls are repeated: which errors, how long to wait, when to stop.

Connectors turn every answer into an error of ``errors.py``; only TransientError is repeated here.
"""

from __future__ import annotations

import email.utils
import random
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import TypeVar

import tenacity

from file_connector.connectors.base import Toolbox
from file_connector.errors import TransientError

T = TypeVar("T")

MAX_ATTEMPTS = 8
MAX_BACKOFF_SECONDS = 32.0
"""Google's guide: wait min(2^n s + up to 1 s of jitter, 32 or 64 s)."""


class Retrier:
    """Repeats calls that failed for a passing reason, within one budget of waiting for a run.

    Failed attempts count with their duration, too. A ``retry_after`` is honoured as asked; if it
    does not fit into what is left of the budget, the error is raised at once: the next run will
    come back to it with a valid cursor.
    """

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox
        self._left = toolbox.retry_budget_seconds

    @property
    def budget_left_seconds(self) -> float:
        return self._left

    def call(self, attempt: Callable[[], T]) -> T:
        """``attempt()``, repeated while it raises TransientError and the budget lasts."""

        def timed() -> T:
            began = self._toolbox.monotonic()
            try:
                return attempt()
            except TransientError:
                self._left -= self._toolbox.monotonic() - began
                raise

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            wait=self._wait,
            stop=self._stop,
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(timed)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, TransientError) else None
        if asked:  # "0" says nothing about when: our own back-off is politer
            return asked + random.random() * 0.25
        return min(2.0 ** (state.attempt_number - 1) * 0.5 + random.random(), MAX_BACKOFF_SECONDS)

    def _stop(self, state: tenacity.RetryCallState) -> bool:
        return state.attempt_number >= MAX_ATTEMPTS or state.upcoming_sleep > self._left

    def _sleep(self, seconds: float) -> None:
        self._left -= seconds
        self._toolbox.sleep(seconds)


def asked_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds asked for by a ``Retry-After`` header: a number or an HTTP date; None if absent or
    nonsense. Negative values mean "now". A date is by the server's clock, so it is measured from
    the ``Date`` of the answer, or from ``now`` without one.

    Args:
        headers: with names in any case, or in lower case.
    """
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        until, since = _http_date(text), _http_date(headers.get("date", ""))
        if until is None:
            return None
        seconds = (until - (since or now)).total_seconds()
    if seconds != seconds or seconds in (float("inf"), float("-inf")):
        return None
    return max(seconds, 0.0)


def _http_date(text: str) -> datetime | None:
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=timezone.utc)
