"""The truth behind the Drive provider: items, who sees them, and what the change logs say.

Ids go in and out as plain strings. Times default to the world's clock. Nothing here knows HTTP.
"""

# ruff: noqa: A002, ARG001, ARG005 -- ids are called id here; accessors share one signature

from __future__ import annotations

import bisect
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from file_connector.sandbox.world import Clock, SandboxError, World, drive_time, locked, moment

FOLDER = "application/vnd.google-apps.folder"
SHORTCUT = "application/vnd.google-apps.shortcut"
DOCUMENT = "application/vnd.google-apps.document"
SPREADSHEET = "application/vnd.google-apps.spreadsheet"
PRESENTATION = "application/vnd.google-apps.presentation"

OWNER = "owner@example.com"
"""Who owns what tests create without naming an owner."""

_NATIVE_PATHS = {
    DOCUMENT: "document",
    SPREADSHEET: "spreadsheets",
    PRESENTATION: "presentation",
}


_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True)
class Item:
    """A file, folder or shortcut as it truly is."""

    id: str
    name: str
    mime_type: str
    parent: str | None
    drive: str | None
    owner: str | None
    created: datetime
    modified: datetime
    version: int = 1
    revision: int = 1
    """Rises with new content only."""
    size: int | None = None
    trashed: bool = False
    target: str | None = None
    editor: str | None = None
    shares: Mapping[str, datetime] = field(default_factory=lambda: _NOTHING)
    accessed: frozenset[str] = frozenset()
    viewed: Mapping[str, datetime] = field(default_factory=lambda: _NOTHING)
    overrides: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    starred: bool = False
    restricted: bool = False
    """Permissions are not inherited from the parent."""

    @property
    def is_folder(self) -> bool:
        return self.mime_type == FOLDER

    @property
    def native(self) -> bool:
        return self.mime_type.startswith("application/vnd.google-apps.")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a change log: which item (or drive), when, at what position."""

    seq: int
    key: str
    time: datetime

    @property
    def is_drive(self) -> bool:
        return self.key.startswith("drive:")


class ChangeLog:
    """One live entry per item: a later change replaces the earlier one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.last = 100
        self._lines: list[Entry] = []
        self._seqs: list[int] = []
        self._live: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._live)

    def add(self, key: str, time: datetime) -> None:
        """Note a change of ``key``."""
        self.last += 1
        self._lines.append(Entry(self.last, key, time))
        self._seqs.append(self.last)
        self._live[key] = self.last
        if len(self._lines) > 64 + 2 * len(self._live):
            self._lines = [line for line in self._lines if self._live[line.key] == line.seq]
            self._seqs = [line.seq for line in self._lines]

    def after(self, seq: int) -> Iterator[Entry]:
        """Live entries beyond position ``seq``, oldest first."""
        for at in range(bisect.bisect_right(self._seqs, seq), len(self._lines)):
            line = self._lines[at]
            if self._live[line.key] == line.seq:
                yield line


class Sight:
    """What one account sees; remembers answers about folders, so use it for one question only."""

    def __init__(self, world: DriveWorld, account: str) -> None:
        self.world = world
        self.account = account
        self._seen: dict[str, bool] = {}
        self._trashed: dict[str, bool] = {}

    def sees(self, item: Item) -> bool:
        """Whether the account may read the item."""
        account = self.account
        if item.owner == account or account in item.shares:
            return True
        if item.parent is None:
            return item.drive is not None and account in self.world.drives[item.drive].members
        return not item.restricted and self._sees_folder(item.parent)

    def _sees_folder(self, folder_id: str) -> bool:
        known = self._seen.get(folder_id)
        if known is None:
            folder = self.world.items.get(folder_id)
            known = self._seen[folder_id] = folder is not None and self.sees(folder)
        return known

    def trashed(self, item: Item) -> bool:
        """Trashed itself, or below something trashed."""
        if item.trashed:
            return True
        if item.parent is None:
            return False
        known = self._trashed.get(item.parent)
        if known is None:
            folder = self.world.items.get(item.parent)
            known = folder is not None and self.trashed(folder)
            self._trashed[item.parent] = known
        return known

    def lists(self, item: Item) -> bool:
        """Visible in files.list: as ``sees``, but trash shows to its owner and drive members."""
        if not self.sees(item):
            return False
        if not self.trashed(item) or not self.world.trash_hidden_from_readers:
            return True
        if item.drive is not None:
            return self.account in self.world.drives[item.drive].members
        return item.owner == self.account


@dataclass
class SharedDrive:
    """A shared drive; its top folder is the item with the same id."""

    id: str
    name: str
    created: datetime
    members: dict[str, str] = field(default_factory=dict)
    """E-mail address -> role."""


class DriveWorld(World):
    """Files, folders, shared drives, people, and their change logs.

    Switches (plain attributes):
        trash_hidden_from_readers: files.list shows trash only to its owner (default True).
        log_descendants: a change of a My Drive folder's place or permissions also logs everything
            below it (default False: only the folder, the harder case).
        paging: ``snapshot`` (a listing goes on over what it held at page one) or ``live`` (every
            page is an offset into the list as it is now: items repeat and go missing).
        order: of listings without orderBy: ``newest`` or ``arbitrary``.
        page_cap: upper limit of items per page of files.list, below what was asked (None: none).
        changes_cap: the same for changes.list.
    """

    def __init__(self, clock: Clock | None = None, seed: int = 7) -> None:
        super().__init__(clock or Clock(), seed)
        self.items: dict[str, Item] = {}
        self.children: dict[str, dict[str, None]] = {}
        self.drives: dict[str, SharedDrive] = {}
        self.users: dict[str, str] = {}
        """E-mail address -> display name."""
        self.roots: dict[str, str] = {}
        self.forbidden: dict[str, set[str]] = {}
        self.trash_hidden_from_readers = True
        self.log_descendants = False
        self.paging = "snapshot"
        self.order = "newest"
        self.page_cap: int | None = None
        self.changes_cap: int | None = None
        self._logs: dict[str, ChangeLog] = {}
        self._unlogged = 0
        self._held: dict[str, Item | None] | None = None
        self._held_lines: list[tuple[str, str, datetime]] = []
        self.add_user(OWNER, "Olive Owner")

    # -- people and drives -----------------------------------------------------------------------
    @locked
    def add_user(self, email: str, name: str | None = None) -> str:
        """A person or service account, with a My Drive of its own; adding twice is harmless."""
        if email not in self.users:
            self.users[email] = name or email.partition("@")[0].replace(".", " ").title()
            root = f"0A{hashlib.sha256(email.encode()).hexdigest()[:11]}Uk9PVA"
            self.roots[email] = root
            now = self.clock.now()
            self.items[root] = Item(root, "My Drive", FOLDER, None, None, email, now, now)
            self.children[root] = {}
        return email

    @locked
    def add_drive(
        self, name: str, *, id: str | None = None, members: Iterable[str] = (), log: bool = True
    ) -> str:
        """A shared drive; its id is also the id of its top folder."""
        now = self.clock.tick()
        drive_id = id or f"0A{self.new_id(15)}UK9PVA"
        self.drives[drive_id] = SharedDrive(drive_id, name, now)
        self._put(Item(drive_id, name, FOLDER, None, drive_id, None, now, now))
        for member in members:
            self.add_member(drive_id, member)
        return drive_id

    @locked
    def add_member(self, drive: str, email: str, role: str = "reader") -> None:
        """Make someone a member of a shared drive: one ``drive`` entry in that user's log."""
        self.add_user(email)
        now = self.clock.tick()
        self._drive(drive).members[email] = role
        self._write(f"user:{email}", f"drive:{drive}", now)

    @locked
    def remove_member(self, drive: str, email: str) -> None:
        """End a membership: one removed ``drive`` entry in that user's log."""
        now = self.clock.tick()
        self._drive(drive).members.pop(email, None)
        self._write(f"user:{email}", f"drive:{drive}", now)

    @locked
    def rename_drive(self, drive: str, name: str) -> None:
        """Rename a shared drive."""
        now = self.clock.tick()
        self._drive(drive).name = name
        self.items[drive].name = name
        for email in self._drive(drive).members:
            self._write(f"user:{email}", f"drive:{drive}", now)
        self._write(f"drive:{drive}", f"drive:{drive}", now)

    @locked
    def delete_drive(self, drive: str) -> None:
        """Delete a shared drive with everything in it."""
        now = self.clock.tick()
        members = list(self._drive(drive).members)
        for item_id in [*self.below(drive), drive]:
            self._drop(item_id)
        del self.drives[drive]
        for email in members:
            self._write(f"user:{email}", f"drive:{drive}", now)

    # -- making things ---------------------------------------------------------------------------
    @locked
    def add_folder(
        self,
        name: str,
        parent: str | None = None,
        *,
        id: str | None = None,
        owner: str | None = None,
        created: datetime | str | None = None,
        modified: datetime | str | None = None,
        shared_with: Iterable[str] = (),
    ) -> str:
        """A new folder; without ``parent`` in the owner's My Drive. Returns its id."""
        return self._make(name, parent, FOLDER, id, owner, created, modified, shared_with)

    @locked
    def add_file(
        self,
        name: str,
        parent: str | None = None,
        *,
        id: str | None = None,
        mime_type: str = "application/pdf",
        size: int | None = 1000,
        owner: str | None = None,
        by: str | None = None,
        created: datetime | str | None = None,
        modified: datetime | str | None = None,
        shared_with: Iterable[str] = (),
    ) -> str:
        """A new file; ``created`` and ``modified`` may lie in the past (a backdated upload).

        ``by`` is the last modifying user (default: the owner). Returns its id.
        """
        return self._make(
            name, parent, mime_type, id, owner, created, modified, shared_with, size=size, by=by
        )

    @locked
    def add_shortcut(
        self, name: str, target: str, parent: str | None = None, *, id: str | None = None
    ) -> str:
        """A shortcut to ``target`` (which may be missing, a folder, or its own ancestor)."""
        return self._make(name, parent, SHORTCUT, id, None, None, None, (), target=target)

    @locked
    def add_files(
        self,
        count: int,
        parent: str,
        *,
        name: str = "file {n:06d}.pdf",
        created: datetime | str | None = None,
        modified: datetime | str | None = None,
        mime_type: str = "application/pdf",
    ) -> list[str]:
        """Many files at once, all with the same times (one tick of the clock); their ids."""
        now = self.clock.tick()
        folder = self._folder(parent)
        made, changed = moment(created, now), moment(modified, now)
        logs = self._logs_of(folder)
        ids = []
        for n in range(count):
            item_id = "1" + self.new_id(32)
            item = Item(
                item_id,
                name.format(n=n),
                mime_type,
                parent,
                folder.drive,
                folder.owner,
                made,
                changed,
                size=1000 + n,
                editor=folder.owner,
            )
            self._before(item_id)
            self._put(item)
            for log in logs:
                self._write(log, item_id, now)
            ids.append(item_id)
        return ids

    # -- changing things -------------------------------------------------------------------------
    @locked
    def edit(
        self,
        id: str,
        *,
        modified: datetime | str | None = None,
        size: int | None = None,
        by: str | None = None,
    ) -> None:
        """New content; ``modified`` may be older than before (time goes backwards)."""
        with self._change(id) as item:
            item.modified = moment(modified, self.clock.now())
            item.size = size if size is not None else (item.size or 0) + 10
            item.editor = by or item.editor
            item.revision += 1

    @locked
    def rename(self, id: str, name: str, *, modified: datetime | str | None = None) -> None:
        """A new name; modifiedTime stays unless given."""
        with self._change(id) as item:
            item.name = name
            item.modified = moment(modified, item.modified)

    @locked
    def move(self, id: str, parent: str) -> None:
        """Another parent, perhaps in another drive; no time changes. Logged for the item alone."""
        folder = self._folder(parent)
        if id == parent or parent in self.below(id):
            raise SandboxError("a folder cannot move into itself")
        below = self.below(id)
        with self._change(id, deep=True) as item:
            if item.parent is not None:
                self.children[item.parent].pop(id, None)
            item.parent = parent
            self.children[parent][id] = None
            for one in [item, *(self.items[other] for other in below)]:
                one.drive = folder.drive
                one.owner = None if folder.drive else (one.owner or folder.owner)

    @locked
    def backdate(
        self,
        id: str,
        *,
        modified: datetime | str | None = None,
        created: datetime | str | None = None,
    ) -> None:
        """Set modifiedTime and/or createdTime, as an API client may."""
        with self._change(id) as item:
            item.modified = moment(modified, item.modified)
            item.created = moment(created, item.created)

    @locked
    def trash(self, id: str) -> None:
        """Into the trash; what is below is trashed by its ancestor. No time changes."""
        with self._change(id, deep=True) as item:
            item.trashed = True

    @locked
    def restore(self, id: str) -> None:
        """Out of the trash; no time changes."""
        with self._change(id, deep=True) as item:
            item.trashed = False

    @locked
    def delete(self, id: str) -> None:
        """For good, with everything below; only the item itself is logged (see log_descendants)."""
        item = self._item(id)
        below = self.below(id)
        now = self.clock.tick()
        lines = [(log, id) for log in self._logs_of(item)]
        if self.log_descendants and item.drive is None:
            for other in below:
                lines += [(log, other) for log in self._logs_of(self.items[other])]
        for one in [*below, id]:
            self._before(one)
            self._drop(one)
        for log, key in lines:
            self._write(log, key, now)

    @locked
    def view(self, id: str, by: str = OWNER, *, bump_version: bool = False) -> None:
        """Somebody opens the item: a change entry, no change of any field one would store."""
        item = self._item(id)
        now = self.clock.tick()
        item.viewed = {**item.viewed, by: now}
        item.accessed |= {by}
        if bump_version:
            item.version += 1
        for log in self._logs_of(item):
            self._write(log, id, now)

    @locked
    def share(self, id: str, email: str) -> None:
        """Let someone see the item (a folder: and everything below, without entries for it)."""
        self.add_user(email)
        with self._change(id, deep=True) as item:
            item.shares = {**item.shares, email: self.clock.now()}
            item.accessed |= {email}

    @locked
    def unshare(self, id: str, email: str) -> None:
        """Take a share back: a removed entry in that user's log."""
        with self._change(id, deep=True) as item:
            item.shares = {who: at for who, at in item.shares.items() if who != email}
            item.accessed -= {email}

    @locked
    def restrict(self, id: str, restricted: bool = True) -> None:
        """Stop (or resume) inheriting permissions: only the item's own shares count. The way to
        hide one subtree of a shared folder; logged for the item alone."""
        with self._change(id, deep=True) as item:
            item.restricted = restricted

    @locked
    def override(self, id: str, **fields: Any) -> None:
        """Answer with these JSON fields, whatever they should be (None: leave the field out)."""
        item = self._item(id)
        item.overrides = {**item.overrides, **fields}

    @locked
    def forbid(self, folder: str, email: str) -> None:
        """Refuse listings of this folder to someone with 403, though the folder is visible."""
        self.forbidden.setdefault(folder, set()).add(email)

    @locked
    def allow(self, folder: str, email: str) -> None:
        """End ``forbid``."""
        self.forbidden.get(folder, set()).discard(email)

    @contextmanager
    def unlogged(self) -> Iterator[None]:
        """Mutations inside leave no entry in any change log."""
        self._unlogged += 1
        try:
            yield
        finally:
            self._unlogged -= 1

    @locked
    def hold(self) -> None:
        """From now on listings and logs lag: until ``release`` only files.get shows mutations."""
        if self._held is None:
            self._held = {}

    @locked
    def release(self) -> None:
        """End of ``hold``: everything held back shows; entries keep the time of their change."""
        self._held = None
        lines, self._held_lines = self._held_lines, []
        for log, key, time in lines:
            self._log(log).add(key, time)

    # -- reading ---------------------------------------------------------------------------------
    @locked
    def get(self, id: str) -> Item:
        """A copy of the item as it is; raises SandboxError if there is none."""
        return copy(self._item(id))

    @locked
    def below(self, folder: str) -> list[str]:
        """Ids of everything below a folder, parents before children."""
        found = list(self.children.get(folder, ()))
        for item_id in found:
            found.extend(self.children.get(item_id, ()))
        return found

    @locked
    def in_trash(self, id: str) -> bool:
        """Trashed itself or through an ancestor."""
        return Sight(self, "").trashed(self._item(id))

    @locked
    def sees(self, email: str, id: str) -> bool:
        """Whether someone may read the item."""
        item = self.items.get(id)
        return item is not None and Sight(self, email).sees(item)

    @locked
    def truth(
        self,
        root: str,
        account: str,
        *,
        recursive: bool = True,
        folders: bool = False,
        where: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """What a complete, careful observer with this account sees now under ``root``.

        Live (not trashed) files, shortcuts included, folders only on request; id -> the whole file
        resource as the API would give it. ``root`` is a folder or a shared drive. Empty if the root
        itself is gone, trashed or invisible.
        """
        sight = Sight(self, account)
        top = self.items.get(root)
        if top is None or not sight.sees(top) or sight.trashed(top):
            return {}
        ids = self.below(root) if recursive else list(self.children.get(root, ()))
        found = {}
        for item_id in ids:
            item = self.items[item_id]
            if (folders or not item.is_folder) and not sight.trashed(item) and sight.sees(item):
                resource = self.resource(item, sight)
                if where is None or where(resource):
                    found[item_id] = resource
        return found

    def candidates(self, parents: set[str] | None) -> Iterable[Item]:
        """Items a listing may show (as listings know them), narrowed to parents if given."""
        held = self._held
        if parents is None:
            current: Iterable[Item] = self.items.values()
        else:
            current = (
                self.items[child]
                for parent in sorted(parents)
                for child in self.children.get(parent, ())
            )
        if not held:
            return current
        stale = [old for old in held.values() if old and (not parents or old.parent in parents)]
        return [item for item in current if item.id not in held] + stale

    def listed(self, item_id: str) -> Item | None:
        """The item as listings know it now."""
        if self._held and item_id in self._held:
            return self._held[item_id]
        return self.items.get(item_id)

    def log(self, name: str) -> ChangeLog:
        """The change log ``user:<e-mail>`` or ``drive:<id>``."""
        return self._log(name)

    def resource(self, item: Item, sight: Sight) -> dict[str, Any]:
        """The whole file resource as ``sight.account`` would get it."""
        return self.render(item, sight, _ALL)

    def render(self, item: Item, sight: Sight, names: Iterable[str]) -> dict[str, Any]:
        """The named top-level fields of the file resource; absent ones are left out."""
        out: dict[str, Any] = {}
        overrides = item.overrides
        for name in names:
            if name in overrides:
                value = overrides[name]
            else:
                getter = _FIELDS.get(name)
                value = getter(item, sight) if getter else None
            if value is not None:
                out[name] = value
        return out

    def arbitrary(self, item: Item) -> int:
        """A position that has nothing to do with anything."""
        return zlib.crc32(item.id.encode())

    # -- inside ----------------------------------------------------------------------------------
    def _item(self, id: str) -> Item:
        try:
            return self.items[id]
        except KeyError:
            raise SandboxError(f"no item {id!r} in this Drive") from None

    def _folder(self, id: str) -> Item:
        item = self._item(id)
        if not item.is_folder:
            raise SandboxError(f"{item.name!r} is not a folder")
        return item

    def _drive(self, id: str) -> SharedDrive:
        try:
            return self.drives[id]
        except KeyError:
            raise SandboxError(f"no shared drive {id!r}") from None

    def _make(
        self,
        name: str,
        parent: str | None,
        mime_type: str,
        id: str | None,
        owner: str | None,
        created: datetime | str | None,
        modified: datetime | str | None,
        shared_with: Iterable[str],
        *,
        size: int | None = None,
        by: str | None = None,
        target: str | None = None,
    ) -> str:
        now = self.clock.tick()
        if parent is None:
            parent = self.roots[self.add_user(owner or OWNER)]
        folder = self._folder(parent)
        item_id = id or "1" + self.new_id(32)
        if item_id in self.items:
            raise SandboxError(f"there is an item {item_id!r} already")
        owner = None if folder.drive else owner or folder.owner
        item = Item(
            item_id,
            name,
            mime_type,
            parent,
            folder.drive,
            owner,
            moment(created, now),
            moment(modified, now),
            size=None if mime_type in (FOLDER, SHORTCUT) else size,
            target=target,
            editor=by or owner,
        )
        for email in shared_with:
            self.add_user(email)
            item.shares = {**item.shares, email: now}
            item.accessed |= {email}
        self._before(item_id)
        self._put(item)
        for log in self._logs_of(item):
            self._write(log, item_id, now)
        return item_id

    def _put(self, item: Item) -> None:
        self.items[item.id] = item
        if item.parent is not None:
            self.children[item.parent][item.id] = None
        if item.is_folder:
            self.children[item.id] = {}

    def _drop(self, item_id: str) -> None:
        item = self.items.pop(item_id)
        self.children.pop(item_id, None)
        if item.parent in self.children:
            self.children[item.parent].pop(item_id, None)

    @contextmanager
    def _change(self, id: str, deep: bool = False) -> Iterator[Item]:
        """Tick, let the block change the item, bump its version, write to all logs concerned."""
        item = self._item(id)
        now = self.clock.tick()
        keys = [id]
        if deep and self.log_descendants and item.drive is None:
            keys += self.below(id)
        lines = {(log, key): None for key in keys for log in self._logs_of(self.items[key])}
        for key in {id, *(self.below(id) if deep else ())}:
            self._before(key)
        yield item
        item.version += 1
        for key in keys:
            for log in self._logs_of(self.items[key]):
                lines[log, key] = None
        for log, key in lines:
            self._write(log, key, now)

    def _before(self, item_id: str) -> None:
        """Keep the old state while listings lag."""
        if self._held is not None and item_id not in self._held:
            old = self.items.get(item_id)
            self._held[item_id] = copy(old) if old else None

    def _logs_of(self, item: Item) -> list[str]:
        """The logs a change of this item is written to: its drive's, or every viewer's."""
        viewers: dict[str, None] = {}
        at: Item | None = item
        while at is not None:
            if at.owner:
                viewers[at.owner] = None
            viewers.update(dict.fromkeys(at.shares))
            at = self.items.get(at.parent) if at.parent and not at.restricted else None
        logs = []
        if item.drive is not None:
            logs.append(f"drive:{item.drive}")
            members = self.drives[item.drive].members
            viewers = {email: None for email in viewers if email not in members}
        return logs + [f"user:{email}" for email in viewers]

    def _log(self, name: str) -> ChangeLog:
        if name not in self._logs:
            self._logs[name] = ChangeLog(name)
        return self._logs[name]

    def _write(self, log: str, key: str, time: datetime) -> None:
        if self._unlogged:
            return
        if self._held is not None:
            self._held_lines.append((log, key, time))
        else:
            self._log(log).add(key, time)


def _user(sight: Sight, email: str) -> dict[str, Any]:
    return {
        "kind": "drive#user",
        "displayName": sight.world.users.get(email, email),
        "me": email == sight.account,
        "permissionId": f"{zlib.crc32(email.encode()):020d}",
        "emailAddress": email,
    }


def user_resource(world: DriveWorld, email: str) -> dict[str, Any]:
    """The ``user`` of about.get."""
    return _user(Sight(world, email), email)


def _parents(item: Item, sight: Sight) -> list[str] | None:
    if item.parent is None:
        return None
    parent = sight.world.items.get(item.parent)
    return [item.parent] if parent is not None and sight.sees(parent) else None


def _link(item: Item, sight: Sight) -> str:
    if item.is_folder:
        return f"https://drive.google.com/drive/folders/{item.id}"
    if item.mime_type in _NATIVE_PATHS:
        path = _NATIVE_PATHS[item.mime_type]
        return f"https://docs.google.com/{path}/d/{item.id}/edit?usp=drivesdk"
    return f"https://drive.google.com/file/d/{item.id}/view?usp=drivesdk"


def _shortcut(item: Item, sight: Sight) -> dict[str, str] | None:
    if item.target is None:
        return None
    target = sight.world.items.get(item.target)
    mime = target.mime_type if target else item.overrides.get("targetMimeType", "application/pdf")
    return {"targetId": item.target, "targetMimeType": mime}


def _permissions(item: Item, sight: Sight) -> list[dict[str, Any]] | None:
    if item.drive is not None:
        return None
    people = [(item.owner, "owner")] if item.owner else []
    people += [(email, "reader") for email in item.shares]
    return [
        {"kind": "drive#permission", "type": "user", "role": role, "emailAddress": email}
        for email, role in people
    ]


def _content(item: Item) -> bool:
    return not item.native and item.size is not None


def _extension(item: Item) -> str | None:
    return item.name.rpartition(".")[2] if _content(item) and "." in item.name else None


def _capabilities(item: Item, sight: Sight) -> dict[str, bool]:
    forbidden = sight.account in sight.world.forbidden.get(item.id, ())
    mine = item.owner == sight.account
    return {
        "canListChildren": item.is_folder and not forbidden,
        "canEdit": mine,
        "canDownload": _content(item),
        "canReadDrive": item.drive is not None,
    }


def _hash(item: Item, length: int) -> str | None:
    if not _content(item):
        return None
    seed = zlib.crc32(f"{item.id}:{item.revision}".encode())
    return f"{seed:08x}" * (length // 8)


_FIELDS: dict[str, Callable[[Item, Sight], Any]] = {
    "kind": lambda item, sight: "drive#file",
    "id": lambda item, sight: item.id,
    "name": lambda item, sight: item.name,
    "mimeType": lambda item, sight: item.mime_type,
    "webViewLink": _link,
    "webContentLink": lambda item, sight: (
        f"https://drive.google.com/uc?id={item.id}&export=download" if _content(item) else None
    ),
    "iconLink": lambda item, sight: (
        f"https://drive-thirdparty.googleusercontent.com/16/type/{item.mime_type}"
    ),
    "parents": _parents,
    "spaces": lambda item, sight: ["drive"],
    "createdTime": lambda item, sight: drive_time(item.created),
    "modifiedTime": lambda item, sight: drive_time(item.modified),
    "viewedByMe": lambda item, sight: sight.account in item.viewed,
    "viewedByMeTime": lambda item, sight: (
        drive_time(item.viewed[sight.account]) if sight.account in item.viewed else None
    ),
    "sharedWithMeTime": lambda item, sight: (
        drive_time(item.shares[sight.account]) if sight.account in item.shares else None
    ),
    "trashed": lambda item, sight: sight.trashed(item),
    "explicitlyTrashed": lambda item, sight: item.trashed,
    "starred": lambda item, sight: item.starred,
    "version": lambda item, sight: str(item.version),
    "size": lambda item, sight: None if item.size is None else str(item.size),
    "quotaBytesUsed": lambda item, sight: str(item.size or 0),
    "md5Checksum": lambda item, sight: _hash(item, 32),
    "sha1Checksum": lambda item, sight: _hash(item, 40),
    "sha256Checksum": lambda item, sight: _hash(item, 64),
    "headRevisionId": lambda item, sight: _hash(item, 32),
    "fileExtension": lambda item, sight: _extension(item),
    "fullFileExtension": lambda item, sight: _extension(item),
    "originalFilename": lambda item, sight: item.name if _content(item) else None,
    "driveId": lambda item, sight: item.drive,
    "teamDriveId": lambda item, sight: item.drive,
    "shortcutDetails": _shortcut,
    "owners": lambda item, sight: [_user(sight, item.owner)] if item.owner else None,
    "ownedByMe": lambda item, sight: (
        None if item.drive is not None else item.owner == sight.account
    ),
    "shared": lambda item, sight: None if item.drive is not None else bool(item.shares),
    "permissions": _permissions,
    "lastModifyingUser": lambda item, sight: _user(sight, item.editor) if item.editor else None,
    "capabilities": _capabilities,
    "writersCanShare": lambda item, sight: True,
}
_ALL: Sequence[str] = tuple(_FIELDS)
