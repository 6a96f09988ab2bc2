"""What we remember per folder, and the folders being listed.

Folder.state:
    rollup: the folder's ``lastModifiedTimeRollup`` for which its own listing and everything below
        is stored; absent while anything there is not, or not surely, stored.
    tried: on start folders: the rollup at which the fast way stored everything but what it may not
        see, or looked often enough; looking once more at that is not for the probe to ask for.
    looks: on start folders: how often the fast way looked at which rollup and was left in doubt.
    seen, pass: number of the last sweep whose listing of the parent showed the folder, and of the
        last one in which the folder's own listing was stored.
    holed: the rollup for which a sweep's listing of the folder left out what is there.
    next: the rollup that sweep saw (None: unsure); becomes ``rollup`` at its end.
    start: on start folders: hub, scope, and whether it was found by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from file_connector.connectors.autodesk.mapping import FolderEntry
from file_connector.connectors.base import Known
from file_connector.models import Folder, Json
from file_connector.times import parse_time

MAX_LOOKS = 9
"""What three runs do in a row. If each look at one rollup left something in doubt, the next one
waits for another rollup or the sweep."""


@dataclass(eq=False)
class Node:
    """A folder to list.

    Attributes:
        above: the node whose rollup may be kept only after this one's; None at a start folder.
        waits_for: its own listing, the nodes below it, and questions still open.
        clean: everything in it and below was seen, and surely so.
        restless: it is not clean, and not only because something may not be seen: worth another
            look soon.
        pages: how many pages its listing had so far.
        shown: ids its listing showed so far, hidden ones included.
        kept: the rollup kept when it was queued.
    """

    id: str
    name: str
    parent_id: str | None
    rollup: str | None
    above: Node | None = None
    waits_for: int = 1
    clean: bool = True
    restless: bool = False
    pages: int = 0
    shown: set[str] = field(default_factory=set)
    kept: Json = None

    def doubt(self, *, restless: bool) -> None:
        self.clean = False
        self.restless = self.restless or restless


class Tree:
    """Reads the known tree and drafts the folders of one batch on top of it."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._draft: dict[str, Folder] = {}
        self._held: dict[str, Folder | None] = {}

    def folder(self, folder_id: str) -> Folder | None:
        """As drafted, else as known."""
        return self._draft.get(folder_id) or self._known_folder(folder_id)

    def _known_folder(self, folder_id: str) -> Folder | None:
        if folder_id not in self._held:
            self._held[folder_id] = self._known.folder(folder_id)
        return self._held[folder_id]

    def state(self, folder_id: str) -> dict[str, Json]:
        folder = self.folder(folder_id)
        return dict(folder.state) if folder else {}

    def place(
        self, folder_id: str, parent_id: str | None, name: str, state: Mapping[str, Json]
    ) -> None:
        """Draft a folder where a listing showed it."""
        self._draft[folder_id] = Folder(folder_id, parent_id, name, state)

    def amend(self, node: Node, state: Mapping[str, Json]) -> None:
        """Draft a new state; where the folder is stays as last seen."""
        at = self.folder(node.id)
        if at is None or node.above is None:
            self._draft[node.id] = Folder(node.id, node.parent_id, node.name, state)
        else:
            self._draft[node.id] = Folder(node.id, at.parent_id, at.name, state)

    def doubt(self, folder_id: str | None) -> None:
        """Forget the rollups of a folder and of all above it: the fast way will look again."""
        visited: set[str] = set()
        while folder_id is not None and folder_id not in visited:
            visited.add(folder_id)
            folder = self.folder(folder_id)
            if folder is None:
                return
            self._draft[folder_id] = Folder(
                folder_id, folder.parent_id, folder.name, without_rollup(folder.state)
            )
            folder_id = folder.parent_id

    def holed(self, folder_id: str | None) -> None:
        """The last sweep's listing of a folder left out what is there, so perhaps also what is new:
        doubt it, unless nothing changed since a sweep said the same. What no listing ever shows
        must not cost a run at every tick."""
        folder = self.folder(folder_id) if folder_id is not None else None
        rollup = folder.state.get("rollup") if folder is not None else None
        if folder is None or rollup is None or folder.state.get("holed") == rollup:
            return
        self._draft[folder.folder_id] = replace(folder, state={**folder.state, "holed": rollup})
        self.doubt(folder.folder_id)

    def take(self) -> list[Folder]:
        """What was drafted and differs from what is known; the draft is empty afterwards."""
        drafted, self._draft = self._draft, {}
        changed = [f for f in drafted.values() if self._known_folder(f.folder_id) != f]
        self._held = {}
        return changed


def with_rollup(state: Mapping[str, Json], rollup: str) -> dict[str, Json]:
    """The state after everything in and below the folder was stored for ``rollup``."""
    kept = {**without_rollup(state), "rollup": rollup}
    kept.pop("looks", None)
    return {**kept, "next": rollup} if "next" in state else kept


def without_rollup(state: Mapping[str, Json]) -> dict[str, Json]:
    """The state while anything in or below the folder may be missing."""
    kept = {key: value for key, value in state.items() if key not in ("rollup", "tried")}
    return {**kept, "next": None} if "next" in state else kept


def tried(state: Mapping[str, Json], rollup: str, *, restless: bool) -> dict[str, Json]:
    """The state of a start folder after a look that could not see something or, ``restless``, was
    left in doubt: a listing may, for a while or for ever, lack what is there."""
    times = 1
    if restless:
        before, count = state.get("looks") or (None, 0)
        times = count + 1 if before == rollup else 1
        state = {**state, "looks": [rollup, times]}
    return {**state, "tried": rollup} if not restless or times >= MAX_LOOKS else dict(state)


def changed(entry: FolderEntry, state: Mapping[str, Json]) -> bool:
    """Whether the folder, or anything below, may differ from what is stored."""
    return entry.rollup is None or state.get("rollup") != entry.rollup


def worth_a_run(start: FolderEntry, state: Mapping[str, Json]) -> bool:
    """The same for a start folder, without what was refused when the fast way looked last."""
    return changed(start, state) and (start.rollup is None or state.get("tried") != start.rollup)


def settled(rollup: str | None, served_at: datetime | None) -> bool:
    """False if the listing was answered within the very second of the rollup.

    Autodesk's times have whole seconds, so another change later in that second would leave the
    rollup as it is. Both values come from the provider's clock and are compared for equality only.
    """
    moment = parse_time(rollup)
    if moment is None or served_at is None or moment.microsecond:
        return True
    return moment != served_at.replace(microsecond=0)
