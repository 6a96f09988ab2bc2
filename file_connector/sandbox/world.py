"""What both worlds share: a clock that tests can move, identifiers that repeat, time formats."""

from __future__ import annotations

import base64
import random
import re
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import wraps
from typing import Any, TypeVar, cast

START = datetime(2026, 3, 2, 9, 0, 0, tzinfo=timezone.utc)
"""Where the clock of a test sandbox stands at first."""

_F = TypeVar("_F", bound=Callable[..., Any])
_STAMP = re.compile(
    r"^(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?"
    r"\s*([Zz]|[+-]\d\d:?\d\d)?$"
)


class SandboxError(Exception):
    """A test or a person used the sandbox in a way that makes no sense."""


class Clock:
    """The worlds' time, UTC.

    Stands still at ``start`` until moved by ``advance`` or ``set``; every mutation of a world moves
    it by ``step`` first, so that two changes never share a moment unless a test wants that
    (``step`` zero). With ``live`` it follows the real clock and ignores ``step``.
    """

    def __init__(
        self,
        start: datetime | None = None,
        *,
        step: timedelta = timedelta(seconds=1),
        live: bool = False,
    ) -> None:
        self.live = live
        self.step = step
        self._now = _utc(start or START)

    def now(self) -> datetime:
        """The present moment of the worlds."""
        return datetime.now(timezone.utc) if self.live else self._now

    def advance(self, seconds: float = 0, **parts: float) -> datetime:
        """Move on by ``seconds`` and/or timedelta arguments (``minutes=5``); the new moment."""
        return self.set(self._now + timedelta(seconds=seconds, **parts))

    def set(self, moment: datetime) -> datetime:
        """Jump to ``moment`` (backwards too); the new moment."""
        if self.live:
            raise SandboxError("a live clock cannot be set")
        self._now = _utc(moment)
        return self._now

    def tick(self) -> datetime:
        """One mutation happens: move by ``step``; the new moment."""
        if not self.live:
            self._now += self.step
        return self.now()


class World:
    """A lock, a clock and a source of repeatable identifiers."""

    def __init__(self, clock: Clock, seed: int = 7) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.random = random.Random(seed)
        self.hints: dict[str, str] = {}
        """Words appended to not-found messages, e.g. {"folder": "the sandbox's folder is ..."}."""

    def new_id(self, length: int) -> str:
        """A fresh random-looking identifier (base64url); the same in every run with this seed."""
        return base64.urlsafe_b64encode(self.random.randbytes(length)).decode()[:length]

    def new_guid(self) -> str:
        """A fresh GUID, the same in every run with the same seed."""
        digits = f"{self.random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def locked(method: _F) -> _F:
    """Run a world's method under its lock."""

    @wraps(method)
    def wrapper(self: World, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            return method(self, *args, **kwargs)

    return cast(_F, wrapper)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise SandboxError(f"a moment needs a time zone: {moment!r}")
    return moment.astimezone(timezone.utc)


def moment(value: datetime | str | None, default: datetime) -> datetime:
    """A datetime, or an RFC 3339 text, or the default, as aware UTC."""
    if value is None:
        return default
    if isinstance(value, datetime):
        return _utc(value)
    parsed = read_time(value)
    if parsed is None:
        raise SandboxError(f"not a time: {value!r}")
    return parsed


def read_time(text: str) -> datetime | None:
    """An RFC 3339 date or date-time (UTC if it names no zone), or None."""
    match = _STAMP.match(text.strip())
    if not match:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        value = datetime(
            int(year),
            int(month),
            int(day),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            int(((fraction or "") + "000000")[:6]),
            tzinfo=timezone.utc,
        )
    except ValueError:
        return None
    if zone and zone not in "Zz":
        sign = -1 if zone[0] == "-" else 1
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
        value -= sign * offset
    return value


def drive_time(value: datetime) -> str:
    """As Drive writes times: milliseconds and Z."""
    return value.isoformat(timespec="milliseconds")[:23] + "Z"


def real_seconds() -> float:
    """The real clock, seconds since 1970: JWTs are dated with it, whatever the worlds say."""
    return time.time()
