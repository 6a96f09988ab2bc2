"""The search language of Drive's ``q`` parameter: text to predicate.

``term operator value`` joined by ``and``, ``or``, ``not`` and parentheses. ``and`` and ``or`` group
from left to right without precedence, as Google's guide says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from file_connector.sandbox.world import read_time

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>'(?:[^'\\]|\\.)*')
      | (?P<op><=|>=|!=|=|<|>)
      | (?P<paren>[(){}])
      | (?P<word>[A-Za-z][A-Za-z.]*)
    )""",
    re.VERBOSE,
)
_TIMES = {"modifiedTime", "createdTime", "viewedByMeTime", "sharedWithMeTime"}
_FLAGS = {"trashed", "starred", "sharedWithMe"}
_TEXTS = {"name", "mimeType", "fullText"}
_EQUALS = {"visibility", "shortcutDetails.targetId"}
_COLLECTIONS = {"parents", "owners", "writers", "readers"}
_MAPS = {"properties", "appProperties"}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}

Predicate = Callable[[Any], bool]


class QueryError(Exception):
    """The text is not a query Drive would accept."""


@dataclass(frozen=True)
class Term:
    """``field operator value``."""

    field: str
    op: str
    value: Any


@dataclass(frozen=True)
class Not:
    inner: Node


@dataclass(frozen=True)
class Both:
    left: Node
    right: Node


@dataclass(frozen=True)
class Either:
    left: Node
    right: Node


Node = Term | Not | Both | Either


def parse(text: str) -> Node:
    """The tree of a query; raises QueryError."""
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if not match:
                raise QueryError(f"unreadable at {text[at : at + 20]!r}")
            kind = match.lastgroup or ""
            self.tokens.append((kind, match.group(kind)))
            at = match.end()
        self.at = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self) -> tuple[str, str]:
        token = self.peek()
        self.at += 1
        return token

    def expect(self, kind: str, text: str | None = None) -> str:
        found, value = self.take()
        if found != kind or (text is not None and value.lower() != text):
            raise QueryError(f"expected {text or kind}, found {value!r}")
        return value

    def whole(self) -> Node:
        node = self.expression()
        if self.peek()[0] != "end":
            raise QueryError(f"unexpected {self.peek()[1]!r}")
        return node

    def expression(self) -> Node:
        node = self.factor()
        while self.peek()[0] == "word" and self.peek()[1].lower() in ("and", "or"):
            joiner = self.take()[1].lower()
            right = self.factor()
            node = Both(node, right) if joiner == "and" else Either(node, right)
        return node

    def factor(self) -> Node:
        kind, text = self.peek()
        if kind == "word" and text.lower() == "not":
            self.take()
            return Not(self.factor())
        if (kind, text) == ("paren", "("):
            self.take()
            node = self.expression()
            self.expect("paren", ")")
            return node
        return self.term()

    def term(self) -> Term:
        kind, text = self.take()
        if kind == "string":  # 'id' in parents
            self.expect("word", "in")
            field = self.expect("word")
            if field not in _COLLECTIONS:
                raise QueryError(f"{field!r} cannot follow 'in'")
            return Term(field, "in", _unquote(text))
        if kind != "word":
            raise QueryError(f"expected a field, found {text!r}")
        if text in _MAPS:
            return self.map_term(text)
        if text in _TEXTS or text in _EQUALS:
            op = self.operator()
            allowed = {"=", "!="} | ({"contains"} if text in _TEXTS else set())
            if op not in ({"contains"} if text == "fullText" else allowed):
                raise QueryError(f"{text} {op}")
            return Term(text, op, _unquote(self.expect("string")))
        if text in _TIMES:
            op = self.operator()
            moment = read_time(_unquote(self.expect("string")))
            if op not in _COMPARE or moment is None:
                raise QueryError(f"{text} needs a comparison with a time")
            return Term(text, op, moment)
        if text in _FLAGS:
            op = self.operator()
            value = self.expect("word").lower()
            if op not in ("=", "!=") or value not in ("true", "false"):
                raise QueryError(f"{text} {op} {value}")
            wanted = (value == "true") == (op == "=")
            if text == "sharedWithMe" and not wanted:
                raise QueryError("sharedWithMe can only be asked for as true")
            return Term(text, "=", wanted)
        raise QueryError(f"unknown field {text!r}")

    def operator(self) -> str:
        kind, text = self.take()
        if kind == "op":
            return text
        if kind == "word" and text.lower() == "contains":
            return "contains"
        raise QueryError(f"expected an operator, found {text!r}")

    def map_term(self, field: str) -> Term:
        self.expect("word", "has")
        self.expect("paren", "{")
        self.expect("word", "key")
        self.expect("op", "=")
        key = _unquote(self.expect("string"))
        self.expect("word", "and")
        self.expect("word", "value")
        self.expect("op", "=")
        value = _unquote(self.expect("string"))
        self.expect("paren", "}")
        return Term(field, "has", (key, value))


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def parents_of(node: Node) -> list[str]:
    """All ids mentioned as ``'id' in parents``, in order."""
    if isinstance(node, Term):
        return [node.value] if node.field == "parents" else []
    if isinstance(node, Not):
        return parents_of(node.inner)
    return [*parents_of(node.left), *parents_of(node.right)]


def narrowed_to(node: Node) -> set[str] | None:
    """Parents outside of which nothing can match, or None if there is no such limit."""
    if isinstance(node, Term):
        return {node.value} if node.field == "parents" else None
    if isinstance(node, Not):
        return None
    left, right = narrowed_to(node.left), narrowed_to(node.right)
    if isinstance(node, Either):
        return None if left is None or right is None else left | right
    if left is None or right is None:
        return right if left is None else left
    return left & right


def compile_query(node: Node, value_of: Callable[[str], Callable[[Any], Any]]) -> Predicate:
    """A predicate over items; ``value_of(field)`` gives the accessor of a field."""
    if isinstance(node, Not):
        inner = compile_query(node.inner, value_of)
        return lambda item: not inner(item)
    if isinstance(node, Both | Either):
        left, right = compile_query(node.left, value_of), compile_query(node.right, value_of)
        if isinstance(node, Both):
            return lambda item: left(item) and right(item)
        return lambda item: left(item) or right(item)
    return _compile_term(node, value_of(node.field))


def _compile_term(term: Term, get: Callable[[Any], Any]) -> Predicate:
    wanted = term.value
    if term.op == "in":
        return lambda item: wanted in get(item)
    if term.op == "has":
        key, value = wanted
        return lambda item: get(item).get(key) == value
    if term.op == "contains":
        if term.field == "mimeType":
            return lambda item: str(get(item)).startswith(wanted)
        folded = str(wanted).casefold()
        return lambda item: _has_prefix(str(get(item)), folded)
    if term.field == "name":
        folded = str(wanted).casefold()
        same = term.op == "="
        return lambda item: (str(get(item)).casefold() == folded) == same
    compare = _COMPARE[term.op]
    if isinstance(wanted, datetime):

        def in_time(item: Any) -> bool:
            value = get(item)
            return value is not None and compare(value, wanted)

        return in_time
    return lambda item: compare(get(item), wanted)


def _has_prefix(name: str, folded: str) -> bool:
    """``contains`` on names matches beginnings of words only."""
    name = name.casefold()
    return name.startswith(folded) or any(
        name.startswith(folded, match.start()) for match in re.finditer(r"(?<=[^\w])\w", name)
    )
