"""The known folders of one endpoint, as an iterator works with them: read once, kept in step.

What a folder's ``state`` says:

- ``met``: number of the pass that found it in its parent and has yet to list it
- ``pass``: number of the pass that listed it to its end
- ``bulk``: that was one listing of a whole shared drive
- ``walk``: the next reading of the feed has to list it
- ``blind``: why it could not be listed
- ``renew``: everything below is to be compared with what we hold
- ``open``: (the root's) a page of changes was stored, and the walks it calls for were not yet
- ``v``: its own version when it was last looked at
- ``outside``: met as somebody's parent, but no part of the endpoint
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from file_connector.models import Folder, Json

NOWHERE = "?"
"""Parent of the outside folders: they are remembered by id alone."""


class Tree:
    """Folders by id and by parent. ``put`` and ``drop`` change this copy only; the same values go
    into a Batch to be stored."""

    def __init__(self, folders: Iterable[Folder], root_id: str) -> None:
        self.root_id = root_id
        self._folders: dict[str, Folder] = {}
        self._below: dict[str, dict[str, None]] = {}
        for folder in folders:
            self.put(folder)

    def __contains__(self, folder_id: str) -> bool:
        """Known, and not as an outside one."""
        return self.get(folder_id) is not None

    def get(self, folder_id: str) -> Folder | None:
        """The known folder, unless it is an outside one."""
        folder = self._folders.get(folder_id)
        return None if folder is None or folder.state.get("outside") else folder

    def is_outside(self, folder_id: str) -> bool:
        """Remembered as not belonging to the endpoint."""
        folder = self._folders.get(folder_id)
        return folder is not None and bool(folder.state.get("outside"))

    def put(self, folder: Folder) -> Folder:
        old = self._folders.get(folder.folder_id)
        if old is not None and old.parent_id is not None:
            self._below.get(old.parent_id, {}).pop(folder.folder_id, None)
        self._folders[folder.folder_id] = folder
        if folder.parent_id is not None:
            self._below.setdefault(folder.parent_id, {})[folder.folder_id] = None
        return folder

    def drop(self, folder_id: str) -> None:
        """Forget a folder and everything below it."""
        for gone in list(self.subtree(folder_id)):
            folder = self._folders.pop(gone, None)
            if folder is not None and folder.parent_id is not None:
                self._below.get(folder.parent_id, {}).pop(gone, None)

    def subtree(self, folder_id: str) -> Iterator[str]:
        """The folder's id and the ids below it, parents first."""
        met, queue = {folder_id}, [folder_id]
        for at in queue:
            yield at
            for child in self._below.get(at, ()):
                if child not in met:
                    met.add(child)
                    queue.append(child)

    def children(self, folder_id: str) -> list[str]:
        """Ids of the known folders directly inside."""
        return list(self._below.get(folder_id, ()))

    def inside(self, folder_id: str | None) -> bool:
        """Whether the chain of parents leads to the root."""
        met: set[str] = set()
        while folder_id is not None and folder_id not in met:
            if folder_id == self.root_id:
                return self.root_id in self._folders
            met.add(folder_id)
            folder = self.get(folder_id)
            folder_id = folder.parent_id if folder else None
        return False

    def below(self, folder_id: str, ancestor_id: str) -> bool:
        """Whether ``ancestor_id`` is met on the way up from ``folder_id``, itself included."""
        met: set[str] = set()
        at: str | None = folder_id
        while at is not None and at not in met:
            if at == ancestor_id:
                return True
            met.add(at)
            folder = self._folders.get(at)
            at = folder.parent_id if folder else None
        return False

    def reachable(self) -> Iterator[Folder]:
        """The folders that belong to the endpoint, parents first."""
        for folder_id in self.subtree(self.root_id):
            folder = self.get(folder_id)
            if folder is not None:
                yield folder

    def flagged(self, flag: str, on: bool) -> list[Folder]:
        """The root as it has to be stored for its ``flag`` to be so; nothing if it is."""
        root = self.get(self.root_id)
        if root is None or on == (flag in root.state):
            return []
        state = {key: value for key, value in root.state.items() if key != flag}
        return [self.put(replace(root, state={**state, flag: 1} if on else state))]

    @property
    def current_pass(self) -> Json:
        """The last pass that listed the root: what is listed now is marked with it."""
        root = self.get(self.root_id)
        return root.state.get("pass") if root else None


def with_state(folder: Folder, state: Mapping[str, Json]) -> Folder:
    """The folder with another state; its version stays, and what is still to be done for it."""
    kept = {key: folder.state[key] for key in ("v", "renew", "open") if key in folder.state}
    return replace(folder, state={**kept, **state})
