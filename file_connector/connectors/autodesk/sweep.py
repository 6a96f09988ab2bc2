"""The complete listing: every folder of the scope once, resumable, and undisturbed by the fast way
that may run in between.

Progress rests in the known tree: a folder is listed when its ``pass`` is the number of the sweep,
and to be listed when only its ``seen`` is. What we hold and a sweep did not see is the engine's
question, answered by ``resolve``; here nothing is called gone unless the provider shows it as
deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from file_connector.connectors.autodesk.api import Api, Page
from file_connector.connectors.autodesk.descent import sort_out
from file_connector.connectors.autodesk.mapping import FolderEntry, ItemEntry
from file_connector.connectors.autodesk.places import chunks
from file_connector.connectors.autodesk.start import StartFinder
from file_connector.connectors.autodesk.tree import Node, Tree, settled
from file_connector.connectors.autodesk.walk import walk
from file_connector.connectors.base import Known
from file_connector.errors import ForbiddenError, NotFoundError
from file_connector.models import (
    Batch,
    Blind,
    Folder,
    FolderGone,
    GoneReason,
    Json,
)

CHUNK = 500


class Sweep:
    """One sweep, or what is left of it.

    Args:
        pass_no: its number; every folder listed since it began carries it.
    """

    def __init__(
        self,
        api: Api,
        finder: StartFinder,
        known: Known,
        wanted: Callable[[ItemEntry], bool],
        workers: int,
        pass_no: int,
    ) -> None:
        self._api = api
        self._finder = finder
        self._known = known
        self._wanted = wanted
        self._workers = workers
        self._pass_no = pass_no
        self._tree = Tree(known)
        self._todo: list[Node] = []
        self._queued: set[str] = set()
        self._roots: set[str] = set()
        self._dead: set[str] = set()
        """Known folders shown as deleted; they go last, after all moves out of them were seen."""

    def begin(self, roots: Sequence[FolderEntry], start: Json) -> Batch:
        """Queue the start folders; the batch that opens the sweep.

        Args:
            start: remembered with each start folder; one remembered with another is not ours.
        """
        for root in roots:
            self._roots.add(root.id)
            held = self._tree.state(root.id)
            state = held if held.get("start") == start else {}
            self._see(root, None, {**state, "start": start})
        return Batch(folders=self._tree.take())

    def resume(self) -> None:
        """Queue what this sweep has seen and not listed."""
        for folder in self._known.folders():
            state = folder.state
            if state.get("seen") == self._pass_no != state.get("pass"):
                self._queue(folder.folder_id, folder.name, folder.parent_id, state)
            if state.get("seen") == self._pass_no and folder.parent_id is None:
                self._roots.add(folder.folder_id)

    def run(self) -> Iterator[Batch]:
        """List all that is queued and what turns up below, then keep the rollups."""
        for node, page in walk(self._todo, self._contents, self._workers):
            if isinstance(page, Page):
                yield self._page(node, page)
            else:
                yield self._refused(node, page)
        if self._dead:
            dead = [FolderGone(i, GoneReason.DELETED) for i in sorted(self._dead)]
            yield Batch(folders_gone=dead)
        yield from self._keep_rollups()

    # -- listings --------------------------------------------------------------------------------

    def _contents(self, node: Node) -> Iterator[Page]:
        top = node.parent_id is None
        return self._api.contents(node.id) if top else self._api.contents_below(node.id)

    def _page(self, node: Node, page: Page) -> Batch:
        if self._tree.folder(node.id) is None:
            return Batch(folders=self._tree.take())  # the fast way removed it meanwhile
        for entry in page.folders:
            if entry.id in self._roots:
                continue  # listed by itself, and below nothing
            held = self._tree.folder(entry.id)
            if not entry.hidden:
                self._dead.discard(entry.id)
                self._see(entry, node.id, held.state if held else {})
            elif held is not None:
                self._dead.add(entry.id)
        files = sort_out(page.items, self._wanted, self._known)
        if page.last:
            self._listed(node, page)
        return replace(files, folders=self._tree.take())

    def _see(self, entry: FolderEntry, parent_id: str | None, state: Json) -> None:
        """Draft a folder where a listing shows it, and queue it unless it already was."""
        if state.get("pass") != self._pass_no and entry.id not in self._queued:
            state = {**state, "seen": self._pass_no, "next": entry.rollup}
            self._queue(entry.id, entry.name, parent_id, state)
        self._tree.place(entry.id, parent_id, entry.name, state)

    def _queue(self, folder_id: str, name: str, parent_id: str | None, state: Json) -> None:
        self._queued.add(folder_id)
        node = Node(folder_id, name, parent_id, state.get("next"), kept=state.get("rollup"))
        self._todo.append(node)

    def _listed(self, node: Node, page: Page) -> None:
        state = {**self._tree.state(node.id), "pass": self._pass_no, "seen": self._pass_no}
        if state.get("rollup") != node.kept:
            state = {key: value for key, value in state.items() if key != "rollup"}
            state["next"] = None
        elif page.unstable or not settled(node.rollup, page.served_at):
            state["next"] = None
        self._place(node, state)

    def _refused(self, node: Node, error: ForbiddenError | NotFoundError) -> Batch:
        if node.parent_id is None:
            raise self._finder.explain(error)
        self._tree.doubt(node.id)
        return Batch(folders=self._tree.take(), blind=[Blind(node.id, node.name, error.message)])

    def _place(self, node: Node, state: Json) -> None:
        at = self._tree.folder(node.id)
        parent_id, name = (at.parent_id, at.name) if at else (node.parent_id, node.name)
        self._tree.place(node.id, parent_id, name, state)

    # -- the end ---------------------------------------------------------------------------------

    def _keep_rollups(self) -> Iterator[Batch]:
        """Let each folder keep the rollup this sweep saw, unless something in or below it is
        unsure: unseen, refused, changed while being listed, or held and not shown."""
        folders = {folder.folder_id: folder for folder in self._known.folders()}
        unsure: set[str] = set()
        for folder in folders.values():
            if self._unsure(folder):
                at: Folder | None = folder
                while at is not None and at.folder_id not in unsure:
                    unsure.add(at.folder_id)
                    at = folders.get(at.parent_id or "")
        changed = (
            kept
            for folder in folders.values()
            if (kept := self._kept(folder, folder.folder_id in unsure)) != folder
        )
        for chunk in chunks(changed, CHUNK):
            yield Batch(folders=chunk)

    def _unsure(self, folder: Folder) -> bool:
        state = folder.state
        listed = state.get("seen") == self._pass_no == state.get("pass")
        return not listed or state.get("next", state.get("rollup")) is None

    def _kept(self, folder: Folder, unsure: bool) -> Folder:
        state = dict(folder.state)
        if "next" in state:
            state["rollup"] = state.pop("next")
        if unsure or state.get("rollup") is None:
            state.pop("rollup", None)
        return replace(folder, state=state)
