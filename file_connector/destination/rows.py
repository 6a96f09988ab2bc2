"""From a provider's record to a row: cleaning at the border, and whether a row is news. No I/O."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from operator import itemgetter
from typing import Any, NamedTuple

from file_connector.destination.tables import dumps
from file_connector.models import FileRecord, Identity, Json, SyncState

Row = dict[str, Any]

BIGINT = 2**63
LONGEST_ID = 1000
"""Bytes. An index of Postgres takes some 2,700 for a whole key."""

DEEPEST = 100
_LONGEST_NUMBER = 3000  # bits
_EXACT = 2.0**53
_ASKS_FOR_CLEANING = ("\\u0000", "NaN", "Infinity", "e+")
_LINK = re.compile(r"https?://[^\s\x00-\x20\x7f]+", re.IGNORECASE)

NEWS = (
    "title",
    "link",
    "created_at",
    "updated_at",
    "mime_type",
    "size_bytes",
    "parent_id",
    "path",
    "source",
    "project_id",
    "user_id",
    "raw",
)
"""A difference in one of these is a change of the row; so is one in ``version`` if the record says
that its version counts content."""

news_of: Callable[[Row], tuple[Any, ...]] = itemgetter(*NEWS)


class Held(NamedTuple):
    """What is compared of a stored row. ``news`` has the columns ``NEWS``."""

    version: int | None
    gone_at: datetime | None
    news: tuple[Any, ...]


def row_of(identity: Identity, record: FileRecord, path: str) -> Row:
    """The cleaned row of ``record``: everything but our own times and ``change_seq``."""
    return {
        "endpoint_id": identity.endpoint_id,
        "external_id": clean_id(record.external_id),
        "source": identity.source,
        "project_id": identity.project_id,
        "user_id": identity.user_id,
        "title": clean_text(record.title),
        "link": clean_link(record.link),
        "created_at": clean_time(record.created_at),
        "updated_at": clean_time(record.updated_at),
        "mime_type": None if record.mime_type is None else clean_text(record.mime_type),
        "size_bytes": clean_int(record.size_bytes),
        "version": clean_int(record.version),
        "path": path,
        "parent_id": None if record.parent_id is None else clean_id(record.parent_id),
        "gone_at": None,
        "gone_reason": None,
        "raw": clean_json(record.raw),
    }


def is_older(row: Row, held: Held) -> bool:
    """Whether ``row`` must not overwrite what is held: both tell a version and ours is lower."""
    ours, theirs = row["version"], held.version
    return ours is not None and theirs is not None and ours < theirs


def is_news(row: Row, held: Held, version_is_content: bool) -> bool:
    """Whether a reader could tell ``row`` from what is held."""
    return (
        news_of(row) != held.news
        or (version_is_content and row["version"] != held.version)
        or held.gone_at is not None
    )


def clean_text(text: str) -> str:
    """``text`` as every database takes it: NUL dropped, lone surrogates replaced by U+FFFD.

    Other control characters stay, because a title is what the provider says it is; what prints
    titles escapes them (``errors.one_line``).
    """
    if "\x00" in text:
        text = text.replace("\x00", "")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def clean_id(text: str) -> str:
    """``clean_text`` of an id. One too long for an index ends in its digest instead: the same for
    ever, and another than its neighbour's."""
    if len(text) <= LONGEST_ID and text.isascii() and "\x00" not in text:
        return text
    text = clean_text(text)
    if len(text.encode()) <= LONGEST_ID:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text.encode()[: LONGEST_ID - 100].decode(errors='ignore')}...{digest}"


def clean_state(state: SyncState) -> SyncState:
    """``state`` as every database takes it: it may hold names that a provider gave."""
    return replace(
        state,
        cursor=clean_json(state.cursor),
        sweep=clean_json(state.sweep),
        blind=tuple(clean_json(state.blind)),
        scope=None if state.scope is None else clean_text(state.scope),
        principal=None if state.principal is None else clean_text(state.principal),
    )


def clean_link(link: str | None) -> str | None:
    """``link`` if it is an http(s) address without blanks or control characters, else None."""
    if link is None or _LINK.fullmatch(link) is None:
        return None
    return clean_text(link)


def clean_int(number: int | None) -> int | None:
    """``number`` if a bigint holds it, else None."""
    return number if number is not None and -BIGINT <= number < BIGINT else None


def clean_time(moment: datetime | None) -> datetime | None:
    """``moment`` in UTC; a naive one is read as UTC. None in the years 1 and 9999, where changing
    time zones could leave the calendar."""
    if moment is None:
        return None
    if not 1 < moment.year < 9999:
        return None
    if moment.tzinfo is None:
        return moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc)


def clean_json(value: Json) -> Json:
    """``value`` as JSON gives it back: lists for tuples, text for keys; NUL and lone surrogates
    cleaned; NaN, infinities and numbers too long for a database null; large floats as the integers
    they are (Postgres gives them back as such). What is nested too deeply is replaced by a word
    that says so."""
    if _is_plain(value):
        return value
    with suppress(TypeError, ValueError, RecursionError):
        text = dumps(value)
        text.encode()
        shallow = text.count("[") + text.count("{") <= DEEPEST
        if shallow and not any(word in text for word in _ASKS_FOR_CLEANING):
            return json.loads(text)
    try:
        return _clean_json(value, DEEPEST)
    except RecursionError:
        return {"not_stored": f"nested more than {DEEPEST} levels deep"}


def _is_plain(value: Json) -> bool:
    """Whether ``value`` is nothing or a flat dict that needs no cleaning: the common case, told
    cheaply."""
    if type(value) is not dict:
        return value is None
    for key, item in value.items():
        kind = type(item)
        if kind is str:
            if not (item.isascii() and "\x00" not in item):
                return False
        elif not (item is None or kind is bool or (kind is int and -BIGINT <= item < BIGINT)):
            return False
        if not (type(key) is str and key.isascii() and "\x00" not in key):
            return False
    return True


def _clean_json(value: Json, levels: int) -> Json:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if abs(value) > _EXACT else value
    if isinstance(value, int):
        return value if value.bit_length() <= _LONGEST_NUMBER else None
    if value is None:
        return value
    if levels == 0:
        raise RecursionError
    if isinstance(value, Mapping):
        return {clean_text(str(k)): _clean_json(v, levels - 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean_json(item, levels - 1) for item in value]
    return clean_text(str(value))
