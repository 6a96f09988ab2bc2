"""Partial responses: the ``fields`` parameter of Google APIs, parsed once and applied to JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

Mask = Mapping[str, "Mask"]
"""Field name -> mask of its inside; an empty inside means all of it. ``*`` stands for all names."""

_NAME = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*|\*)\s*")


class MaskError(Exception):
    """The mask cannot be read, or names a field that does not exist (``args[0]`` is the name)."""


@lru_cache(maxsize=256)
def parse(text: str) -> Mask:
    """The tree of a mask; raises MaskError."""
    mask, at = _list(text, 0)
    if at != len(text):
        raise MaskError(text[at:])
    return mask


def _list(text: str, at: int) -> tuple[dict[str, Any], int]:
    mask: dict[str, Any] = {}
    while True:
        at = _path(text, at, mask)
        if at < len(text) and text[at] == ",":
            at += 1
            continue
        return mask, at


def _path(text: str, at: int, mask: dict[str, Any]) -> int:
    match = _NAME.match(text, at)
    if not match:
        raise MaskError(text[at:] or text)
    name, at = match.group(1), match.end()
    known = name in mask
    inside: dict[str, Any] = mask.setdefault(name, {})
    if at < len(text) and text[at] == "/":
        if known and not inside:
            inside = {}
        return _path(text, at + 1, inside)
    if at < len(text) and text[at] == "(":
        sub, at = _list(text, at + 1)
        if at >= len(text) or text[at] != ")":
            raise MaskError(text)
        if not (known and not inside):
            _merge(inside, sub)
        return at + 1
    inside.clear()
    return at


def _merge(target: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, inside in more.items():
        if name in target and target[name] and inside:
            _merge(target[name], inside)
        else:
            target[name] = dict(inside)


def check(mask: Mask, schema: Mapping[str, Any]) -> None:
    """Raise MaskError for a name the schema lacks. A schema value is a nested schema or None."""
    for name, inside in mask.items():
        if name == "*":
            if inside:
                for nested in schema.values():
                    if isinstance(nested, Mapping):
                        check(inside, nested)
            continue
        if name not in schema:
            raise MaskError(name)
        nested = schema[name]
        if inside and isinstance(nested, Mapping):
            check(inside, nested)
        elif inside and nested is None:
            raise MaskError(next(iter(inside)))


def wants(mask: Mask, name: str) -> bool:
    """Whether the mask lets ``name`` through at its top level."""
    return name in mask or "*" in mask


def inside(mask: Mask, name: str) -> Mask:
    """The mask of what is inside ``name``."""
    if name in mask:
        return mask[name]
    return mask.get("*", {})


def apply(mask: Mask, value: Any) -> Any:
    """``value`` cut down to the mask."""
    if not mask or ("*" in mask and not mask["*"]):
        return value
    if isinstance(value, list):
        return [apply(mask, one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: apply(inside(mask, name), one) for name, one in value.items() if wants(mask, name)
    }
