"""The calls we make, by name, each with its published limit (requests a minute per client id)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

from file_connector.connectors.autodesk import mapping
from file_connector.connectors.autodesk.mapping import FolderEntry, ItemEntry
from file_connector.connectors.autodesk.transport import (
    BadInputError,
    Budget,
    Transport,
    UnreadableError,
)
from file_connector.errors import BugError, ForbiddenError, NotFoundError
from file_connector.models import Json

HUBS = Budget("hubs", 50)
TOP_FOLDERS = Budget("topFolders", 300)
FOLDER = Budget("folder", 300)
CONTENTS = Budget("contents", 300)
ITEM = Budget("item", 300)

UNCLEAR = (BadInputError, BugError, UnreadableError)
"""What tells nothing about the thing that was asked for."""

PAGE_SIZE = 200
"""The largest Autodesk allows."""
MAX_STUCK_PAGES = 3
"""So many pages in a row without anything new are a circle."""


@dataclass(slots=True)
class Page:
    """One page of a folder's contents.

    Attributes:
        served_at: the server's clock when it began to answer this listing's first page.
        first, last: whether the listing begins or ends with this page.
        unstable: the folder changed while it was being listed, twice in a row.
    """

    items: list[ItemEntry] = field(default_factory=list)
    folders: list[FolderEntry] = field(default_factory=list)
    served_at: datetime | None = None
    first: bool = False
    last: bool = False
    unstable: bool = False


class Api:
    """Data Management calls for one project.

    Args:
        project: project id with its ``b.``.
    """

    def __init__(self, transport: Transport, project: str) -> None:
        self._transport = transport
        self.project = project
        self._base = f"/data/v1/projects/{_segment(project)}"

    def hubs(self) -> tuple[list[Mapping[str, Json]], list[str]]:
        """The accounts this credential may see, and the provider's remarks about others."""
        what = "the list of hubs"
        document, _ = self._transport.get("/project/v1/hubs", HUBS, what, many=True)
        return document["data"], list(mapping.warnings(document))

    def top_folders(self, hub: str) -> list[FolderEntry]:
        """The highest folders of the project this credential may see, deleted ones included."""
        what = f"the top folders of project {self.project}"
        path = f"/project/v1/hubs/{_segment(hub)}/projects/{_segment(self.project)}/topFolders"
        document, _ = self._transport.get(path, TOP_FOLDERS, what, many=True)
        return [
            mapping.folder_entry(entry)
            for entry in document["data"]
            if entry.get("type", "folders") == "folders"
        ]

    def folder(self, folder_id: str) -> FolderEntry:
        what = f"folder {folder_id}"
        path = f"{self._base}/folders/{_segment(folder_id)}"
        document, _ = self._transport.get(path, FOLDER, what, many=False)
        return mapping.folder_entry(_about(folder_id, document["data"]))

    def item(self, item_id: str, folder_id: str | None = None) -> ItemEntry:
        """The item with its newest version."""
        what = f"item {item_id}"
        path = f"{self._base}/items/{_segment(item_id)}"
        document, _ = self._transport.get(path, ITEM, what, many=False)
        item = _about(item_id, document["data"])
        tip = mapping.tips(document).get(mapping.tip_id(item) or "")
        return mapping.item_entry(item, tip, project=self.project, folder_id=folder_id)

    def contents_below(self, folder_id: str) -> Iterator[Page]:
        """``contents`` of a folder that Autodesk itself told us of: a refusal to understand the
        question, or to be understood, is about this folder then, not about the configuration."""
        try:
            yield from self.contents(folder_id)
        except UNCLEAR as error:
            raise ForbiddenError(error.message, remedy=error.remedy) from None

    def contents(self, folder_id: str) -> Iterator[Page]:
        """The pages of a folder, deleted entries included as hidden.

        Paging is by offset, so an entry that appears twice, or a page that is not there any more,
        shows that the folder changed meanwhile and that others may have been skipped: then
        everything is listed once more. If that shows the very same entries, the folder stood still,
        and repeating them is the provider's way.
        """
        what = f"the contents of folder {folder_id}"
        path = f"{self._base}/folders/{_segment(folder_id)}/contents"
        first, served_at = True, None
        before: set[str] = set()
        for repeat in (False, True):
            url, params = path, {"includeHidden": "true", "page[limit]": str(PAGE_SIZE)}
            seen: set[str] = set()
            visited: set[str] = set()
            stable, stuck = True, 0
            while url:
                try:
                    document, answer = self._transport.get(url, CONTENTS, what, params, many=True)
                except (NotFoundError, BadInputError) as error:
                    if params:
                        raise
                    if repeat:
                        raise UnreadableError(f"a later page is refused: {error.message}") from None
                    stable = False
                    break
                if mapping.is_of_another(document, folder_id):
                    raise UnreadableError(f"reading {what}: Autodesk lists another folder.")
                if first:
                    served_at = answer.served_at
                page, ids = self._page(document, folder_id)
                stuck = stuck + 1 if ids and ids <= seen else 0
                stable = stable and seen.isdisjoint(ids)
                seen |= ids
                href = mapping.next_href(document)
                url, params = self._transport.next_url(href, answer.url) if href else "", {}
                if url in visited or stuck == MAX_STUCK_PAGES:
                    raise UnreadableError(f"reading {what}: Autodesk's paging goes in a circle.")
                visited.add(url)
                stable = stable or (not url and seen == before)
                page.first, first = first, False
                page.served_at = served_at
                page.last = not url and (stable or repeat)
                page.unstable = page.last and not stable
                yield page
            if stable:
                return
            before = seen

    def _page(self, document: Mapping[str, Json], folder_id: str) -> tuple[Page, set[str]]:
        page = Page()
        ids: set[str] = set()
        versions = mapping.tips(document)
        for entry in document["data"]:
            ids.add(entry["id"])
            if entry.get("type") == "folders":
                page.folders.append(mapping.folder_entry(entry))
            elif entry.get("type") == "items":
                page.items.append(self._listed(entry, versions, folder_id))
        return page, ids

    def _listed(
        self, entry: Mapping[str, Json], versions: Mapping[str, Json], folder_id: str
    ) -> ItemEntry:
        """An item of a listing; if its newest version is not on the page, it is looked up."""
        tip = versions.get(mapping.tip_id(entry) or "")
        item = mapping.item_entry(entry, tip, project=self.project, folder_id=folder_id)
        if tip is None and not item.hidden:
            try:
                return self.item(entry["id"], folder_id)
            except (ForbiddenError, NotFoundError, *UNCLEAR):
                return item  # one sick item must not stop its endpoint
        return item


def _about(identifier: str, found: Mapping[str, Json]) -> Mapping[str, Json]:
    """What was found, if it is what was asked for."""
    if found["id"] != identifier:
        raise UnreadableError(f"asked for {identifier}, Autodesk answered with {found['id']}.")
    return found


def _segment(identifier: str) -> str:
    return quote(identifier, safe="")
