"""What the endpoints file comes to: who can run, who cannot, and what is to be mended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from file_connector.endpoints.schema import Endpoint
from file_connector.errors import one_line

INSTANCES = "connectors.instances"
"""The table of the control plane, where it stands for the file."""

DEFAULTS = "defaults"
"""What a problem in the part that all entries share names as its entry."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend in the endpoints file, or in the table of instances.

    Attributes:
        file: the name of the file or table, for people.
        line: counted from 1; None if the problem has no particular line.
        entry: id or name of the entry, ``defaults``, or None for the file as a whole and for an
            entry without either.
        field: dotted key, e.g. ``schedule.cron``; empty for the entry as a whole.
        seen: the offending value, shortened, or empty when it is absent or better not repeated.
        allowed: what may stand there; empty if there is no short answer.
        message: one sentence: what is wrong.
        remedy: what to do.
        quarantines: whether the entry does not load because of it.
    """

    file: str
    line: int | None
    entry: str | None
    field: str
    seen: str
    allowed: str
    message: str
    remedy: str
    quarantines: bool = True

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        who = ""
        if self.entry is not None:
            who = "defaults: " if self.entry == DEFAULTS else f"endpoint '{self.entry}': "
        return one_line(f"{place}: {who}{self.message} {self.remedy}".rstrip())


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An entry that does not load. Its texts are what could be read of it, for display.

    ``id`` is None if it has none of its own: no usable name, or an id another entry holds.
    """

    id: str | None
    name: str
    endpoint_type: str
    project_id: str
    user_id: str
    line: int | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Catalog:
    """What endpoints.yaml says, or the table of instances.

    Attributes:
        path: the file; None for the table.
        endpoints: entries that can run, in the file's order, disabled ones included.
        problems: all problems, in the order of their lines.
        quarantined: entries that cannot run.
        readable: False if the file (or table) could not be read at all, so that nothing follows
            from the absence of an endpoint.
    """

    path: Path | None
    endpoints: tuple[Endpoint, ...] = ()
    problems: tuple[Problem, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    readable: bool = True

    @property
    def name(self) -> str:
        """What people call it: the file's name, or the table's."""
        return self.path.name if self.path else INSTANCES

    def place(self, line: int | None) -> str:
        """Where an entry stands, for people."""
        return f"{self.name}, line {line}" if self.path else f"table {self.name}"

    def get(self, endpoint_id: str) -> Endpoint | None:
        return next((e for e in self.endpoints if e.id == endpoint_id), None)
