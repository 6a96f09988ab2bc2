"""What is wrong with a value of endpoints.yaml, in words a tenant's engineer can act on: pydantic's
findings translated, unknown keys with a suggestion, and no value shown that could be a secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from file_connector.endpoints import document
from file_connector.endpoints.document import Place
from file_connector.endpoints.schema import Entry
from file_connector.errors import redact
from file_connector.models import Json

SECRET_KEY = re.compile(r"(?i)secret|token|passw|private|api_?key|credential_|bearer|pwd")
"""Keys whose values are never repeated."""


def sentence(name: str, seen: str, what: str) -> str:
    """What is wrong with a value; ``what`` may be a predicate or a sentence of its own."""
    if what.startswith(("must ", "may ", "should ", "needs ")):
        return f"`{name}` is {seen}, but {what}." if seen else f"`{name}` {what}."
    if what.startswith(("is ", "has ", "holds ")) and seen.startswith("'"):
        return f"`{name}` ({seen}) {what}."
    return f"`{name}`: {what}."


def path_in_file(
    loc: Sequence[str | int],
    prefix: document.Path,
    places: Mapping[document.Path, Place],
    *,
    absent: bool,
) -> document.Path:
    """The longest way along ``loc`` that stands in the file, by preference to its end: pydantic's
    locations also name branches of unions, which are no keys. ``absent``: the end is missing."""
    *way, end = loc or ("",)
    reached = [prefix]
    for part in way:
        reached += [(*path, part) for path in reached if (*path, part) in places]
    ends = [(*path, end) for path in reached if (*path, end) in places]
    if absent:
        return (*max(reached, key=len), end)
    return max(ends or reached, key=len)


def explain(
    kind: str, context: Mapping[str, Any], detail: ErrorDetails, place: Place, path: document.Path
) -> tuple[str, str, str]:
    """What is wrong with a value, what to do, what is allowed."""
    if path == ("credentials",):
        return (
            "must be the name of a credential set (letters, digits, - and _), or vault:NAME",
            "Write `credentials: acme`; the secret goes into GOOGLE_CREDENTIALS__ACME or the like.",
            "a name",
        )
    if kind == "string_type":
        if place.text is not None and not isinstance(detail["input"], dict | list | type(None)):
            return "must be text", f"Put it in quotes: '{cut(place.text)}'.", "text"
        if detail["input"] is None:
            return (
                "must be text",
                "Fill it in; a text that begins with # or & needs quotes.",
                "text",
            )
        return "must be text", "Write one word or a quoted text.", "text"
    if kind == "string_too_short":
        return "must not be empty", "Fill it in.", "text"
    if kind in ("int_type", "int_parsing", "int_from_float", "float_type", "float_parsing"):
        return "must be a whole number", "Write digits without quotes.", "a whole number"
    if kind in ("greater_than_equal", "greater_than"):
        bound = context.get("ge", context.get("gt"))
        return f"must be at least {bound}", f"Use {bound} or more.", f">= {bound}"
    if kind in ("less_than_equal", "less_than"):
        bound = context.get("le", context.get("lt"))
        return f"must be at most {bound}", f"Use {bound} or less.", f"<= {bound}"
    if kind in ("bool_type", "bool_parsing"):
        return "must be true or false", "Write true or false without quotes.", "true, false"
    if kind in ("list_type", "tuple_type", "set_type", "frozen_set_type"):
        return "must be a list", "Write it as [a, b].", "a list"
    if kind == "too_short" and isinstance(detail["input"], list):
        return "must not be empty", "Fill it, or leave the key out.", "at least one"
    if kind in ("dict_type", "model_type", "model_attributes_type", "mapping_type"):
        if path == ("schedule",):
            return "must be a mapping", _SCHEDULE_HELP, "a mapping"
        return "must be a mapping", "Write `key: value` pairs below it.", "a mapping"
    if kind == "union_tag_not_found":
        return "needs a `type`", _SCHEDULE_HELP, "interval, cron, manual"
    if kind == "union_tag_invalid":
        expected = str(context.get("expected_tags", "")).replace("'", "")
        tag = context.get("tag")
        close = difflib.get_close_matches(str(tag), expected.split(", "), n=1)
        hint = f"Did you mean '{close[0]}'? " if close else ""
        return f"must be one of {expected}", f"{hint}{_SCHEDULE_HELP}", expected
    if kind in ("literal_error", "enum"):
        expected = str(context.get("expected", ""))
        return f"must be {expected}", "Use one of these.", expected
    if kind == "cron":
        return (
            f"is not a usable cron expression: {context.get('why')}",
            'Five fields, UTC, for example "0 6 * * *" for every day at 6:00.',
            "minute hour day-of-month month day-of-week",
        )
    if kind == "id":
        suggestion = context.get("suggestion")
        remedy = f"Write `id: {suggestion}`." if suggestion else "Write for example `id: tower_42`."
        return detail["msg"], remedy, "a-z, 0-9, single underscores"
    if kind in ("day", "date_parsing", "date_from_datetime_parsing", "date_type"):
        return "must be a date", "Write it like 2026-01-31.", "YYYY-MM-DD"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = redact(message.rstrip("."))
    return re.sub(r"^(String|Input|Value|Tuple|List) should ", "should ", message), "", ""


_SCHEDULE_HELP = (
    'Write {type: interval, interval_minutes: 5}, {type: cron, cron: "0 6 * * *"} '
    "or {type: manual}."
)


def unknown_key(parent: str, key: str, allowed: Sequence[str]) -> tuple[str, str]:
    """Message and remedy for a key nobody knows; the value is never repeated."""
    where = f" in `{parent}`" if parent else ""
    shown = cut(redact(key))
    close = difflib.get_close_matches(key.lower(), allowed, n=1)
    if close:
        remedy = f"Did you mean `{close[0]}`?"
    elif SECRET_KEY.search(key):
        remedy = "Secrets belong in the environment: name a set with `credentials:`."
    else:
        remedy = f"Allowed keys: {', '.join(allowed)}." if allowed else "No keys are allowed here."
    return f"unknown key `{shown}`{where}.", remedy


def allowed_keys(model: type[BaseModel], path: document.Path, data: Json) -> list[str]:
    """The keys a model allows at ``path`` below it."""
    if model is Entry and path == ("schedule",):
        kind = data["schedule"].get("type", "interval")
        extra = {"interval": ["interval_minutes"], "cron": ["cron"]}.get(kind, [])
        return ["type", *extra]
    for part in path:
        info = model.model_fields.get(str(part))
        inner = info.annotation if info else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return [info.alias or name for name, info in model.model_fields.items()]


def show(path: document.Path, value: object, place: Place) -> str:
    """A value for a message: as written, short, and not at all where a secret could stand."""
    if path == ("credentials",) or any(SECRET_KEY.search(str(p)) for p in path):
        return ""
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = place.text if place.text is not None else str(value)
    shown = cut(redact(text))
    return f"'{shown}'" if isinstance(value, str) else shown


def cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def dotted(path: document.Path) -> str:
    return ".".join(str(p) for p in path)
