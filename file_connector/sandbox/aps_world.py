"""The truth behind the APS provider: hubs, projects, folders, items, versions, rights.

Ids go in and out as plain strings. Nothing is ever erased: deleting hides. Nothing here knows HTTP.
"""

# ruff: noqa: A002 -- ids are called id here; accessors share one signature

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from file_connector.sandbox.world import Clock, SandboxError, World, locked, moment

USER = "AB12CD34EF56"
"""Who does what tests do without naming a user."""
CLIENT_ID = "sandbox-client"
CLIENT_SECRET = "sandbox-client-secret"
PROJECT_FILES = "Project Files"

_TIME_STYLES: dict[str, Callable[[datetime], str]] = {
    "7Z": lambda t: f"{t.isoformat(timespec='microseconds')[:26]}0Z",
    "4Z": lambda t: f"{t.isoformat(timespec='microseconds')[:24]}Z",
    "3Z": lambda t: f"{t.isoformat(timespec='milliseconds')[:23]}Z",
    "0Z": lambda t: f"{t.isoformat(timespec='seconds')[:19]}Z",
    "colon": lambda t: f"{t.isoformat(timespec='seconds')[:19]}+00:00",
    "plain": lambda t: f"{t.isoformat(timespec='seconds')[:19]}+0000",
    "3plain": lambda t: f"{t.isoformat(timespec='milliseconds')[:23]}+0000",
}


def aps_time(value: datetime, style: str = "7Z") -> str:
    """A time as APS writes it; see ``ApsWorld.time_style``."""
    return _TIME_STYLES[style](value)


@dataclass(slots=True)
class Hub:
    id: str
    name: str
    region: str
    type: str = "hubs:autodesk.bim360:Account"
    projects: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Project:
    """A project; ``status`` is active, suspended or archived."""

    id: str
    name: str
    hub: str
    root: str
    status: str = "active"
    kind: str = "ACC"
    excluded: set[str] = field(default_factory=set)
    """Users who are not members."""


@dataclass(slots=True)
class Folder:
    id: str
    name: str
    project: str
    parent: str | None
    created: datetime
    modified: datetime
    rollup: datetime
    hidden: bool = False
    user: str = USER
    attributes: dict[str, Any] = field(default_factory=dict)
    time_style: str | None = None


@dataclass(slots=True)
class Version:
    """One upload, or one other action that counts (delete, restore)."""

    number: int
    name: str
    created: datetime
    modified: datetime
    size: int | None
    mime_type: str | None = None
    user: str = USER
    deleted: bool = False
    original_name: str | None = None
    state: str = "PROCESSING_COMPLETE"
    storage: bool = True
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class ApsItem:
    id: str
    project: str
    parent: str
    created: datetime
    modified: datetime
    versions: list[Version]
    hidden: bool = False
    user: str = USER
    tip_included: bool = True
    web_view: bool = True
    attributes: dict[str, Any] = field(default_factory=dict)
    time_style: str | None = None

    @property
    def tip(self) -> Version:
        return self.versions[-1]

    @property
    def name(self) -> str:
        """The name people know, also while deleted."""
        return self.tip.original_name or self.tip.name

    def version_id(self, version: Version) -> str:
        return f"{self.id.replace('dm.lineage:', 'fs.file:vf.')}?version={version.number}"


@dataclass(slots=True)
class Client:
    """An APS app."""

    id: str
    secret: str
    api_enabled: bool = True
    hubs: set[str] | None = None
    """Hubs whose admins added the app as a custom integration; None means all."""
    scopes: frozenset[str] = frozenset(
        ("data:read", "data:search", "data:write", "data:create", "account:read")
    )


class ApsWorld(World):
    """Hubs to versions, and who sees what.

    Switches (plain attributes):
        bubble: a change moves ``lastModifiedTimeRollup`` of all ancestors (default True).
        hrefs: ``absolute`` or ``relative`` links.
        time_style: of all times: ``7Z`` (seven digits and Z, the default), ``4Z``, ``3Z``, ``0Z``,
            ``colon`` (+00:00), ``plain`` (+0000), ``3plain``, or ``mixed`` (another one each time).
        empty_users: user ids and names are "" (default False).
        harmless_warnings: region names for which hub listings carry a warning beside good hubs.
        move_touches_item: a move bumps the item's lastModifiedTime (default False: unknown).
    """

    def __init__(self, clock: Clock | None = None, seed: int = 11) -> None:
        super().__init__(clock or Clock(), seed)
        self.hubs: dict[str, Hub] = {}
        self.projects: dict[str, Project] = {}
        self.folders: dict[str, Folder] = {}
        self.items: dict[str, ApsItem] = {}
        self.children: dict[str, dict[str, None]] = {}
        self.clients: dict[str, Client] = {}
        self.users: dict[str, str] = {USER: "Ana Roe"}
        self.bubble = True
        self.hrefs = "absolute"
        self.time_style = "7Z"
        self.empty_users = False
        self.harmless_warnings: list[str] = []
        self.move_touches_item = False
        self._denied: dict[str, set[str | None]] = {}
        self._granted: dict[str, set[str | None]] = {}
        self._refused: dict[str, set[str | None]] = {}
        self._sorted: dict[str, list[str]] = {}
        self._mixed = 0
        self.add_client(CLIENT_ID, CLIENT_SECRET)

    # -- people, apps, hubs, projects ------------------------------------------------------------
    @locked
    def add_client(
        self, id: str, secret: str, *, hubs: Iterable[str] | None = None, api_enabled: bool = True
    ) -> str:
        """An app; ``hubs`` lists the accounts that added it (None: every one)."""
        self.clients[id] = Client(
            id, secret, api_enabled=api_enabled, hubs=None if hubs is None else set(hubs)
        )
        return id

    @locked
    def add_user(self, id: str, name: str) -> str:
        """A person or secure service account."""
        self.users[id] = name
        return id

    @locked
    def add_hub(
        self,
        name: str = "Sandbox Construction",
        *,
        id: str | None = None,
        region: str = "US",
        type: str = "hubs:autodesk.bim360:Account",
    ) -> str:
        """An account. Returns its id, ``b.<guid>``."""
        hub_id = id or f"b.{self.new_guid()}"
        self.hubs[hub_id] = Hub(hub_id, name, region, type)
        return hub_id

    @locked
    def add_project(
        self,
        name: str = "Tower 42",
        hub: str | None = None,
        *,
        id: str | None = None,
        kind: str = "ACC",
    ) -> str:
        """A project with Project Files and system folders; returns its id, ``b.<guid>``.

        Without ``hub`` it goes to the first hub, which is made if there is none. ``kind`` is ACC or
        BIM360.
        """
        hub_id = hub or next(iter(self.hubs), None) or self.add_hub()
        project_id = id or f"b.{self.new_guid()}"
        root = self._new_folder(f"{project_id.removeprefix('b.')}-root-folder", project_id, None)
        self.projects[project_id] = Project(project_id, name, self._hub(hub_id).id, root, kind=kind)
        self.hubs[hub_id].projects.append(project_id)
        for system in (PROJECT_FILES, "Photos", "ProjectTb"):
            self._new_folder(system, project_id, root)
        return project_id

    @locked
    def set_status(self, project: str, status: str) -> None:
        """``active``, ``suspended`` or ``archived``."""
        self._project(project).status = status

    @locked
    def set_provisioned(self, client: str, hubs: Iterable[str] | None) -> None:
        """Which accounts added the app (None: all; empty: none)."""
        self.clients[client].hubs = None if hubs is None else set(hubs)

    @locked
    def project_files(self, project: str) -> str:
        """Id of the project's "Project Files" folder."""
        return self.top_folder(project, PROJECT_FILES)

    @locked
    def top_folder(self, project: str, name: str) -> str:
        """Id of a top folder by name."""
        for child in self.children[self._project(project).root]:
            if child in self.folders and self.folders[child].name == name:
                return child
        raise SandboxError(f"project {project} has no top folder {name!r}")

    # -- making things ---------------------------------------------------------------------------
    @locked
    def add_folder(
        self,
        name: str,
        parent: str,
        *,
        id: str | None = None,
        created: datetime | str | None = None,
        user: str = USER,
    ) -> str:
        """A new folder in a folder; returns its id. ``parent`` may be a project (its root)."""
        folder = self._folder(self._root(parent))
        now = self.clock.tick()
        folder_id = self._new_folder(
            name, folder.project, folder.id, id=id, created=moment(created, now), user=user
        )
        self._bubble(folder.id, now)
        return folder_id

    @locked
    def add_item(
        self,
        name: str,
        parent: str,
        *,
        id: str | None = None,
        size: int | None = 1000,
        created: datetime | str | None = None,
        modified: datetime | str | None = None,
        mime_type: str | None = None,
        user: str = USER,
        state: str = "PROCESSING_COMPLETE",
        storage: bool = True,
        tip_included: bool = True,
        web_view: bool = True,
    ) -> str:
        """A new file with version 1; returns its id (``urn:...dm.lineage:...``).

        ``created``/``modified`` may lie in the past (copied or moved in with its old times). Odd
        ones: ``storage`` False (no storage, size, file type), ``tip_included`` False (its version
        is missing from ``included``), ``state`` e.g. PROCESSING, ``web_view`` False (no link).
        """
        folder = self._folder(parent)
        now = self.clock.tick()
        made = moment(created, now)
        item_id = id or f"urn:adsk.wipprod:dm.lineage:{self.new_id(22)}"
        if item_id in self.items:
            raise SandboxError(f"there is an item {item_id!r} already")
        changed = moment(modified, made)
        version = Version(
            1, name, made, changed, size, mime_type, user=user, state=state, storage=storage
        )
        self.items[item_id] = ApsItem(
            item_id,
            folder.project,
            parent,
            made,
            changed,
            [version],
            user=user,
            tip_included=tip_included,
            web_view=web_view,
        )
        self._place(parent, item_id)
        self._bubble(parent, now)
        return item_id

    add_file = add_item

    @locked
    def add_items(self, count: int, parent: str, *, name: str = "file {n:06d}.pdf") -> list[str]:
        """Many files at once with the same times (one tick of the clock). Returns their ids."""
        folder = self._folder(parent)
        now = self.clock.tick()
        ids = []
        for n in range(count):
            item_id = f"urn:adsk.wipprod:dm.lineage:{self.new_id(22)}"
            version = Version(1, name.format(n=n), now, now, 1000 + n)
            self.items[item_id] = ApsItem(item_id, folder.project, parent, now, now, [version])
            self.children[parent][item_id] = None
            ids.append(item_id)
        self._sorted.pop(parent, None)
        self._bubble(parent, now)
        return ids

    # -- changing things -------------------------------------------------------------------------
    @locked
    def upload(
        self,
        item: str,
        *,
        name: str | None = None,
        size: int | None = None,
        modified: datetime | str | None = None,
        user: str = USER,
    ) -> str:
        """A new version of a file; returns the version's id."""
        it = self._living(item)
        now = self.clock.tick()
        tip = it.tip
        changed = moment(modified, now)
        it.versions.append(
            replace(
                tip,
                number=tip.number + 1,
                name=name or it.name,
                created=now,
                modified=changed,
                size=size if size is not None else (tip.size or 0) + 10,
                user=user,
                deleted=False,
                original_name=None,
                attributes=dict(tip.attributes),
            )
        )
        it.modified, it.user = changed, user
        self._sorted.pop(it.parent, None)
        self._bubble(it.parent, now)
        return it.version_id(it.tip)

    @locked
    def process(self, item: str, seconds: float = 5) -> None:
        """Processing touches a file: its times rise, without a new version."""
        it = self._living(item)
        now = self.clock.advance(seconds) if not self.clock.live else self.clock.now()
        it.modified = it.tip.modified = now
        it.tip.state = "PROCESSING_COMPLETE"
        it.tip.storage = True
        self._bubble(it.parent, now)

    @locked
    def rename(self, id: str, name: str, *, touch: bool = True) -> None:
        """Rename a file (its tip's name) or a folder; ``touch`` moves its lastModifiedTime."""
        now = self.clock.tick()
        if id in self.folders:
            folder = self.folders[id]
            folder.name = name
            folder.modified = now if touch else folder.modified
            self._sorted.pop(folder.parent or "", None)
            self._bubble(id, now)
            return
        it = self._living(id)
        it.tip.name = name
        if touch:
            it.modified = it.tip.modified = now
        self._sorted.pop(it.parent, None)
        self._bubble(it.parent, now)

    @locked
    def move(self, id: str, parent: str) -> None:
        """Into another folder of the same project; rollups move on both sides."""
        target = self._folder(parent)
        if id == parent or id in self._chain(parent):
            raise SandboxError("a folder cannot move into itself")
        now = self.clock.tick()
        node: Folder | ApsItem = self.folders[id] if id in self.folders else self._item(id)
        if node.project != target.project:
            raise SandboxError("things do not move between projects; copy them")
        if node.parent is not None:
            self.children[node.parent].pop(id, None)
            self._sorted.pop(node.parent, None)
            self._bubble(node.parent, now)
        node.parent = parent
        self._place(parent, id)
        if self.move_touches_item:
            node.modified = now
            if isinstance(node, Folder):
                node.rollup = now
        self._bubble(parent, now)

    @locked
    def delete(self, id: str) -> None:
        """Delete a file (one more version, hidden) or a folder (hidden, its children are not)."""
        now = self.clock.tick()
        if id in self.folders:
            folder = self.folders[id]
            folder.hidden, folder.modified = True, now
            self._bubble(id, now)
            return
        it = self._living(id)
        it.versions.append(
            Version(
                it.tip.number + 1,
                self.new_guid(),
                now,
                now,
                None,
                user="",
                deleted=True,
                original_name=it.name,
                storage=False,
            )
        )
        it.hidden, it.modified = True, now
        self._sorted.pop(it.parent, None)
        self._bubble(it.parent, now)

    @locked
    def restore(self, id: str) -> None:
        """Undo ``delete``: a file gets version n+2, copied from its last good one."""
        now = self.clock.tick()
        if id in self.folders:
            folder = self.folders[id]
            folder.hidden, folder.modified = False, now
            self._bubble(id, now)
            return
        it = self._item(id)
        if not it.hidden:
            raise SandboxError(f"{it.name!r} is not deleted")
        good = next(v for v in reversed(it.versions) if not v.deleted)
        it.versions.append(replace(good, number=it.tip.number + 1, created=now, modified=now))
        it.hidden, it.modified = False, now
        self._sorted.pop(it.parent, None)
        self._bubble(it.parent, now)

    @locked
    def backdate(
        self,
        id: str,
        *,
        modified: datetime | str | None = None,
        created: datetime | str | None = None,
    ) -> None:
        """Set a file's times without a trace in any rollup."""
        it = self._item(id)
        it.modified = it.tip.modified = moment(modified, it.modified)
        it.created = moment(created, it.created)

    @locked
    def override(
        self, id: str, *, time_style: str | None = None, version: bool = False, **attributes: Any
    ) -> None:
        """Answer with these attributes of a folder, item or (``version``) its tip, whatever they
        should be; None leaves one out. ``time_style`` sets how its times are written."""
        node: Folder | ApsItem = self.folders[id] if id in self.folders else self._item(id)
        node.time_style = time_style or node.time_style
        target = node.tip if version and isinstance(node, ApsItem) else node
        target.attributes.update(attributes)
        if "name" in attributes or "displayName" in attributes:
            self._sorted.pop(node.parent or "", None)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Mutations inside move no rollup."""
        before, self.bubble = self.bubble, False
        try:
            yield
        finally:
            self.bubble = before

    # -- rights ----------------------------------------------------------------------------------
    @locked
    def deny(self, folder: str, who: str | None = None) -> None:
        """Hide a folder and all below from a user or client id (None: everyone); no time moves."""
        self._granted.get(folder, set()).discard(who)
        self._denied.setdefault(folder, set()).add(who)

    @locked
    def grant(self, folder: str, who: str | None = None) -> None:
        """Show a folder and all below to someone: undoes ``deny``, or pierces one further up."""
        self._denied.get(folder, set()).discard(who)
        self._granted.setdefault(folder, set()).add(who)

    @locked
    def refuse(self, folder: str, who: str | None = None) -> None:
        """The folder stays listed in its parent, but asking for it or its contents gives 403."""
        self._refused.setdefault(folder, set()).add(who)

    @locked
    def unrefuse(self, folder: str, who: str | None = None) -> None:
        """End ``refuse``."""
        self._refused.get(folder, set()).discard(who)

    @locked
    def exclude(self, project: str, user: str) -> None:
        """Take a user out of a project."""
        self._project(project).excluded.add(user)

    @locked
    def include(self, project: str, user: str) -> None:
        """Put a user back into a project."""
        self._project(project).excluded.discard(user)

    def refused(self, folder: str, who: str | None) -> bool:
        """Whether ``refuse`` holds for the folder or one above it."""
        return any({who, None} & self._refused.get(one, set()) for one in self._chain(folder))

    def may_see(self, folder: str, who: str | None) -> bool:
        """Whether the nearest word on the folder or above it allows it."""
        for one in self._chain(folder):
            if {who, None} & self._granted.get(one, set()):
                return True
            if {who, None} & self._denied.get(one, set()):
                return False
        return True

    # -- reading ---------------------------------------------------------------------------------
    @locked
    def top_folders(self, project: str, who: str | None) -> list[str]:
        """The highest folders this caller may see, deleted ones too."""
        found: list[str] = []
        waiting = [f for f in self.children[self._project(project).root] if f in self.folders]
        for folder in waiting:
            if self.may_see(folder, who):
                found.append(folder)
            else:
                waiting.extend(f for f in self.children[folder] if f in self.folders)
        return found

    @locked
    def entries(self, folder: str) -> list[str]:
        """Ids of everything directly inside, hidden or not: folders, then items, by name."""
        known = self._sorted.get(folder)
        if known is None:
            known = self._sorted[folder] = sorted(self.children[folder], key=self._sort_key)
        return known

    @locked
    def path(self, item: str) -> str:
        """``/Project Files/a/b`` of a file's folder."""
        chain = list(self._chain(self._item(item).parent))[:-1]
        return "".join(f"/{self.folders[one].name}" for one in reversed(chain))

    @locked
    def below(self, folder: str) -> list[str]:
        """Ids of everything below a folder, hidden or not."""
        found = list(self.children.get(self._root(folder), ()))
        for one in found:
            found.extend(self.children.get(one, ()))
        return found

    @locked
    def truth(self, top: str, who: str | None = None) -> dict[str, ApsItem]:
        """What a complete, careful observer sees now under a folder or project: item id -> item.

        Left out: deleted files, files below deleted or invisible folders. Empty if ``top`` itself
        is deleted or invisible.
        """
        top = self._root(top)
        found: dict[str, ApsItem] = {}
        if any(self.folders[one].hidden for one in self._chain(top)):
            return found
        waiting = [top]
        for folder in waiting:
            for child in self.children[folder]:
                if child in self.items:
                    item = self.items[child]
                    if not item.hidden and self.may_see(folder, who):
                        found[child] = replace(item, versions=list(item.versions))
                elif not self.folders[child].hidden:
                    waiting.append(child)
        return found

    @locked
    def item(self, id: str) -> ApsItem:
        """A copy of an item; raises SandboxError if there is none."""
        it = self._item(id)
        return replace(it, versions=[replace(v) for v in it.versions])

    @locked
    def folder(self, id: str) -> Folder:
        """A copy of a folder; raises SandboxError if there is none."""
        return replace(self._folder(id))

    def style(self, own: str | None) -> str:
        """The time style for one resource."""
        style = own or self.time_style
        if style == "mixed":
            self._mixed += 1
            return list(_TIME_STYLES)[self._mixed % len(_TIME_STYLES)]
        return style

    # -- inside ----------------------------------------------------------------------------------
    def _hub(self, id: str) -> Hub:
        if id not in self.hubs:
            raise SandboxError(f"no hub {id!r}")
        return self.hubs[id]

    def _project(self, id: str) -> Project:
        if id not in self.projects:
            raise SandboxError(f"no project {id!r}")
        return self.projects[id]

    def _root(self, id: str) -> str:
        return self.projects[id].root if id in self.projects else id

    def _folder(self, id: str) -> Folder:
        if id not in self.folders:
            raise SandboxError(f"no folder {id!r}")
        return self.folders[id]

    def _item(self, id: str) -> ApsItem:
        if id not in self.items:
            raise SandboxError(f"no item {id!r}")
        return self.items[id]

    def _living(self, id: str) -> ApsItem:
        item = self._item(id)
        if item.hidden:
            raise SandboxError(f"{item.name!r} is deleted: restore it first")
        return item

    def _chain(self, folder: str) -> Iterator[str]:
        """The folder and all above it."""
        at: str | None = folder
        while at is not None:
            yield at
            at = self.folders[at].parent

    def _new_folder(
        self,
        name: str,
        project: str,
        parent: str | None,
        *,
        id: str | None = None,
        created: datetime | None = None,
        user: str = USER,
    ) -> str:
        folder_id = id or f"urn:adsk.wipprod:fs.folder:co.{self.new_id(22)}"
        if folder_id in self.folders:
            raise SandboxError(f"there is a folder {folder_id!r} already")
        made = created or self.clock.now()
        self.folders[folder_id] = Folder(
            folder_id, name, project, parent, made, made, made, user=user
        )
        self.children[folder_id] = {}
        if parent is not None:
            self._place(parent, folder_id)
        return folder_id

    def _place(self, parent: str, id: str) -> None:
        self.children[parent][id] = None
        self._sorted.pop(parent, None)

    def _bubble(self, folder: str | None, now: datetime) -> None:
        """A change inside ``folder``: the rollups of it and all above move."""
        if folder is None or not self.bubble:
            return
        for one in self._chain(folder):
            self.folders[one].rollup = now

    def _sort_key(self, id: str) -> tuple[int, str, str]:
        if id in self.folders:
            return (0, self.folders[id].name.casefold(), id)
        return (1, self.items[id].name.casefold(), id)
