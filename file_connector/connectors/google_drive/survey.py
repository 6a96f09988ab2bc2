"""A walk that fills batches: what a listing shows becomes records and known folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from file_connector.connectors.google_drive.client import DriveClient, Item
from file_connector.connectors.google_drive.mapping import (
    Filter,
    is_folder,
    is_trashed,
    number_of,
    record_of,
)
from file_connector.connectors.google_drive.tree import Tree, with_state
from file_connector.connectors.google_drive.walk import INCOMPLETE, Root, Walk
from file_connector.models import (
    Batch,
    Blind,
    FileRecord,
    Folder,
    FolderGone,
    Gone,
    Json,
)

BATCH = 1000
"""Records and folders that make a batch; one page more may join it."""


@dataclass
class Pile:
    """What will be the next batch."""

    records: list[FileRecord] = field(default_factory=list)
    folders: dict[str, Folder] = field(default_factory=dict)
    folders_gone: list[FolderGone] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    blind: list[Blind] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.records) + len(self.folders) >= BATCH

    def __bool__(self) -> bool:
        return bool(self.records or self.folders or self.folders_gone or self.gone or self.blind)

    def take(self, **rest: Json) -> Batch:
        """The batch; the pile is empty afterwards."""
        batch = Batch(
            records=self.records,
            folders=list(self.folders.values()),
            folders_gone=self.folders_gone,
            gone=self.gone,
            blind=self.blind,
            **rest,
        )
        self.records, self.folders, self.folders_gone = [], {}, []
        self.gone, self.blind = [], []
        return batch


class Survey:
    """Lists folders, and those found in them, into a pile.

    Args:
        tree: changed in step with what goes into the pile.
        mark: state of a folder that was listed to its end.
        waiting: state of a folder that was met and is not listed yet.
        waits: whether a known folder, met again, has to be listed.
        compare: also remember, folder by folder, what was met.
        recursive: False lists only what it was given, and keeps no folders.

    Attributes:
        blind: folders that could not be listed; ``refused``: those that may not be.
        missing: folders that Drive would not list because it does not know them.
        listed: folders that the last step completed, with the ids of the wanted files and the
            folders in them (only with ``compare``).
    """

    def __init__(
        self,
        client: DriveClient,
        root: Root,
        tree: Tree,
        wanted: Filter,
        pile: Pile,
        *,
        mark: Mapping[str, Json],
        waiting: Mapping[str, Json],
        waits: Callable[[Folder], bool],
        recursive: bool,
        compare: bool = False,
    ) -> None:
        self.blind: set[str] = set()
        self.refused: set[str] = set()
        self.missing: set[str] = set()
        self.listed: dict[str, set[str]] = {}
        self._met: dict[str, set[str]] = {}
        self._compare = compare
        self._walk = Walk(client, root)
        self._tree = tree
        self._wanted = wanted
        self._pile = pile
        self._mark = mark
        self._waiting = waiting
        self._waits = waits
        self._recursive = recursive

    def start(self, folder_ids: Iterable[str], position: Json = None) -> None:
        """List these folders; ``position``: where an earlier survey's half-read query stood."""
        for folder_id in folder_ids:
            self._walk.add(folder_id)
        self._walk.resume(position)

    @property
    def position(self) -> Json:
        return self._walk.position

    def ahead(self) -> None:
        """Fetch on in the background while the pile is being stored."""
        self._walk.ahead()

    def cancel(self) -> None:
        self._walk.cancel()

    def step(self) -> bool:
        """Take in one page; False when nothing is left to list."""
        step = self._walk.step()
        if step is None:
            return False
        for item, parent_id in step.items:
            if is_trashed(item) or item["id"] == self._tree.root_id:
                continue
            if is_folder(item):
                if not self._recursive:
                    continue
                self._meet(item, parent_id)
            elif self._wanted.takes(item):
                self._pile.records.append(record_of(item, parent_id))
            else:
                continue
            if self._compare:
                self._met.setdefault(parent_id, set()).add(str(item["id"]))
        self.listed = {}
        for folder_id in step.listed:
            self._set_state(folder_id, self._mark)
            if self._compare:
                self.listed[folder_id] = self._met.pop(folder_id, set())
        for folder_id, why in step.blind:
            self.blind.add(folder_id)
            if why != INCOMPLETE:
                self.refused.add(folder_id)
            self.not_listed(folder_id, why)
        self.missing.update(step.missing)
        return True

    def not_listed(self, folder_id: str, why: str) -> None:
        """Say so of a folder; it waits for the next run."""
        folder = self._set_state(folder_id, {"blind": why})
        self._pile.blind.append(Blind(folder_id, folder.name if folder else folder_id, why))

    def _meet(self, item: Item, parent_id: str) -> None:
        """A folder lies in a listed one."""
        folder_id, name = str(item["id"]), str(item.get("name") or "")
        version = {"v": v} if (v := number_of(item.get("version"))) is not None else {}
        held = self._tree.get(folder_id)
        if held is None:
            folder = Folder(folder_id, parent_id, name, {**self._waiting, **version})
            self._pile.folders[folder_id] = self._tree.put(folder)
            self._walk.add(folder_id)
            return
        moved = (held.parent_id, held.name) != (parent_id, name)
        if moved and not self._tree.below(parent_id, folder_id):
            held = replace(held, parent_id=parent_id, name=name)
            self._pile.folders[folder_id] = self._tree.put(held)
        if self._waits(held):
            # its version only now, as what lies in it is going to be seen, too
            held = replace(held, state={**held.state, **self._waiting, **version})
            self._pile.folders[folder_id] = self._tree.put(held)
            self._walk.add(folder_id)

    def _set_state(self, folder_id: str, state: Mapping[str, Json]) -> Folder | None:
        folder = self._tree.get(folder_id)
        if folder is not None:
            folder = self._pile.folders[folder_id] = self._tree.put(with_state(folder, state))
        return folder
