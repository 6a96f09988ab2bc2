"""Listing: one query page by page, and folders by several parents per query.

Pages are fetched ahead in the background while the consumer stores what it has. A query with
several parents is not trusted when it says "nothing": Drive sometimes leaves whole parents out, so
every parent that came back empty is listed once more, alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from urllib.parse import quote_plus

from file_connector.connectors.google_drive.answers import PageRefusedError
from file_connector.connectors.google_drive.client import DriveClient, FilePage, Item
from file_connector.connectors.google_drive.mapping import FOLDER, parents_of
from file_connector.errors import ForbiddenError, NotFoundError, TransientError
from file_connector.models import Json

MAX_PARENTS = 30
MAX_QUERY_CHARS = 1100
"""Of the encoded ``q``: leaves room for the field mask and a page token below 2,048 characters of
URL, where the client would turn the GET into a POST."""

MAX_RESTARTS = 3


@dataclass(frozen=True, slots=True)
class Root:
    """Where an endpoint's files are, and which change log tells about them.

    Attributes:
        id: the top folder; equals ``in_drive`` for a whole shared drive.
        drive_id: the shared drive whose own log is read; None: the user's log.
        in_drive: the shared drive the folder lies in, if it does.
    """

    id: str
    drive_id: str | None
    in_drive: str | None

    @classmethod
    def of(cls, cursor: Mapping[str, Json]) -> Root:
        return cls(cursor["root"], cursor["drive_id"], cursor["in_drive"])

    def cursor(self, token: str) -> dict[str, Json]:
        """The cursor that means ``token`` in this root's log."""
        return {
            "v": 1,
            "token": token,
            "drive_id": self.drive_id,
            "in_drive": self.in_drive,
            "root": self.id,
        }

    def query(self, q: str) -> dict[str, str]:
        """Parameters of a listing: only the corpus that holds all we want."""
        if self.drive_id:
            return {"q": q, "corpora": "drive", "driveId": self.drive_id}
        if self.in_drive:
            return {"q": q, "corpora": "allDrives"}
        return {"q": q}

    def children(self, parents: Sequence[str]) -> dict[str, str]:
        """Everything alive directly inside any of ``parents``."""
        terms = " or ".join(f"{quoted(parent)} in parents" for parent in parents)
        if len(parents) > 1:  # `and` and `or` have no agreed precedence
            terms = f"({terms})"
        return self.query(f"{terms} and trashed = false")


ONLY_FOLDERS = f"mimeType = '{FOLDER}' and trashed = false"
NO_FOLDERS = f"mimeType != '{FOLDER}' and trashed = false"


def quoted(value: str) -> str:
    """A text constant of Drive's query language."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


class Pages:
    """One listing. A page token that is refused, or comes twice, starts it again from page one.

    Args:
        token: go on from this page; only with the identical query it was given for.
    """

    def __init__(
        self, client: DriveClient, query: Mapping[str, str], token: str | None = None
    ) -> None:
        self.query = query
        self.token = token
        self.done = False
        self._client = client
        self._met: set[str] = set()
        self._restarts = 0
        self._pending: Future[FilePage] | None = None

    def ahead(self) -> None:
        """Start fetching the next page."""
        if self._pending is None and not self.done:
            self._pending = self._client.files_ahead(self.query, self.token)

    def cancel(self) -> None:
        """Throw away what was fetched ahead."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def next(self) -> FilePage:
        """The next page; ``done`` tells whether it was the last."""
        while True:
            self.ahead()
            pending, self._pending = self._pending, None
            assert pending is not None
            try:
                page = pending.result()
            except PageRefusedError as error:
                self._restart(error.message)
                continue
            if page.next_token in self._met:
                self._restart("Drive gave the same page token twice.")
                continue
            break
        self.token = page.next_token
        if page.next_token:
            self._met.add(page.next_token)
        else:
            self.done = True
        return page

    def _restart(self, why: str) -> None:
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise TransientError(f"a listing was started anew too often: {why}")
        self.token = None
        self._met.clear()


INCOMPLETE = "Drive could not search it completely."
NOT_LISTED = "Drive does not list it."
"""Why a folder is blind although nobody refused it: ``incompleteSearch`` (files.list)."""


@dataclass(slots=True)
class Step:
    """What one page told.

    Attributes:
        items: what lies in the folders, each with the id of its parent.
        listed: folders whose content is now completely told.
        blind: folders that may not be seen, with the reason.
        missing: folders Drive does not know (any more).
    """

    items: list[tuple[Item, str]] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    blind: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class Walk:
    """Lists folders, many per query, in the order they were added. Adding one twice is harmless.

    Use: ``while step := walk.step()``: process it, ``add`` the folders found, then ``ahead``.
    """

    def __init__(self, client: DriveClient, root: Root, folder_ids: Iterable[str] = ()) -> None:
        self._client = client
        self._root = root
        self._queue: deque[str] = deque()
        self._alone: deque[str] = deque()
        self._met: set[str] = set()
        self._parents: tuple[str, ...] = ()
        self._answered: set[str] = set()
        self._incomplete = False
        self._pages: Pages | None = None
        for folder_id in folder_ids:
            self.add(folder_id)

    def add(self, folder_id: str) -> None:
        """One more folder to list."""
        if folder_id not in self._met:
            self._met.add(folder_id)
            self._queue.append(folder_id)

    @property
    def position(self) -> Json:
        """Where a half-read query stands; None between queries."""
        if self._pages is None or self._pages.token is None:
            return None
        return {
            "parents": list(self._parents),
            "query": dict(self._pages.query),
            "page": self._pages.token,
            "answered": sorted(self._answered),
        }

    def resume(self, position: Json) -> None:
        """Go on with a half-read query, if all its folders still wait and it is the identical
        query."""
        if not position:
            return
        parents = tuple(position["parents"])
        query = self._root.children(parents)
        if query != position["query"] or not set(parents) <= set(self._queue):
            return
        self._queue = deque(f for f in self._queue if f not in parents)
        self._open(parents, position["page"], position["answered"])

    def ahead(self) -> None:
        """Start fetching the next page, of this query or of the next one."""
        if self._pages is None:
            if self._alone:
                self._open((self._alone.popleft(),))
            elif self._queue:
                self._open(self._group())
        if self._pages is not None:
            self._pages.ahead()

    def cancel(self) -> None:
        """Throw away what was fetched ahead."""
        if self._pages is not None:
            self._pages.cancel()

    def step(self) -> Step | None:
        """The next page; None when all folders are listed."""
        self.ahead()
        pages, parents = self._pages, self._parents
        if pages is None:
            return None
        together = len(parents) > 1
        try:
            page = pages.next()
        except (ForbiddenError, NotFoundError) as error:
            self._pages = None
            if together:  # one of them is to blame: ask for each alone
                self._alone.extend(parents)
                return Step()
            if isinstance(error, NotFoundError):
                return Step(missing=[parents[0]])
            return Step(blind=[(parents[0], error.message)])
        step = Step()
        for item in page.items:
            parent = self._parent(item)
            if parent is not None:
                step.items.append((item, parent))
                self._answered.add(parent)
        # an item that names no parent could lie in any of several: ask for each alone
        homeless = together and any(not parents_of(item) for item in page.items)
        self._incomplete = self._incomplete or page.incomplete or homeless
        if self._incomplete and together:
            pages.cancel()
            self._pages = None
            self._alone.extend(parents)
        elif pages.done:
            self._pages = None
            if self._incomplete:
                step.blind = [(parents[0], INCOMPLETE)]
            else:
                step.listed = [p for p in parents if p in self._answered or not together]
                self._alone.extend(p for p in parents if p not in self._answered and together)
        return step

    def _parent(self, item: Item) -> str | None:
        """Which of the folders asked for holds the item; None: it does not belong here."""
        told = parents_of(item)
        if not told:
            # a parent we asked for is visible to us, so only one question can have no parent told
            return self._parents[0] if len(self._parents) == 1 else None
        return next((p for p in told if p in self._parents), None)

    def _open(
        self, parents: tuple[str, ...], token: str | None = None, answered: Collection[str] = ()
    ) -> None:
        self._parents = parents
        self._answered = set(answered)
        self._incomplete = False
        self._pages = Pages(self._client, self._root.children(parents), token)

    def _group(self) -> tuple[str, ...]:
        """As many waiting folders as one query bears."""
        group = [self._queue.popleft()]
        while self._queue and len(group) < MAX_PARENTS:
            larger = [*group, self._queue[0]]
            if len(quote_plus(self._root.children(larger)["q"])) > MAX_QUERY_CHARS:
                break
            group.append(self._queue.popleft())
        return tuple(group)
