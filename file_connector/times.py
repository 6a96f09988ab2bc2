"""Provider timestamps to aware UTC datetimes and back; nothing else."""

from __future__ import annotations

import re
from datetime import datetime, timezone

_STAMP = re.compile(
    r"^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:[.,](\d+))?\s*([Zz]|[+-]\d\d:?\d\d|)$"
)


def parse_time(value: object) -> datetime | None:
    """An ISO-8601 timestamp as aware UTC datetime, or None if it is absent or not one.

    Takes any number of fraction digits (cut to microseconds) and ``Z``, ``+00:00``, ``+0000`` or no
    zone (read as UTC): all of these occur in Drive and APS answers. Times outside the years 1 to
    9999 after conversion to UTC are not times for us.
    """
    if not isinstance(value, str):
        return None
    match = _STAMP.match(value.strip())
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    micros = ((fraction or "") + "000000")[:6]
    offset = "+00:00" if zone in ("", "Z", "z") else zone
    if ":" not in offset:
        offset = f"{offset[:3]}:{offset[3:]}"
    try:
        return datetime.fromisoformat(f"{day}T{clock}.{micros}{offset}").astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def iso(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with microseconds and ``Z``; sorts as text in time order."""
    if moment is None:
        return None
    return f"{moment.astimezone(timezone.utc).isoformat(timespec='microseconds')[:-6]}Z"
