"""Waiting for the other writer of an endpoint, for whoever starts a run."""

from __future__ import annotations

import time
from collections.abc import Callable

from file_connector.errors import BusyError
from file_connector.models import RunReport

POLL_SECONDS = 2.0


def take_turn(
    drain: Callable[[], RunReport],
    waiting: Callable[[BusyError], None],
    *,
    patience_seconds: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> RunReport:
    """What ``drain`` did, once the endpoint is free. The lease of a writer that died is waited out,
    two minutes at most. One that lives, which shows when it renews its lease, is waited for until
    ``patience_seconds`` are over, then BusyError is raised. ``waiting`` is told of it once."""
    began = monotonic()
    held: BusyError | None = None
    while True:
        try:
            return drain()
        except BusyError as busy:
            lives = busy.free_at is None or (held is not None and busy.free_at != held.free_at)
            if lives and monotonic() - began >= patience_seconds:
                raise
            if held is None:
                waiting(busy)
            held = busy
        sleep(POLL_SECONDS)
