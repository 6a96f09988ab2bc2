"""The fast way: from start folders whose rollup moved down to what changed, and no further.

What a folder's complete listing does not show although we hold it there is only a question at
first. It is answered by other listings of the same run (a move) or, at the end, by a look at the
thing itself. Until then the rollups of that folder and of all above it are not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from file_connector.connectors.autodesk.api import Api, Page
from file_connector.connectors.autodesk.mapping import FolderEntry, ItemEntry, tells_less
from file_connector.connectors.autodesk.places import Places, chunks
from file_connector.connectors.autodesk.start import StartFinder
from file_connector.connectors.autodesk.tree import (
    Node,
    Tree,
    changed,
    settled,
    tried,
    with_rollup,
    without_rollup,
)
from file_connector.connectors.autodesk.walk import walk
from file_connector.connectors.base import Known
from file_connector.errors import ForbiddenError, NotFoundError
from file_connector.models import (
    Batch,
    Blind,
    FileRecord,
    Folder,
    FolderGone,
    Gone,
    GoneReason,
    KnownFile,
)

VANISHED_FILES = 50
VANISHED_SHARE = 0.2
"""More files than both missing at once are not looked into here: that is for the sweep to judge."""
CHUNK = 500


class Descent:
    """One descent; ``run`` it once, then read its attributes.

    Attributes:
        blind: something could not be seen.
        paged: some folder had several pages, so its listing was not one moment.
        doubtful: some listing left out what was there.
    """

    def __init__(
        self,
        api: Api,
        finder: StartFinder,
        known: Known,
        wanted: Callable[[ItemEntry], bool],
        workers: int,
    ) -> None:
        self._api = api
        self._finder = finder
        self._known = known
        self._wanted = wanted
        self._workers = workers
        self._tree = Tree(known)
        self._todo: list[Node] = []
        self._queued: set[str] = set()
        self._roots: set[str] = set()
        self._files: dict[str, tuple[KnownFile, Node]] = {}
        """Held files that their folder's listing did not show."""
        self._folders: dict[str, Node | None] = {}
        """Known folders that their parent's listing did not show; None for lost start folders."""
        self._dead: dict[str, Node] = {}
        """Known folders that a listing shows as deleted. They go last: what was moved out of them
        before must not be taken along."""
        self.blind = False
        self.paged = False
        self.doubtful = False

    def run(
        self, roots: Sequence[Node], all_roots: Sequence[str], lost: Sequence[str]
    ) -> Iterator[Batch]:
        """Everything that changed below ``roots``.

        Args:
            roots: start folders whose rollup moved.
            all_roots: ids of all start folders.
            lost: known folders that used to be start folders.
        """
        self._roots.update(all_roots)
        self._queue(roots)
        self._folders.update(dict.fromkeys(lost))
        while True:
            for batch in self._listings():
                self.blind = self.blind or bool(batch.blind)
                yield batch
            if not self._files and not self._folders:
                break
            for batch in self._questions(all_roots):
                self.blind = self.blind or bool(batch.blind)
                yield batch
        if self._dead:
            yield self._bury()

    def _queue(self, nodes: Sequence[Node]) -> None:
        self._queued.update(node.id for node in nodes)
        self._todo.extend(reversed(nodes))

    # -- listings --------------------------------------------------------------------------------

    def _contents(self, node: Node) -> Iterator[Page]:
        top = node.above is None
        return self._api.contents(node.id) if top else self._api.contents_below(node.id)

    def _listings(self) -> Iterator[Batch]:
        for node, page in walk(self._todo, self._contents, self._workers):
            if isinstance(page, Page):
                yield self._page(node, page)
            else:
                yield self._refused(node, page)

    def _page(self, node: Node, page: Page) -> Batch:
        node.pages += 1
        if page.first and node.above is None:
            self._tree.amend(node, without_rollup(self._tree.state(node.id)))
        self._subfolders(node, page.folders)
        for item in page.items:
            node.shown.add(item.id)
            self._answered(item.id)
        files = sort_out(page.items, self._wanted, self._known)
        blind: list[Blind] = []
        abandoned: list[FolderGone] = []
        if page.last:
            abandoned = self._open_questions(node)
            self.paged = self.paged or node.pages > 1
            if page.unstable:
                why = "it kept changing while it was listed"
                blind.append(Blind(node.id, node.name, why))
            if page.unstable or not settled(node.rollup, page.served_at):
                node.doubt(restless=True)
            self._release(node)
        return replace(files, folders=self._tree.take(), folders_gone=abandoned, blind=blind)

    def _subfolders(self, node: Node, entries: Sequence[FolderEntry]) -> None:
        """Draft and queue what the listing shows."""
        below = []
        for entry in entries:
            node.shown.add(entry.id)
            if entry.id in self._roots:
                continue  # listed by itself, and below nothing
            held = self._tree.folder(entry.id)
            if entry.hidden:
                self._answered(entry.id)
                if held is not None:
                    self._dead[entry.id] = node
                    node.waits_for += 1
                continue
            state = dict(held.state) if held else {}
            if changed(entry, state):
                state = without_rollup(state)
                if entry.id in self._queued:
                    node.doubt(restless=True)
                else:
                    below.append(self._below(node, entry))
            self._tree.place(entry.id, node.id, entry.name, state)
            self._answered(entry.id)
        self._queue(below)

    def _below(self, node: Node, entry: FolderEntry) -> Node:
        node.waits_for += 1
        return Node(entry.id, entry.name, entry.parent_id or node.id, entry.rollup, above=node)

    def _refused(self, node: Node, error: ForbiddenError | NotFoundError) -> Batch:
        """A start folder that cannot be listed ends the run. Another stays unseen, also when it is
        not found: its parent shows it in this very run."""
        if node.above is None:
            raise self._finder.explain(error)
        node.doubt(restless=False)
        self._release(node)
        blind = Blind(node.id, node.name, error.message)
        return Batch(folders=self._tree.take(), blind=[blind])

    # -- questions -------------------------------------------------------------------------------

    def _open_questions(self, node: Node) -> list[FolderGone]:
        """Note what the complete listing of ``node`` did not show; the abandoned folders."""
        abandoned: list[FolderGone] = []
        for file in self._known.files_in(node.id):
            if file.external_id not in node.shown:
                self._files[file.external_id] = file, node
                node.waits_for += 1
        for folder in self._known.subfolders(node.id):
            if folder.folder_id in node.shown:
                continue
            if self._abandoned(folder, node):
                abandoned.append(FolderGone(folder.folder_id, GoneReason.ACCESS_LOST))
                continue
            self._folders[folder.folder_id] = node
            node.waits_for += 1
        node.shown = set()
        return abandoned

    def _abandoned(self, folder: Folder, node: Node) -> bool:
        """Whether the last sweep's listing did not show the folder either, and nothing in it is
        held any more: then a look at it must not bring back what the listings took away."""
        last = self._tree.state(node.id).get("pass", 0)
        return folder.state.get("seen", last) < last and not self._held_below(folder.folder_id)

    def _answered(self, identifier: str) -> None:
        """Another listing of this run shows it."""
        node: Node | None
        if identifier in self._files:
            _, node = self._files.pop(identifier)
        elif identifier in self._dead:
            node = self._dead.pop(identifier)
        else:
            node = self._folders.pop(identifier, None)
        self._release(node)

    def _release(self, node: Node | None) -> None:
        """One thing less to wait for; a folder that waits for nothing may keep its rollup. A start
        folder that may not remembers that it was tried."""
        while node is not None:
            node.waits_for -= 1
            if node.waits_for:
                return
            state = self._tree.state(node.id)
            if node.clean:
                if node.rollup is not None:
                    self._tree.amend(node, with_rollup(state, node.rollup))
            elif node.above is not None:
                node.above.doubt(restless=node.restless)
            elif node.rollup is not None:
                self._tree.amend(node, tried(state, node.rollup, restless=node.restless))
            node = node.above

    def _questions(self, roots: Sequence[str]) -> Iterator[Batch]:
        """Answer all open questions; folders that turn up elsewhere are queued.

        A folder that is shown elsewhere or deleted is believed, whatever it holds. What is merely
        missing, refused, or still in the very place where no listing shows it, is too much at some
        point: then the listings themselves are in doubt.
        """
        limit = max(VANISHED_FILES, VANISHED_SHARE * self._known.live_count())
        if len(self._files) > limit or len(self._folders) > limit:
            yield self._too_many()
            return
        asked = frozenset(self._folders)
        places = Places(
            self._api,
            self._known,
            roots,
            lambda folder: folder.folder_id not in asked,
            self._wanted,
            self._workers,
        )
        found = dict(places.folders(list(self._folders)))
        below = sum(
            self._held_below(i)
            for i, node in self._folders.items()
            if i in places.refused or (node is not None and _is_in(found.get(i), node))
        )
        if len(self._files) + below > limit:
            yield self._too_many()
            return
        if found or self._folders:
            yield self._settle_folders(places, found)
        for chunk in chunks(list(self._files), CHUNK):
            yield self._settle_files(places, chunk)

    def _settle_folders(
        self, places: Places, found: Mapping[str, FolderEntry | GoneReason]
    ) -> Batch:
        gone: list[FolderGone] = []
        blind: list[Blind] = []
        for folder_id, fate in found.items():
            node = self._folders.pop(folder_id)
            if isinstance(fate, GoneReason):
                gone.append(FolderGone(folder_id, fate))
                self._release(node)
            else:
                self._found_again(node, fate)
        for folder_id, node in self._folders.items():
            name = _name(self._known, folder_id)
            blind.append(self._unclear(node, folder_id, name, places))
        self._folders.clear()
        return Batch(folders=self._tree.take(), folders_gone=gone, blind=blind)

    def _unclear(self, node: Node | None, identifier: str, name: str, places: Places) -> Blind:
        """Neither a listing nor a look tells what became of it: it stays as it is."""
        if node is not None:
            node.doubt(restless=False)
            self._release(node)
        return Blind(identifier, name, not_shown_and(places.unclear[identifier]))

    def _found_again(self, node: Node | None, found: FolderEntry) -> None:
        """A folder that is in scope after all: moved where no listing looked, or skipped."""
        state = self._tree.state(found.id)
        looks = changed(found, state)
        state = without_rollup(state) if looks else state
        self._tree.place(found.id, found.parent_id, found.name, state)
        if node is None:
            return
        if found.parent_id == node.id:
            node.doubt(restless=True)
            self.doubtful = True
        if looks and found.id not in self._queued:
            self._queue([self._below(node, found)])
        self._release(node)

    def _settle_files(self, places: Places, ids: Sequence[str]) -> Batch:
        records: list[FileRecord] = []
        gone: list[Gone] = []
        for file, found in places.files([self._files[i][0] for i in ids]):
            _, node = self._files.pop(file.external_id)
            if isinstance(found, GoneReason):
                gone.append(Gone(file.external_id, found))
            else:
                if not tells_less(found, file):
                    records.append(found)
                if found.parent_id == node.id:
                    node.doubt(restless=True)
                    self.doubtful = True
            self._release(node)
        unclear = [self._files.pop(i) for i in ids if i in self._files]
        blind = [self._unclear(node, f.external_id, f.title, places) for f, node in unclear]
        return Batch(records=records, gone=gone, folders=self._tree.take(), blind=blind)

    def _bury(self) -> Batch:
        dead, self._dead = self._dead, {}
        for node in dead.values():
            self._release(node)
        return Batch(
            folders=self._tree.take(),
            folders_gone=[FolderGone(folder_id, GoneReason.DELETED) for folder_id in dead],
        )

    def _too_many(self) -> Batch:
        held = self._known.live_count()
        vanished = len(self._files) + sum(self._held_below(i) for i in self._folders)
        nodes = {node.id: node for _, node in self._files.values()}
        nodes.update({node.id: node for node in self._folders.values() if node is not None})
        why = (
            f"{vanished} of {held} files are missing from its listing at once; nothing is "
            "tombstoned before complete listings agree"
        )
        blind = [Blind(node.id, node.name, why) for node in nodes.values()]
        blind += [
            Blind(i, _name(self._known, i), why) for i, n in self._folders.items() if n is None
        ]
        waiting = [node for _, node in self._files.values()]
        waiting += [node for node in self._folders.values() if node is not None]
        self._files.clear()
        self._folders.clear()
        for node in waiting:
            node.doubt(restless=True)
            self._release(node)
        return Batch(folders=self._tree.take(), blind=blind, suspect=True)

    def _held_below(self, folder_id: str) -> int:
        stack, count = [folder_id], 0
        while stack:
            at = stack.pop()
            count += len(self._known.files_in(at))
            stack.extend(f.folder_id for f in self._known.subfolders(at))
        return count


def not_shown_and(why: str) -> str:
    """Why one cannot tell what became of something that is held."""
    return f"it is missing from its folder's listing, and {why}"


def sort_out(
    items: Sequence[ItemEntry], wanted: Callable[[ItemEntry], bool], known: Known
) -> Batch:
    """What a page of files means: records, tombstones for the deleted or no longer wanted that we
    hold as live, and what is merely ``seen``. A file held where it says it is stays there, though
    the listing of another folder shows it, too."""
    records: list[FileRecord] = []
    unwanted: dict[str, GoneReason] = {}
    seen: list[str] = []
    odd = [
        i.id
        for i in items
        if i.record is not None
        and (i.record.raw.get("tip") is None or i.home not in (None, i.parent_id))
    ]
    held = known.files(odd) if odd else {}
    for item in items:
        if item.record is None:
            unwanted[item.id] = GoneReason.DELETED
        elif tells_less(item.record, held.get(item.id)):
            seen.append(item.id)
        elif not wanted(item):
            unwanted[item.id] = GoneReason.OUT_OF_SCOPE
        else:
            before = held.get(item.id)
            stays = before is not None and before.live and before.parent_id == item.home
            records.append(replace(item.record, parent_id=item.home) if stays else item.record)
    held = known.files(unwanted) if unwanted else {}
    gone = [Gone(i, unwanted[i]) for i, file in held.items() if file.live]
    return Batch(records=records, gone=gone, seen=seen)


def _is_in(found: FolderEntry | GoneReason | None, node: Node) -> bool:
    return isinstance(found, FolderEntry) and found.parent_id == node.id


def _name(known: Known, folder_id: str) -> str:
    folder = known.folder(folder_id)
    return folder.name if folder else folder_id
