"""A YAML text as plain values that remember their lines; knows nothing about endpoints.

Only plain YAML is read (text, numbers, booleans, dates, lists, mappings, anchors, ``<<``). What
YAML would silently turn into something else (duplicate keys, ``0123`` as octal) is a complaint.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from file_connector.models import Json

MAX_BYTES = 5_000_000
MAX_DEPTH = 30
MAX_VALUES = 20_000
"""Per entry, aliases counted as often as they are used."""

Path = tuple[str | int, ...]

_PREFIX = "tag:yaml.org,2002:"
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_FAST_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(ValueError):
    """The text as a whole cannot be read. ``line`` counts from 1; None: no particular line."""

    def __init__(self, message: str, remedy: str, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.line = line


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands. ``text`` is a scalar as written, for messages about its type."""

    key_line: int
    line: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something plain YAML cannot mean, at one place."""

    path: Path
    line: int
    message: str
    remedy: str


@dataclass
class Value:
    """A piece of the document: the plain value, the place of everything in it, what is wrong."""

    data: Json
    line: int
    places: dict[Path, Place] = field(default_factory=dict)
    complaints: list[Complaint] = field(default_factory=list)


def load(path: FilePath) -> str:
    """The text of a file, or of anything that can be read to an end; raises OSError as well."""
    with path.open("rb") as file:
        return decode(file.read(MAX_BYTES + 1))


def decode(content: bytes) -> str:
    """The text of a file; DocumentError unless it is printable UTF-8 of reasonable size."""
    if len(content) > MAX_BYTES:
        raise DocumentError(
            f"the file has more than {MAX_BYTES:,} bytes, which is the most that is read.",
            "Check that this is the right file.",
        )
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:4]:
        raise DocumentError("the file is UTF-16 or UTF-32, not UTF-8.", "Save it as UTF-8.", 1)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DocumentError(
            f"byte 0x{content[error.start]:02x} is not UTF-8.", "Save the file as UTF-8.", line
        ) from None
    odd = _UNPRINTABLE.search(text)
    if odd:
        line = text.count("\n", 0, odd.start()) + 1
        raise DocumentError(
            f"the character U+{ord(odd[0]):04X} may not stand in YAML.", "Remove it.", line
        )
    return text


def compose(text: str) -> Node | None:
    """The node tree of a text with one YAML document; None if there is nothing in it."""
    odd = _ODD_INDENT.search(text)
    if odd is not None:  # YAML would take it for a letter
        raise DocumentError(
            f"the indentation holds a blank that is no space (U+{ord(odd[1]):04X}).",
            "Indent with plain spaces.",
            text.count("\n", 0, odd.start()) + 1,
        )
    try:
        _check_depth(text)
        return yaml.compose(text, Loader=_FAST_LOADER)
    except yaml.YAMLError as error:
        raise _as_document_error(_clearer(error, text), text) from None


def _clearer(error: yaml.YAMLError, text: str) -> yaml.YAMLError:
    """The Python parser, unlike the C one, names the character it stumbled over."""
    try:
        yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as clearer:
        return clearer
    return error


def _check_depth(text: str) -> None:
    """Composing recurses (in C, without a net), so absurd nesting is refused beforehand."""
    depth = 0
    for event in yaml.parse(text, Loader=_FAST_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise DocumentError(
                    f"more than {MAX_DEPTH} levels of nesting.",
                    "Check brackets and indentation.",
                    event.start_mark.line + 1 if event.start_mark else None,
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _as_document_error(error: yaml.YAMLError, text: str) -> DocumentError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or "this is not YAML")
    # What is quoted could be a piece of a secret, unless it is a name of the parser's.
    problem = re.sub(r"'[^']{4,}'", lambda m: m[0] if m[0][1] == "<" else "something", problem)
    context = str(getattr(error, "context", None) or "")
    line = mark.line + 1 if mark else None
    lines = text.splitlines()
    # An unclosed quote or bracket is reported at the end of the file; it begins at the context.
    opening = getattr(error, "context_mark", None)
    if opening and ("quoted scalar" in context or "flow" in context):
        line = opening.line + 1
    conflict = next((i for i, row in enumerate(lines, 1) if _CONFLICT.match(row)), None)
    if conflict is not None:
        return DocumentError(
            "an unresolved merge conflict begins.", "Resolve it and remove the marks.", conflict
        )
    here = lines[line - 1] if line and line <= len(lines) else ""
    if "\\t" in problem or here[: len(here) - len(here.lstrip())].count("\t"):
        return DocumentError(
            "the indentation holds a tab, which YAML forbids.", "Indent with spaces.", line
        )
    if "quoted scalar" in context and "escape" in problem:
        return DocumentError(
            "a text in double quotes holds a backslash that means nothing.",
            "Use single quotes, in which a backslash is just that, or write it twice.",
            mark.line + 1 if mark else line,
        )
    if "quoted scalar" in context:
        return DocumentError("a quoted text never ends.", "Close the quotation mark.", line)
    if "<block end>" in problem and problem.endswith("'-'"):
        return DocumentError(
            "an item of a list ('- ') stands among keys.",
            "Begin every endpoint, and nothing else, with `- `.",
            line,
        )
    if "<block end>" in problem or "<document start>" in problem:
        return DocumentError(
            "the indentation of this line fits no line above.",
            "Give all keys of an entry the same indentation, and put a text that goes on here into"
            " quotes.",
            line,
        )
    if "flow" in context:
        return DocumentError(
            f"a {{...}} or [...] is not well formed ({problem}).",
            "Close the bracket and separate by commas.",
            line,
        )
    if "alias" in problem:
        return DocumentError(
            "an alias (*name) is used that no anchor (&name) above defines.",
            "Define it, or put the text into quotes.",
            line,
        )
    if "another document" in problem:
        return DocumentError("a second document begins ('---').", "Keep everything in one.", line)
    if "mapping values are not allowed" in problem:
        return DocumentError(
            "a ': ' stands where none may stand.",
            "Put the text into quotes, or check the indentation of this line and the one above.",
            line,
        )
    if "cannot start any token" in problem:
        return DocumentError(f"{problem}.", "Put the text into quotes.", line)
    if "find expected ':'" in problem:
        line = opening.line + 1 if opening else line
        return DocumentError(
            "this line is no `key: value`.",
            "Add the colon and a space, or put a text of several lines into quotes.",
            line,
        )
    sentence = f"this is not valid YAML: {', '.join(p for p in (context, problem) if p)}."
    return DocumentError(sentence, "Check the indentation of this line and the one above.", line)


_ODD_INDENT = re.compile("^ *([\xa0\u2000-\u200a\u202f\u3000])", re.MULTILINE)
_CONFLICT = re.compile(r"(<{7}|={7}|>{7})( |$)")
_LIST = re.compile(r"endpoints:\s*(#.*)?")
_ITEM = re.compile(r"( *)-(?:\s.*)?")


def take_apart(text: str) -> tuple[Node | None, list[tuple[int, str]]] | None:
    """For a text that is no YAML as a whole: everything but the ``endpoints:`` list, composed, and
    the items of that list as (line, text), so that one broken item need not take the others along.

    None if the text is not laid out plainly enough to be sure where items begin. Raises
    DocumentError if what stands outside the list is broken.
    """
    lines = text.split("\n")
    lists = [i for i, line in enumerate(lines) if _LIST.fullmatch(line.rstrip())]
    if len(lists) != 1:
        return None
    begin = lists[0] + 1
    inside = ("", " ", "\t", "\r", "#", "-")
    end = next((i for i in range(begin, len(lines)) if lines[i][:1] not in inside), len(lines))
    items = [(i, m[1]) for i in range(begin, end) if (m := _ITEM.fullmatch(lines[i].rstrip()))]
    if not items:
        return None
    starts = [i for i, indent in items if indent == items[0][1]]
    if any(line.strip() and not line.lstrip().startswith("#") for line in lines[begin : starts[0]]):
        return None
    rest = [*lines[: begin - 1], *[""] * (end - begin + 1), *lines[end:]]
    pieces = [
        # Blank lines before it keep the line numbers right.
        (start + 1, "\n" * start + "\n".join(lines[start:stop]))
        for start, stop in itertools.pairwise([*starts, end])
    ]
    return compose("\n".join(rest)), pieces


def line_of(node: Node) -> int:
    return int(node.start_mark.line) + 1


def kind_of(node: Node) -> str:
    """``map``, ``seq``, ``str``, ``int``, ``null``, ...; other tags in full."""
    tag = str(node.tag)
    return tag.removeprefix(_PREFIX)


def read(node: Node, start: Path = ()) -> Value:
    """The plain value of a node, with places and complaints; never raises."""
    value = Value(None, line_of(node))
    value.data = _Reader(value).read(node, start, line_of(node))
    return value


def plain(data: Json) -> Value:
    """A value that stands in no file: all its places have line 0."""
    value = Value(data, 0)

    def visit(part: Json, path: Path) -> None:
        value.places[path] = Place(0, 0)
        inner = part.items() if isinstance(part, dict) else ()
        for key, each in enumerate(part) if isinstance(part, list) else inner:
            visit(each, (*path, key))

    visit(data, ())
    return value


class _TooMuchError(Exception):
    """The budget of values is spent."""


class _Reader:
    def __init__(self, value: Value) -> None:
        self._value = value
        self._left = MAX_VALUES
        self._open: list[int] = []
        self._scalars = yaml.SafeLoader("")

    def read(self, node: Node, path: Path, key_line: int) -> Json:
        try:
            return self._any(node, path, key_line)
        except _TooMuchError:
            self._complain(
                path,
                key_line,
                f"aliases unfold to more than {MAX_VALUES:,} values.",
                "Write less, or without aliases.",
            )
            return None

    def _complain(self, path: Path, line: int, message: str, remedy: str) -> None:
        self._value.complaints.append(Complaint(path, line, message, remedy))

    def _any(self, node: Node, path: Path, key_line: int) -> Json:
        self._left -= 1
        if self._left < 0:
            raise _TooMuchError
        line = line_of(node)
        text = node.value if isinstance(node, ScalarNode) else None
        self._value.places[path] = Place(key_line, line, text)
        if id(node) in self._open or len(path) > MAX_DEPTH:
            self._complain(path, line, "an alias contains itself.", "Remove it.")
            return None
        self._open.append(id(node))
        try:
            if isinstance(node, MappingNode) and kind_of(node) == "map":
                return self._mapping(node, path)
            if isinstance(node, SequenceNode) and kind_of(node) == "seq":
                return [self._any(n, (*path, i), line_of(n)) for i, n in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.pop()

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Json]:
        out: dict[str, Json] = {}
        lines: dict[str, int] = {}
        inherited: list[Node] = []
        for key_node, value_node in node.value:
            line = line_of(key_node)
            if kind_of(key_node) == "merge":
                many = isinstance(value_node, SequenceNode)
                inherited.extend(value_node.value if many else [value_node])
                continue
            if not isinstance(key_node, ScalarNode):
                self._complain(
                    path,
                    line,
                    "a key must be a plain word.",
                    "Write `key: value`, or put a text that begins with a bracket into quotes.",
                )
                continue
            key = str(key_node.value)
            if key in lines:
                self._complain(
                    (*path, key),
                    line,
                    f"`{key}` is given twice, first in line {lines[key]}.",
                    "Keep one.",
                )
                continue
            lines[key] = line
            out[key] = self._any(value_node, (*path, key), line)
        for source in inherited:
            if not isinstance(source, MappingNode):
                self._complain(path, line_of(source), "`<<` needs a mapping.", "Check the alias.")
                continue
            out.update(self._merged(source, path, frozenset(out)))
        return out

    def _merged(self, source: MappingNode, path: Path, taken: frozenset[str]) -> dict[str, Json]:
        if id(source) in self._open:
            self._complain(path, line_of(source), "an alias contains itself.", "Remove it.")
            return {}
        self._open.append(id(source))
        rest = [
            (k, v) for k, v in source.value if not (isinstance(k, ScalarNode) and k.value in taken)
        ]
        self._left -= len(rest)
        try:
            return self._mapping(MappingNode(source.tag, rest, source.start_mark), path)
        finally:
            self._open.pop()

    def _scalar(self, node: Node, path: Path) -> Json:
        kind = kind_of(node)
        line = line_of(node)
        if not isinstance(node, ScalarNode) or kind not in _KINDS:
            # The tag is not repeated: it may be a password that begins with an exclamation mark.
            self._complain(
                path,
                line,
                f"{_name(path)} begins with a `!`, which makes it a YAML tag; tags are not read.",
                "Remove the tag, or put the text into quotes.",
            )
            return None
        text = str(node.value)
        try:
            value = self._scalars.construct_object(ScalarNode(node.tag, text, node.start_mark))
            plain = str(value)
        except _UNREADABLE:
            self._complain(
                path,
                line,
                f"{_name(path)} is {_shorten(text)}, which is no {_KINDS[kind]}.",
                _quote_or(text, "mend it"),
            )
            return text
        if kind == "int" and plain != text:
            meant = f"write {value}" if abs(value) < 10**18 else "write less"
            self._complain(
                path,
                line,
                f"{_name(path)} is {_shorten(text)}, which YAML reads as the number "
                f"{_shorten(plain)}.",
                _quote_or(text, meant),
            )
            return text
        return value


def _name(path: Path) -> str:
    return f"`{'.'.join(map(str, path))}`" if path else "the value"


_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, yaml.YAMLError)
"""What PyYAML raises for a scalar that does not fit its tag, ``!!int x`` for example."""


def _quote_or(text: str, otherwise: str) -> str:
    return f"If text is meant, put it in quotes: '{_shorten(text)}'; if not, {otherwise}."


_KINDS = {
    "str": "text",
    "value": "text",
    "int": "number",
    "float": "number",
    "bool": "boolean",
    "null": "null",
    "timestamp": "date",
}


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"


def place_of(places: Mapping[Path, Place], path: Path) -> tuple[Path, Place]:
    """The place of ``path``, or of the nearest thing around it that stands in the file."""
    while path and path not in places:
        path = path[:-1]
    return path, places[path]
