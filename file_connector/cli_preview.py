"""The work of ``file-connector preview``: the start of a complete listing, kept in memory only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from file_connector.connectors.base import Connector
from file_connector.models import Batch, Blind, FileRecord, Folder, KnownFile


class Scratch:
    """What a listing has told so far; a ``Known`` that forgets everything afterwards."""

    def __init__(self) -> None:
        self._folders: dict[str, Folder] = {}
        self._files: dict[str, KnownFile] = {}

    def apply(self, batch: Batch) -> None:
        for folder in batch.folders:
            self._folders[folder.folder_id] = folder
        for r in batch.records:
            self._files[r.external_id] = KnownFile(
                r.external_id, r.title, r.parent_id, r.version, r.updated_at
            )
        for gone in batch.folders_gone:
            self._folders.pop(gone.folder_id, None)

    def folder(self, folder_id: str) -> Folder | None:
        return self._folders.get(folder_id)

    def folders(self) -> Iterator[Folder]:
        return iter(list(self._folders.values()))

    def subfolders(self, parent_id: str) -> Sequence[Folder]:
        return [f for f in self._folders.values() if f.parent_id == parent_id]

    def files(self, external_ids: Collection[str]) -> Mapping[str, KnownFile]:
        return {i: self._files[i] for i in external_ids if i in self._files}

    def files_in(self, folder_id: str) -> Sequence[KnownFile]:
        return [f for f in self._files.values() if f.parent_id == folder_id]

    def live_count(self) -> int:
        return len(self._files)


def first_files(connector: Connector, on_blind: Callable[[Blind], None]) -> Iterator[FileRecord]:
    """The files of a complete listing as they come, each once; take as many as you like."""
    known = Scratch()
    for batch in connector.sweep(known, None, 1):
        for blind in batch.blind:
            on_blind(blind)
        fresh = [r for r in batch.records if not known.files([r.external_id])]
        known.apply(batch)
        yield from fresh
