"""endpoints.yaml, or rows of connectors.instances -> Catalog: every entry that can run, and every
problem at once with its place.

An entry with a problem is quarantined and the others load. Nothing here raises for what stands in
the file, and no message repeats a value that could be a secret.

``defaults:`` fills what an entry leaves out, key by key; ``endpoint_details`` and ``schedule`` are
filled one level deeper (an entry that names another schedule type takes nothing of the default
schedule). An explicit ``null`` in an entry means "as if neither had given it".
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from file_connector.connectors.base import ConnectorSpec
from file_connector.connectors.registry import Registry
from file_connector.endpoints import document, wording
from file_connector.endpoints.catalog import DEFAULTS, INSTANCES, Catalog, Problem, Quarantined
from file_connector.endpoints.credentials import VAULT, resolve_credentials
from file_connector.endpoints.cron import parse_cron
from file_connector.endpoints.document import DocumentError, Value
from file_connector.endpoints.schema import CronSchedule, Endpoint, Entry, ManualSchedule, slug
from file_connector.errors import ConfigurationError, one_line, redact
from file_connector.models import Json
from file_connector.times import utc_now

EARLIEST_START = date(2000, 1, 1)
_TOP_KEYS = ("endpoints", DEFAULTS)
_IDENTITY_KEYS = ("id", "name")
_MERGED_KEYS = ("endpoint_details", "schedule")


def load_endpoints(
    path: Path,
    registry: Registry,
    environ: Mapping[str, str] | None = None,
    *,
    today: date | None = None,
) -> Catalog:
    """Read an endpoints file; never raises for what it holds or that it is missing.

    Args:
        environ: when given, credential variables that are unset or unusable are reported too
            (such entries still load; their runs fail with the same remedy).
        today: UTC day that counts as today for ``start_date``.
    """
    return _Loader(path, registry, environ, today or utc_now().date()).load_file(path)


def load_instances(
    rows: Sequence[Mapping[str, Json]],
    registry: Registry,
    environ: Mapping[str, str] | None = None,
    *,
    today: date | None = None,
) -> Catalog:
    """The same for rows of ``connectors.instances`` (column -> JSON value). Columns that are no key
    of an entry are ignored."""
    return _Loader(None, registry, environ, today or utc_now().date()).load_rows(rows)


@dataclass
class _Draft:
    """One entry on its way: values, where they stand, what is wrong so far."""

    value: Value
    label: str | None
    problems: list[Problem] = field(default_factory=list)
    from_defaults: set[document.Path] = field(default_factory=set)


class _Loader:
    def __init__(
        self, path: Path | None, registry: Registry, environ: Mapping[str, str] | None, today: date
    ) -> None:
        self._path = path
        self._file = _display(path) if path else INSTANCES
        self._registry = registry
        self._environ = environ
        self._today = today
        self._problems: list[Problem] = []
        self._endpoints: list[Endpoint] = []
        self._quarantined: list[Quarantined] = []
        self._claimed: dict[str, tuple[int, str]] = {}
        self._default_problems: set[tuple[str, str]] = set()
        self._credentials: dict[tuple[str, str | None], str | ConfigurationError | None] = {}

    def load_file(self, path: Path) -> Catalog:
        self._report_registry()
        readable = self._read_file(path)
        return self._catalog(readable)

    def load_rows(self, rows: Sequence[Mapping[str, Json]]) -> Catalog:
        self._report_registry()
        for row in rows:
            entry = {k: v for k, v in row.items() if k in Entry.model_fields and v is not None}
            self._read_draft(_Draft(document.plain(entry), _label(entry)))
        return self._catalog(readable=True)

    def _report_registry(self) -> None:
        for sentence in self._registry.problems():
            self._report(None, None, sentence, "", quarantines=False)

    def _catalog(self, readable: bool) -> Catalog:
        self._problems.sort(key=lambda p: p.line or 0)
        return Catalog(
            self._path,
            tuple(self._endpoints),
            tuple(self._problems),
            tuple(self._quarantined),
            readable,
        )

    # -- the file as a whole ---------------------------------------------------------------------

    def _read_file(self, path: Path) -> bool:
        try:
            text = document.load(path)
        except FileNotFoundError:
            self._report(
                None,
                None,
                "the file does not exist.",
                "Create it, or set FILE_CONNECTOR_ENDPOINTS to the file you mean.",
            )
            return False
        except OSError as error:
            self._report(
                None,
                None,
                f"the file cannot be read: {error.strerror}.",
                "Check its path and its permissions.",
            )
            return False
        except DocumentError as error:
            return self._unreadable(error)
        try:
            root = document.compose(text)
        except DocumentError as error:
            return self._read_apart(text, error)
        if root is None or document.kind_of(root) == "null":
            self._report(1, None, "the file is empty.", "Write `endpoints:` and a list below it.")
            return False
        if not isinstance(root, MappingNode):
            self._report(
                document.line_of(root),
                None,
                f"the file holds {_kind(root)}, not a mapping.",
                "Begin with `endpoints:` and indent the list below it.",
            )
            return False
        return self._read_root(root)

    def _unreadable(self, error: DocumentError) -> bool:
        self._report(error.line, None, error.message, error.remedy)
        return False

    def _read_apart(self, text: str, error: DocumentError) -> bool:
        """The file is no YAML as a whole; perhaps only one entry is to blame."""
        try:
            apart = document.take_apart(text)
        except DocumentError as outside:
            return self._unreadable(outside)
        if apart is None:
            return self._unreadable(error)
        root, pieces = apart
        entries: list[Node | tuple[int, str, DocumentError]] = []
        for line, piece in pieces:
            try:
                node = document.compose(piece)
            except DocumentError as broken:
                entries.append((line, piece, broken))
                continue
            if not isinstance(node, SequenceNode) or len(node.value) != 1:
                return self._unreadable(error)
            entries.append(node.value[0])
        plain = root is None or isinstance(root, MappingNode)
        if not plain or not any(isinstance(e, tuple) for e in entries):
            return self._unreadable(error)
        lists, defaults = self._read_top(root.value if isinstance(root, MappingNode) else [])
        if lists:
            return self._unreadable(error)
        shared = self._read_defaults(defaults)
        for entry in entries:
            if isinstance(entry, tuple):
                self._read_broken(*entry)
            else:
                self._read_entry(entry, shared)
        return True

    def _read_broken(self, line: int, piece: str, error: DocumentError) -> None:
        """An entry that is no YAML; its name and id are read by eye, for display and to keep it."""
        data = {}
        for key in ("name", "id"):
            told = re.search(rf"^[ -]*{key}: *['\"]?(.*?)['\"]?\s*$", piece, re.MULTILINE)
            if told and told[1]:
                data[key] = told[1]
        problem = self._report(error.line or line, _label(data), error.message, error.remedy)
        endpoint_id = data.get("id") or slug(data.get("name", ""))
        if endpoint_id in self._claimed or slug(endpoint_id) != endpoint_id:
            endpoint_id = ""
        if endpoint_id:
            self._claimed[endpoint_id] = (line, endpoint_id)
        name = one_line(redact(data.get("name", ""))[:200])
        self._quarantined.append(
            Quarantined(endpoint_id or None, name, "", "", "", line, (problem,))
        )

    def _read_top(self, pairs: Sequence[tuple[Node, Node]]) -> tuple[list[Node], Node | None]:
        """The lists under ``endpoints`` (one, if all is well) and the node under ``defaults``."""
        lists: list[Node] = []
        defaults: Node | None = None
        first_line: dict[str, int] = {}
        for key_node, node in pairs:
            key = str(key_node.value) if isinstance(key_node, ScalarNode) else "?"
            line = document.line_of(key_node)
            if key in first_line:
                self._report(
                    line,
                    None,
                    f"`{key}` is given twice, first in line {first_line[key]}.",
                    "Join the two.",
                    field_name=key,
                )
            first_line.setdefault(key, line)
            if key == "endpoints":
                lists.append(node)
            elif key == DEFAULTS:
                defaults = defaults or node
            else:
                self._unknown_key(line, None, "", key, _TOP_KEYS)
        return lists, defaults

    def _read_root(self, root: MappingNode) -> bool:
        lists, defaults = self._read_top(root.value)
        if not lists:
            self._report(
                document.line_of(root),
                None,
                "`endpoints` is missing.",
                "Write `endpoints:` and a list below it (`endpoints: []` for none).",
                field_name="endpoints",
            )
            return False
        shared = self._read_defaults(defaults)
        for node in lists:
            if isinstance(node, SequenceNode):
                for entry in node.value:
                    self._read_entry(entry, shared)
            elif document.kind_of(node) != "null":
                self._report(
                    document.line_of(node),
                    None,
                    f"`endpoints` is {_kind(node)}, not a list.",
                    "Begin every endpoint with `- `.",
                    field_name="endpoints",
                )
        return True

    def _read_defaults(self, node: Node | None) -> Value:
        """The usable part of ``defaults:``; what is unknown there is reported and ignored."""
        if node is None or document.kind_of(node) == "null":
            return Value({}, 1)
        value = document.read(node)
        for complaint in value.complaints:
            self._report(complaint.line, DEFAULTS, complaint.message, complaint.remedy)
        if not isinstance(value.data, dict):
            if not value.complaints:
                self._report(
                    value.line,
                    DEFAULTS,
                    f"`defaults` is {_kind(node)}, not a mapping.",
                    "Write `key: value` pairs.",
                )
            return Value({}, value.line)
        allowed = [k for k in Entry.model_fields if k not in _IDENTITY_KEYS]
        for key in list(value.data):
            line = value.places[(key,)].key_line if (key,) in value.places else value.line
            if key in _IDENTITY_KEYS:
                self._report(
                    line,
                    DEFAULTS,
                    f"`{key}` cannot be shared by all endpoints.",
                    "Move it into the entry.",
                    field_name=key,
                )
                del value.data[key]
            elif key not in allowed:
                self._unknown_key(line, DEFAULTS, "", key, allowed)
                del value.data[key]
        return value

    # -- one entry -------------------------------------------------------------------------------

    def _read_entry(self, node: Node, shared: Value) -> None:
        value = document.read(node)
        if not isinstance(value.data, dict):
            found = [(c.line, c.message, c.remedy) for c in value.complaints] or [
                (
                    value.line,
                    f"an endpoint is {_kind(node)}, not a mapping.",
                    "Write `- name: ...` and indent the other keys below `name`.",
                )
            ]
            problems = tuple(self._report(line, None, m, remedy) for line, m, remedy in found)
            self._quarantined.append(Quarantined(None, "", "", "", "", value.line, problems))
            return
        draft = _Draft(value, _label(value.data))
        for complaint in value.complaints:
            message, remedy = complaint.message, complaint.remedy
            if any(wording.SECRET_KEY.search(str(part)) for part in complaint.path):
                message, remedy = f"`{wording.dotted(complaint.path)}` is not plain text.", ""
            self._draft_problem(draft, complaint.path, message, remedy, line=complaint.line)
        _merge(draft, shared)
        self._read_draft(draft)

    def _read_draft(self, draft: _Draft) -> None:
        data = draft.value.data
        entry = self._validate(draft, Entry, data, ())
        endpoint_id = self._claim_id(draft, data)
        spec = self._spec(draft, data)
        details = self._details(draft, spec, data)
        if entry is not None and spec is not None:
            self._check_schedule(draft, entry, spec)
        if entry is not None:
            self._check_start(draft, entry)
        if draft.problems or entry is None or details is None or endpoint_id is None:
            self._quarantine(draft, endpoint_id)
            return
        endpoint = Endpoint(
            id=endpoint_id,
            name=entry.name,
            endpoint_type=entry.endpoint_type,
            project_id=entry.project_id,
            user_id=entry.user_id,
            endpoint_details=entry.endpoint_details,
            details=details,
            credentials=entry.credentials,
            schedule=entry.schedule,
            start_date=entry.start_date,
            enabled=entry.enabled,
            line=draft.value.line or None,
        )
        self._endpoints.append(endpoint)
        if spec is not None and endpoint.enabled:
            self._check_credentials(draft, endpoint, spec)

    def _quarantine(self, draft: _Draft, endpoint_id: str | None) -> None:
        def text(key: str) -> str:
            seen = draft.value.data.get(key)
            return one_line(redact(seen)[:200]) if isinstance(seen, str | int) else ""

        self._quarantined.append(
            Quarantined(
                endpoint_id,
                text("name"),
                text("endpoint_type"),
                text("project_id"),
                text("user_id"),
                draft.value.line or None,
                tuple(sorted(draft.problems, key=lambda p: p.line or 0)),
            )
        )

    def _validate(
        self, draft: _Draft, model: type[BaseModel], data: Json, prefix: document.Path
    ) -> Any:
        """The validated model, or None after reporting every error of it."""
        try:
            return model.model_validate(data)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_context=True):
                self._translate(draft, detail, prefix, model)
            return None

    def _claim_id(self, draft: _Draft, data: Mapping[str, Json]) -> str | None:
        """The entry's id if it has a valid one that no earlier entry holds.

        Bad entries hold their ids too: otherwise mending or breaking one entry would hand its rows
        and its cursor to another.
        """
        given, name = data.get("id"), data.get("name")
        if given is None:
            endpoint_id = slug(name) if isinstance(name, str) else ""
            if isinstance(name, str) and name.strip() and not endpoint_id:
                self._draft_problem(
                    draft,
                    ("name",),
                    "no id can be made of this name (it has no letters a-z and no digits).",
                    "Add an `id`, for example `id: tower_42`.",
                    "id",
                )
        else:
            endpoint_id = given if isinstance(given, str) and slug(given) == given else ""
        if not endpoint_id:
            return None
        if endpoint_id in self._claimed:
            line, label = self._claimed[endpoint_id]
            origin = "" if given is not None else f" (made of the name '{name}')"
            self._draft_problem(
                draft,
                ("id",) if given is not None else ("name",),
                f"the id '{endpoint_id}'{origin} is already taken by '{label}' in line {line}, "
                "which keeps it.",
                "Give this entry another `id`; an id never changes once rows are stored under it.",
                "id",
                seen=endpoint_id,
            )
            return None
        label = name if isinstance(name, str) else endpoint_id
        self._claimed[endpoint_id] = (draft.value.line, wording.cut(redact(label)))
        return endpoint_id

    def _spec(self, draft: _Draft, data: Mapping[str, Json]) -> ConnectorSpec | None:
        kind = data.get("endpoint_type")
        if not isinstance(kind, str):
            return None
        try:
            return self._registry.get(kind)
        except ConfigurationError as error:
            self._draft_problem(
                draft,
                ("endpoint_type",),
                error.message,
                error.remedy,
                seen=redact(kind)[:60],
                allowed=", ".join(self._registry.names()),
            )
            return None

    def _details(
        self, draft: _Draft, spec: ConnectorSpec | None, data: Mapping[str, Json]
    ) -> BaseModel | None:
        details = data.get("endpoint_details", {})
        if spec is None or not isinstance(details, dict):
            return None
        model: BaseModel | None = self._validate(
            draft, spec.details, details, ("endpoint_details",)
        )
        return model

    def _check_schedule(self, draft: _Draft, entry: Entry, spec: ConnectorSpec) -> None:
        schedule, least = entry.schedule, spec.minimum_interval_minutes
        if isinstance(schedule, ManualSchedule):
            return
        if isinstance(schedule, CronSchedule):
            key = "cron"
            gap = parse_cron(schedule.cron).densest_gap_minutes()
            seen = schedule.cron
        else:
            key = "interval_minutes"
            gap = schedule.interval_minutes
            seen = str(gap)
        if gap < least:
            self._draft_problem(
                draft,
                ("schedule", key),
                f"`schedule.{key}` asks for a run every {gap} minute{'s' * (gap != 1)}, but "
                f"{spec.type} allows one every {least} minutes at most.",
                f"Use at least {least} minutes.",
                f"schedule.{key}",
                seen=seen,
                allowed=f"at least {least} minutes",
            )

    def _check_start(self, draft: _Draft, entry: Entry) -> None:
        start = entry.start_date
        if start is not None and not EARLIEST_START <= start <= self._today:
            self._draft_problem(
                draft,
                ("start_date",),
                f"`start_date` {start} is not between {EARLIEST_START} and today.",
                "It is the first day shown as a partition; older files are synced anyway.",
                seen=str(start),
                allowed=f"{EARLIEST_START} to today (UTC)",
            )

    def _check_credentials(self, draft: _Draft, endpoint: Endpoint, spec: ConnectorSpec) -> None:
        if self._environ is None or (endpoint.credentials or "").startswith(VAULT):
            return  # a secret is looked for when a connector is opened
        key = (endpoint.endpoint_type, endpoint.credentials)
        if key not in self._credentials:
            self._credentials[key] = None
            try:
                resolve_credentials(spec, endpoint.credentials, self._environ)
            except ConfigurationError as error:
                self._credentials[key] = error
        problem = self._credentials[key]
        if isinstance(problem, ConfigurationError):
            _, place = document.place_of(draft.value.places, ("credentials",))
            self._report(
                place.line or None,
                endpoint.id,
                problem.message,
                problem.remedy,
                field_name="credentials",
                quarantines=False,
            )

    # -- reporting -------------------------------------------------------------------------------

    def _report(
        self,
        line: int | None,
        entry: str | None,
        message: str,
        remedy: str,
        *,
        field_name: str = "",
        seen: str = "",
        allowed: str = "",
        quarantines: bool = True,
    ) -> Problem:
        problem = Problem(
            self._file, line, entry, field_name, seen, allowed, message, remedy, quarantines
        )
        self._problems.append(problem)
        return problem

    def _draft_problem(
        self,
        draft: _Draft,
        path: document.Path,
        message: str,
        remedy: str,
        field_name: str | None = None,
        *,
        seen: str = "",
        allowed: str = "",
        line: int | None = None,
        own: bool = False,
    ) -> None:
        """A problem of one entry; one that stands in ``defaults:`` is listed once for the file.
        ``own``: it is about what the entry itself should hold."""
        places = draft.value.places
        if own:
            places = {p: at for p, at in places.items() if p not in draft.from_defaults}
        found, place = document.place_of(places, path)
        in_defaults = found in draft.from_defaults
        problem = Problem(
            self._file,
            line or place.line or None,
            DEFAULTS if in_defaults else draft.label,
            wording.dotted(path) if field_name is None else field_name,
            seen,
            allowed,
            message,
            remedy,
        )
        draft.problems.append(problem)
        if in_defaults:
            key = (problem.field, problem.message)
            if key in self._default_problems:
                return
            self._default_problems.add(key)
        self._problems.append(problem)

    def _unknown_key(
        self, line: int, entry: str | None, parent: str, key: str, allowed: Sequence[str]
    ) -> None:
        message, remedy = wording.unknown_key(parent, key, allowed)
        name = f"{parent}.{key}" if parent else key
        self._report(line, entry, message, remedy, field_name=name, allowed=", ".join(allowed))

    def _translate(
        self, draft: _Draft, detail: ErrorDetails, prefix: document.Path, model: type[BaseModel]
    ) -> None:
        """One pydantic error in our words, at its line."""
        places = draft.value.places
        path = wording.path_in_file(
            detail["loc"], prefix, places, absent=detail["type"] == "missing"
        )
        if detail["type"] == "union_tag_invalid":
            path = (*path, "type")
        name = wording.dotted(path)
        told = [p.field for p in draft.problems if p.field]
        if any(f"{name}.".startswith(f"{t}.") or t.startswith(f"{name}.") for t in told):
            return  # one complaint about a value is enough
        place = document.place_of(places, path)[1]
        kind = detail["type"]
        context = detail.get("ctx", {})
        if kind == "missing":
            remedy, types = f"Add `{path[-1]}: ...`.", ""
            if path == ("endpoint_type",):
                types = ", ".join(self._registry.names())
                remedy = f"{remedy} Known types: {types}."
            self._draft_problem(
                draft, path, f"`{name}` is missing.", remedy, own=True, allowed=types
            )
        elif kind == "extra_forbidden":
            parent = wording.dotted(path[:-1])
            allowed = wording.allowed_keys(model, path[len(prefix) : -1], draft.value.data)
            message, remedy = wording.unknown_key(parent, str(path[-1]), allowed)
            self._draft_problem(
                draft, path, message, remedy, allowed=", ".join(allowed), line=place.key_line
            )
        else:
            value_seen = detail["input"]
            if kind == "union_tag_invalid":
                value_seen = value_seen.get("type")
            seen = "" if kind == "union_tag_not_found" else wording.show(path, value_seen, place)
            what, remedy, allowed_text = wording.explain(kind, context, detail, place, path)
            if path == ("endpoint_type",):
                allowed_text = ", ".join(self._registry.names())
                remedy = f"Known types: {allowed_text}."
            self._draft_problem(
                draft,
                path,
                wording.sentence(name, seen, what),
                remedy,
                seen=seen,
                allowed=allowed_text,
            )


def _kind(node: Node) -> str:
    return {"map": "a mapping", "seq": "a list", "null": "empty", "str": "text"}.get(
        document.kind_of(node), f"a single value ({document.kind_of(node)})"
    )


def _label(data: Mapping[str, Json]) -> str | None:
    """What messages call an entry: its id, or what its id would be, or its name."""
    given, name = data.get("id"), data.get("name")
    if isinstance(given, str) and given.strip():
        return wording.cut(redact(given))
    if isinstance(name, str) and name.strip():
        return slug(name) or wording.cut(redact(name))
    return None


def _display(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _merge(draft: _Draft, shared: Value) -> None:
    """Fill what the entry leaves out from ``defaults:``, places included."""
    data = draft.value.data

    def take(path: document.Path) -> None:
        for at, place in shared.places.items():
            if at[: len(path)] == path:
                draft.value.places[at] = place
                draft.from_defaults.add(at)

    for key, default in shared.data.items():
        if key not in data:
            data[key] = default
            take((key,))
        elif key in _MERGED_KEYS and isinstance(data[key], dict) and isinstance(default, dict):
            own = data[key]
            if key == "schedule" and own.get("type", default.get("type")) != default.get("type"):
                continue
            data[key] = dict(own)
            for inner, value in default.items():
                if inner not in own:
                    data[key][inner] = value
                    take((key, inner))
    for key in [k for k, v in data.items() if v is None and k in Entry.model_fields]:
        if not Entry.model_fields[key].is_required():
            del data[key]
