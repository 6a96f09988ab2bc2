"""The deployment's side of the control plane: which source types there are, told to the
application; which endpoints, told by it.

Loading definitions must come to an end, and must not lose all schedules because the database is
away for a minute. So the table is read within ``READ_SECONDS``, and what was read last is kept in
the home for when it cannot be.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from file_connector.connectors.registry import Registry
from file_connector.deadline import within
from file_connector.destination.control import ControlPlane, control_plane
from file_connector.destination.open import open_store
from file_connector.endpoints.catalog import INSTANCES, Catalog, Problem
from file_connector.endpoints.loader import load_instances
from file_connector.errors import (
    ConfigurationError,
    FileConnectorError,
    TransientError,
    redact,
)
from file_connector.models import Json
from file_connector.settings import (
    CONTROL_PLANE,
    DATABASE_VARIABLE,
    REST_KEY_VARIABLE,
    REST_VARIABLE,
    SOURCE_VARIABLE,
    YAML,
    Settings,
)
from file_connector.times import iso, utc_now

READ_SECONDS = 10.0
COPY_NAME = "instances.json"

Rows = Sequence[Mapping[str, Json]]

log = logging.getLogger(__name__)


def define(control: ControlPlane, registry: Registry) -> int:
    """Make ``connectors.definitions`` what ``registry`` knows; how many rows changed."""
    return control.define(list(definitions(registry)))


def definitions(registry: Registry) -> Iterator[Mapping[str, Json]]:
    """A row of ``connectors.definitions`` for every source type that can be loaded."""
    for name in registry.names():
        try:
            spec = registry.get(name)
        except ConfigurationError:
            continue  # `validate` tells of it wherever an endpoint is of that type
        yield {
            "type": spec.type,
            "title": spec.title,
            "details_schema": spec.details.model_json_schema(),
            "streams": list(spec.streams),
            "minimum_interval_minutes": spec.minimum_interval_minutes,
        }


# -- endpoints -----------------------------------------------------------------------------------


def read_catalog(
    settings: Settings,
    registry: Registry,
    environ: Mapping[str, str],
    *,
    deadline_seconds: float = READ_SECONDS,
) -> Catalog:
    """What ``connectors.instances`` says now. If it cannot be read within the deadline: what it
    said last, not ``readable``, with a problem that tells why. Never raises for any of that."""
    copy = _Copy(settings)
    try:
        rows = within(
            deadline_seconds,
            lambda: _read(settings),
            TransientError(
                f"the database did not answer within {deadline_seconds:g} s",
                remedy="Check its host and network, then reload the code location.",
            ),
        )
    except FileConnectorError as error:
        kept = copy.load()
        remedy = error.remedy
        if kept is not None:
            remedy = f"{remedy} Until then, the endpoints of {kept.read_at} are used.".lstrip()
        problem = Problem(
            file=INSTANCES,
            line=None,
            entry=None,
            field="",
            seen="",
            allowed="",
            message=f"the endpoints cannot be read: {redact(error.message).rstrip('.')}.",
            remedy=remedy,
            quarantines=kept is None,
        )
        if kept is None:
            return Catalog(None, problems=(problem,), readable=False)
        catalog = load_instances(kept.rows, registry, environ)
        return replace(catalog, problems=(problem, *catalog.problems), readable=False)
    copy.save(rows)
    return load_instances(rows, registry, environ)


def _read(settings: Settings) -> Rows:
    if settings.source != CONTROL_PLANE:
        raise ConfigurationError(
            f"{SOURCE_VARIABLE} is neither '{YAML}' nor '{CONTROL_PLANE}'",
            remedy="Correct it, or unset it to read the endpoints file.",
        )
    store = open_store(
        settings.database_url,
        settings.home,
        rest_url=settings.rest_url,
        rest_key=settings.rest_key,
    )
    with closing(store):
        control = control_plane(store)
        if control is None:
            raise ConfigurationError(
                f"{SOURCE_VARIABLE}={CONTROL_PLANE} needs a database",
                remedy=f"Set {DATABASE_VARIABLE}, or {REST_VARIABLE} and {REST_KEY_VARIABLE}.",
            )
        return control.instances()


@dataclass(frozen=True, slots=True)
class _Kept:
    rows: Rows
    read_at: str


class _Copy:
    """The last rows that were read, in a file of the home that is this user's alone. One of another
    database counts as none."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.home / COPY_NAME
        where = (settings.database_url or settings.rest_url or "").rpartition("@")[2]
        self._of = hashlib.sha256(where.encode()).hexdigest()

    def load(self) -> _Kept | None:
        try:
            held = json.loads(self._path.read_bytes())
            if held["of"] == self._of:
                return _Kept([dict(row) for row in held["rows"]], str(held["read_at"]))
        except (OSError, ValueError, TypeError, LookupError):
            pass  # there is none, or none that can be used
        return None

    def save(self, rows: Rows) -> None:
        held = {"of": self._of, "read_at": iso(utc_now()), "rows": list(rows)}
        try:
            _write(self._path, json.dumps(held))
        except OSError as error:
            log.warning(
                "no copy of the endpoints is kept, so they depend on the database being there: %s",
                error.strerror,
            )


def _write(path: Path, text: str) -> None:
    """Whole or not at all, whoever else writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123 - a handle, no path
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        os.unlink(name)  # noqa: PTH108
        raise
