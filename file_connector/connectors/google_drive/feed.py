"""Placing changes: what an entry of Drive's change log means for one endpoint's tree.

An entry is the item as it is now, not what happened to it, and one log tells about much that is not
ours. A folder that enters, leaves, moves or is renamed is told alone: what lies below follows from
the tree, or from a walk of what entered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from file_connector.connectors.base import Known
from file_connector.connectors.google_drive.client import DriveClient, Item
from file_connector.connectors.google_drive.mapping import (
    Filter,
    is_folder,
    is_trashed,
    number_of,
    parents_of,
    record_of,
)
from file_connector.connectors.google_drive.tree import NOWHERE, Tree, with_state
from file_connector.connectors.google_drive.walk import Root
from file_connector.errors import ForbiddenError, NotFoundError
from file_connector.models import (
    FileRecord,
    Folder,
    FolderGone,
    Gone,
    GoneReason,
    Json,
    KnownFile,
)

MAX_LOOK_UPS = 10_000
"""Unknown parents asked for in one run, once each, and only to learn where something of ours went.
Beyond that they count as outside, which loses nothing for long: a folder that entered has an entry
of its own and is walked when that is read."""

Entry = Mapping[str, Json]


@dataclass(slots=True)
class Placed:
    """What a page of changes means.

    Attributes:
        enter: folders that came in and have to be walked.
        renew: folders that may have been out of our sight for a while, the root among them.
        root: the root may be gone.
    """

    records: list[FileRecord] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    folders: dict[str, Folder] = field(default_factory=dict)
    folders_gone: list[FolderGone] = field(default_factory=list)
    enter: list[str] = field(default_factory=list)
    renew: list[str] = field(default_factory=list)
    root: bool = False

    @property
    def losses(self) -> bool:
        """Something is said to be trashed, deleted or hidden."""
        reasons = [f.reason for f in self.gone] + [f.reason for f in self.folders_gone]
        return any(reason is not GoneReason.OUT_OF_SCOPE for reason in reasons)


class Placement:
    """Decides, for one run, where changed things belong.

    Args:
        tree: changed in step with what is decided.
        whole: everything in the root's shared drive belongs to the endpoint.
        recursive: folders below the root count.
    """

    def __init__(
        self,
        client: DriveClient,
        root: Root,
        tree: Tree,
        wanted: Filter,
        *,
        whole: bool,
        recursive: bool,
    ) -> None:
        self._client = client
        self._root = root
        self._tree = tree
        self._wanted = wanted
        self._whole = whole
        self._recursive = recursive
        self._look_ups_left = MAX_LOOK_UPS
        self._moved: dict[str, tuple[str | None, str, int | None]] = {}
        self._left: dict[str, GoneReason] = {}
        self._asked: set[str] = set()

    @property
    def root_id(self) -> str:
        return self._root.id

    def place(self, entries: Sequence[Entry], known: Known) -> Placed:
        """One page: folders first, so that files find their parents; of several entries about one
        thing the last counts."""
        placed = Placed()
        self._moved, self._left, self._asked = {}, {}, set()
        latest = last_entries(entries)
        files: list[tuple[str, Item | None]] = []
        off: set[str] = set()
        """Removed from this log, and yet to be seen: they went to another corpus."""
        for item_id, entry in latest.items():
            item = None if entry.get("removed") else entry["file"]
            moved_off = item is None and isinstance(entry.get("file"), Mapping)
            if item_id == self._root.id:
                if item is None or is_trashed(item):
                    placed.root = True
                else:
                    self._note_root(item, placed)
            elif is_folder(item) if item is not None else item_id in self._tree:
                self._note_folder(item_id, item, moved_off)
            else:
                files.append((item_id, item))
                if moved_off:
                    off.add(item_id)
        placed.root = placed.root or any(_drive_lost(e, self._root) for e in entries)
        held = known.files([item_id for item_id, _ in files])
        for item_id, item in files:
            self._place_file(item_id, item, held.get(item_id), placed, item_id in off)
        self._place_folders(placed)
        return placed

    def inside(self, folder_id: str | None, *, ask: bool = True) -> bool:
        """Whether what lies in this folder belongs to the endpoint, the page's moves included.
        Unknown folders are looked up, or with ``ask`` False count as outside."""
        if self._whole:
            return folder_id not in self._left
        if not self._recursive:
            return folder_id == self._root.id
        return self.climb(folder_id, ask=ask)

    def climb(self, folder_id: str | None, *, ask: bool = True) -> bool:
        """Whether the way up from a folder ends at the root."""
        trail: list[str] = []
        while folder_id is not None and folder_id != self._root.id:
            if folder_id in self._left:
                return False
            if folder_id in trail:
                # Drive has no cycles: one of these moved, and its entry is still to come
                stale = next((f for f in trail if f not in self._moved), None)
                if stale is None or not self._look_up(stale):
                    return False
                trail, folder_id = [], stale
            trail.append(folder_id)
            if folder_id in self._moved:
                folder_id = self._moved[folder_id][0]
                continue
            folder = self._tree.get(folder_id)
            if folder is not None:
                folder_id = folder.parent_id
            elif self._tree.is_outside(folder_id) or not (ask and self._look_up(folder_id)):
                return False
            else:
                trail.pop()
        return folder_id is not None

    def met(self) -> dict[str, Folder]:
        """The folders of the endpoint that had to be looked up, to be listed."""
        return {
            folder_id: Folder(folder_id, parent_id, name, {"walk": 1})
            for folder_id, (parent_id, name, _) in self._moved.items()
            if self.climb(folder_id, ask=False)
        }

    def _note_folder(self, folder_id: str, item: Item | None, moved_off: bool) -> None:
        if not self._recursive:
            return
        if moved_off:
            self._left[folder_id] = GoneReason.OUT_OF_SCOPE
        elif item is None:
            self._left[folder_id] = GoneReason.ACCESS_LOST
        elif is_trashed(item):
            self._left[folder_id] = GoneReason.TRASHED
        else:
            self._moved[folder_id] = self._position(item)

    def _note_root(self, item: Item, placed: Placed) -> None:
        """The root is there, and something about it changed."""
        held = self._tree.get(self._root.id)
        if held is None:
            return
        _, name, version = self._position(item)
        if version is None:
            return
        now = replace(held, name=name, state={**held.state, "v": version})
        if self._was_away(held, now):
            now = with_state(now, {**now.state, "renew": 1})
            placed.renew.append(now.folder_id)
        if now != held:
            placed.folders[now.folder_id] = self._tree.put(now)

    def _position(self, item: Item) -> tuple[str | None, str, int | None]:
        name, version = str(item.get("name") or ""), number_of(item.get("version"))
        return self._parent(item), name, version

    def _parent(self, item: Item) -> str | None:
        parent = next(iter(parents_of(item)), None)
        return self._root.id if parent is None and self._whole else parent

    def _look_up(self, folder_id: str) -> bool:
        """Ask Drive where a folder is; False if it is not for us to see, or enough was asked."""
        if self._look_ups_left <= 0:
            return False
        self._look_ups_left -= 1
        self._asked.add(folder_id)
        try:
            item = self._client.file(folder_id)
        except (NotFoundError, ForbiddenError):
            item = None
        if item is None or not is_folder(item) or is_trashed(item):
            self._moved[folder_id] = (None, "", None)
            return False
        self._moved[folder_id] = self._position(item)
        return True

    def _place_file(
        self,
        item_id: str,
        item: Item | None,
        held: KnownFile | None,
        placed: Placed,
        moved_off: bool,
    ) -> None:
        live = held is not None and held.live
        reason: GoneReason | None = None
        if item is None:
            reason = GoneReason.OUT_OF_SCOPE if moved_off else GoneReason.DELETED
        elif is_trashed(item):
            reason = GoneReason.TRASHED
        elif not self._wanted.takes(item) or not self._holds(item, ask=live):
            reason = GoneReason.OUT_OF_SCOPE
        if item is not None and reason is None:
            placed.records.append(record_of(item, self._parent(item)))
        elif live and reason is not None:
            placed.gone.append(Gone(item_id, reason))

    def _holds(self, item: Item, *, ask: bool) -> bool:
        """Strangers in strange folders cost no look-up: many tenants share an account's log."""
        if self._whole:
            return bool(item.get("driveId", self._root.in_drive) == self._root.in_drive)
        return self.inside(self._parent(item), ask=ask)

    def _place_folders(self, placed: Placed) -> None:
        tree = self._tree
        done: set[str] = set()
        while waiting := [f for f in self._moved if f not in done]:
            for folder_id in waiting:
                self._place_folder(folder_id, placed, done)
        leaving = [f for f in self._left if f in tree]
        leaving.sort(key=lambda f: -_depth(tree, f))  # the reason nearest to a file is its reason
        for folder_id in leaving:
            if folder_id in tree:
                placed.folders_gone.append(FolderGone(folder_id, self._left[folder_id]))
                tree.drop(folder_id)
        placed.enter = [f for f in placed.enter if f in tree]
        placed.renew = [f for f in placed.renew if f in tree]

    def _was_away(self, held: Folder, now: Folder) -> bool:
        """Whether more happened to a folder than its new name and place explain. It may have been
        moved out of our sight and back, and what changed in it meanwhile is in no log of ours. A
        shared drive's own log has no such gaps."""
        before, after = held.state.get("v"), now.state.get("v")
        if self._root.drive_id is not None or before is None or after is None:
            return False
        explained = (held.parent_id != now.parent_id) + (held.name != now.name)
        return bool(after - before > explained)

    def _place_folder(self, folder_id: str, placed: Placed, done: set[str]) -> None:
        """Parents before children."""
        if folder_id in done:
            return
        done.add(folder_id)
        parent_id, name, version = self._moved[folder_id]
        if parent_id in self._moved:
            self._place_folder(parent_id, placed, done)
        held = self._tree.get(folder_id)
        # A stranger in a strange folder is left alone: had it entered, an entry nearer to the root
        # would tell.
        if parent_id is not None and self.inside(parent_id, ask=held is not None):
            state = dict(held.state) if held else {"walk": 1}
            if version is not None:
                state["v"] = version
            folder = Folder(folder_id, parent_id, name, state)
            if held is None:
                placed.enter.append(folder_id)
            elif self._was_away(held, folder):
                state["renew"] = 1
                placed.renew.append(folder_id)
            if folder != held:
                placed.folders[folder_id] = self._tree.put(folder)
        elif held is not None:
            self._left[folder_id] = GoneReason.OUT_OF_SCOPE
        elif folder_id in self._asked or (parent_id and self._tree.is_outside(parent_id)):
            outside = Folder(folder_id, NOWHERE, "", {"outside": True})
            placed.folders[folder_id] = self._tree.put(outside)


def last_entries(entries: Sequence[Entry]) -> dict[str, Entry]:
    """The last entry about each file or folder, in the order of these."""
    latest: dict[str, Entry] = {}
    for entry in entries:
        if entry.get("changeType") != "drive":
            latest.pop(entry["fileId"], None)
            latest[entry["fileId"]] = entry
    return latest


def _drive_lost(entry: Entry, root: Root) -> bool:
    """The shared drive the root lies in is gone, or we are no member any more."""
    return (
        entry.get("changeType") == "drive"
        and bool(entry.get("removed"))
        and root.in_drive is not None
        and entry.get("driveId") == root.in_drive
    )


def _depth(tree: Tree, folder_id: str) -> int:
    depth, at = 0, tree.get(folder_id)
    while at is not None and at.parent_id is not None and depth < 200:
        depth, at = depth + 1, tree.get(at.parent_id)
    return depth


def first_concern(
    entries: Sequence[Entry],
    root: Root,
    known: Known,
    wanted: Filter,
    *,
    whole: bool,
    recursive: bool,
) -> str:
    """Why these changes call for a run, or nothing if none of them is about this endpoint. Asks
    nobody: an entry in a folder we do not know is not ours, because the folder's own entry would
    have told."""
    top = known.folder(root.id)
    if top is None or "open" in top.state:
        return "a run broke off"
    if "renew" in top.state:
        return "the root folder was out of sight"
    latest = last_entries(entries)
    held = known.files(list(latest))

    @cache
    def folder(folder_id: str | None) -> Folder | None:
        found = known.folder(folder_id) if folder_id and recursive else None
        return None if found is None or found.state.get("outside") else found

    if any(_drive_lost(entry, root) for entry in entries):
        return "the shared drive is gone"
    for item_id, entry in latest.items():
        item: Item | None = None if entry.get("removed") else entry["file"]
        file = held.get(item_id)
        live = file is not None and file.live
        left = item is None or is_trashed(item)
        if item_id == root.id:
            if item is None or left:
                return "the root folder was removed"
            if root.drive_id is None and top.state.get("v") != number_of(item.get("version")):
                return "the root folder has changed"
            continue
        if item is None or left:
            if live or folder(item_id):
                return "something was removed"
            continue
        parent = next(iter(parents_of(item)), root.id if whole else None)
        ours = whole or parent == root.id or folder(parent) is not None
        if is_folder(item):
            known_folder = folder(item_id)
            if known_folder is None:
                if ours and recursive:
                    return "a folder is new"
            elif (known_folder.parent_id, known_folder.name) != (parent, item.get("name")):
                return "a folder was moved or renamed"
            elif known_folder.state.get("blind") or (
                known_folder.state.get("v") != number_of(item.get("version"))
            ):
                return "a folder has changed"
        elif ours and wanted.takes(item):
            if file is None or not file.live:
                return "a file is new"
            fresh = record_of(item, parent)
            if file.version is None or (fresh.version, parent) != (file.version, file.parent_id):
                return "a file has changed"
        elif live:
            return "a file has left"
    return ""
