"""Looks into single files and folders that a listing should have shown and did not: moved, deleted,
out of scope, or simply skipped. Nothing is called gone without such a look.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from file_connector.connectors.autodesk.api import UNCLEAR, Api
from file_connector.connectors.autodesk.mapping import FolderEntry, ItemEntry, tells_less
from file_connector.connectors.base import Known
from file_connector.errors import ForbiddenError, NotFoundError
from file_connector.models import FileRecord, Folder, GoneReason, KnownFile

T = TypeVar("T")
E = TypeVar("E")


class Places:
    """Answers where things are, asking each folder at most once.

    Args:
        roots: the start folders.
        trusted: whether a known folder is surely still where we know it.
        wanted: whether a file passes the endpoint's filter.

    Attributes:
        refused: of what was asked about, the ids that are gone only because the provider refuses to
            show them, or a folder above them: no evidence of where they are.
        unclear: of what was asked about, the ids the provider says nothing of, and its words.
    """

    def __init__(
        self,
        api: Api,
        known: Known,
        roots: Collection[str],
        trusted: Callable[[Folder], bool],
        wanted: Callable[[ItemEntry], bool],
        workers: int,
    ) -> None:
        self._api = api
        self._known = known
        self._roots = roots
        self._trusted = trusted
        self._wanted = wanted
        self._workers = workers
        self._outcomes: dict[str, GoneReason | None] = {}
        self._above: set[str] | None = None
        self.refused: set[str] = set()
        self.unclear: dict[str, str] = {}

    def folders(self, ids: Sequence[str]) -> Iterator[tuple[str, FolderEntry | GoneReason]]:
        """Each folder as it is, if it is below a start folder; else why it is gone. Nothing for
        those that stay unclear."""
        for folder_id, found in self._each(self._api.folder, ids):
            if found is None:
                continue
            if not isinstance(found, FolderEntry):
                self.refused.add(folder_id)
                yield folder_id, found
            elif found.hidden:
                yield folder_id, GoneReason.DELETED
            elif folder_id in self._roots:
                yield folder_id, found
            else:
                held = self._known.folder(folder_id)
                parent_id = found.parent_id or (held.parent_id if held else None)
                reason = self._outcome_for(folder_id, parent_id)
                yield folder_id, reason or dataclasses.replace(found, parent_id=parent_id)

    def files(
        self, files: Sequence[KnownFile]
    ) -> Iterator[tuple[KnownFile, FileRecord | GoneReason]]:
        """Each file's record, if it is still in scope; else why it is gone. Nothing for those that
        stay unclear."""
        by_id = {file.external_id: file for file in files}
        for item_id, found in self._each(self._api.item, list(by_id)):
            file = by_id[item_id]
            if found is None:
                continue
            if not isinstance(found, ItemEntry):
                self.refused.add(item_id)
                yield file, found
            elif found.hidden or found.record is None:
                yield file, GoneReason.DELETED
            else:
                parent_id = found.parent_id or file.parent_id
                record = dataclasses.replace(found.record, parent_id=parent_id)
                if not self._wanted(found) and not tells_less(record, file):
                    yield file, GoneReason.OUT_OF_SCOPE
                else:
                    yield file, self._outcome_for(item_id, parent_id) or record

    def _outcome_for(self, identifier: str, parent_id: str | None) -> GoneReason | None:
        """The outcome of something in the folder ``parent_id``."""
        if parent_id is None:
            return GoneReason.OUT_OF_SCOPE
        outcome = self.outcome(parent_id)
        if parent_id in self.refused:
            self.refused.add(identifier)
        return outcome

    def outcome(self, folder_id: str) -> GoneReason | None:
        """None if the folder is, at any depth, below a start folder; else why it is not."""
        path: list[str] = []
        at: str | None = folder_id
        outcome: GoneReason | None = GoneReason.OUT_OF_SCOPE
        while at is not None:
            if at in path:
                outcome = None  # a circle: no evidence against it
                break
            path.append(at)
            if at in self._outcomes or at in self._roots:
                outcome = self._outcomes.get(at)
                if at in self.refused:
                    self.refused.update(path)
                break
            held = self._known.folder(at)
            if held is not None and self._trusted(held):
                at = held.parent_id
                continue
            seen = self._look(self._api.folder, at)
            if seen is None:
                outcome = None  # no evidence against it
                break
            if not isinstance(seen, FolderEntry):
                if at not in self._above_roots():
                    outcome = seen
                    self.refused.update(path)
                break
            if seen.hidden:
                outcome = GoneReason.DELETED
                break
            at = seen.parent_id or (held.parent_id if held else None)
        self._outcomes.update(dict.fromkeys(path, outcome))
        return outcome

    def _above_roots(self) -> set[str]:
        """The folders above the start folders, up to the first that is not shown: whoever may see
        one folder of a project cannot climb to its top. What comes up there lies elsewhere."""
        if self._above is None:
            self._above = set()
            for root in self._roots:
                seen = self._look(self._api.folder, root)
                while isinstance(seen, FolderEntry) and seen.parent_id not in {None, *self._above}:
                    at = str(seen.parent_id)
                    self._above.add(at)
                    seen = self._look(self._api.folder, at)
        return self._above

    def _each(
        self, look: Callable[[str], E], ids: Sequence[str]
    ) -> Iterator[tuple[str, E | GoneReason | None]]:
        if len(ids) < 2:
            yield from ((i, self._look(look, i)) for i in ids)
            return
        with ThreadPoolExecutor(min(self._workers, len(ids))) as pool:
            yield from zip(ids, pool.map(lambda i: self._look(look, i), ids), strict=True)

    def _look(self, look: Callable[[str], E], identifier: str) -> E | GoneReason | None:
        try:
            return look(identifier)
        except NotFoundError:
            return GoneReason.DELETED
        except ForbiddenError:
            return GoneReason.ACCESS_LOST
        except UNCLEAR as error:
            self.unclear[identifier] = error.message
            return None


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    chunk: list[T] = []
    for value in values:
        chunk.append(value)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
