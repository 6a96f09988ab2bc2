"""What a random history needs of a source: a world to change, the truth in it, and a connector.

Each history gets a tree of its own inside one long-lived sandbox, so the source's other files
(those of earlier histories) are the many other tenants of the same account.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

from file_connector.connectors.autodesk import SPEC as AUTODESK
from file_connector.connectors.base import Connector, ConnectorSpec, Credentials, Toolbox
from file_connector.connectors.google_drive import SPEC as GOOGLE_DRIVE
from file_connector.sandbox import ACCOUNT, Sandbox, faults
from file_connector.times import iso, parse_time


class Seen(NamedTuple):
    """The part of a row a history compares with the truth."""

    title: str
    updated_at: str | None
    created_at: str | None
    size_bytes: int | None


class Stage(Protocol):
    """One endpoint's world. Ids are the provider's own."""

    root: str
    outside: list[str]
    """Folders beyond the endpoint's scope, some of them invisible to its account."""
    silent: bool
    """Some changes leave no trace for the fast way: only a sweep can promise the truth."""
    root_can_hide: bool

    def new_file(self, parent: str, *, old: bool) -> str: ...
    def new_folder(self, parent: str) -> str: ...
    def edit(self, file: str, *, backwards: bool) -> None: ...
    def rename(self, thing: str) -> None: ...
    def move(self, thing: str, parent: str) -> None: ...
    def trash(self, thing: str) -> None: ...
    def restore(self, thing: str) -> None: ...
    def delete(self, thing: str) -> None: ...
    def hide(self, folder: str) -> None: ...
    def show(self, folder: str) -> None: ...
    def view(self, file: str) -> None: ...
    def truth(self) -> Mapping[str, Seen]: ...
    def connector(self, toolbox: Toolbox) -> Connector: ...
    def lose_cursor(self) -> None: ...


class World:
    """The sandbox and the counters that outlive single histories."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.names = itertools.count()

    def name(self, kind: str) -> str:
        return f"{kind} {next(self.names)} é"


def opened(
    spec: ConnectorSpec, details: Mapping[str, Any], data: Mapping[str, Any], toolbox: Toolbox
) -> Connector:
    return spec.open(spec.details(**details), Credentials("test", "a test", data), toolbox)


class DriveStage:
    silent = False

    def __init__(self, world: World, *, shared_drive: bool = False) -> None:
        self._world = world
        self._drive = world.sandbox.drive
        self.root_can_hide = not shared_drive  # a member sees all of a drive
        home = None
        if shared_drive:
            home = self._drive.add_drive(world.name("drive"), members=[ACCOUNT])
        shared = () if shared_drive else (ACCOUNT,)
        self.root = self._drive.add_folder(world.name("root"), home, shared_with=shared)
        visible = self._drive.add_folder(world.name("outside"), home, shared_with=shared)
        self.outside = [visible]
        if not shared_drive:
            self.outside.append(self._drive.add_folder(world.name("invisible")))

    def new_file(self, parent: str, *, old: bool) -> str:
        stamp = "2019-01-01T00:00:00Z" if old else None
        name = self._world.name("file")
        return self._drive.add_file(name, parent, created=stamp, modified=stamp)

    def new_folder(self, parent: str) -> str:
        return self._drive.add_folder(self._world.name("folder"), parent)

    def edit(self, file: str, *, backwards: bool) -> None:
        self._drive.edit(file, modified="2018-05-05T05:05:05.123Z" if backwards else None)

    def rename(self, thing: str) -> None:
        self._drive.rename(thing, self._world.name("renamed"))

    def move(self, thing: str, parent: str) -> None:
        self._drive.move(thing, parent)

    def trash(self, thing: str) -> None:
        self._drive.trash(thing)

    def restore(self, thing: str) -> None:
        self._drive.restore(thing)

    def delete(self, thing: str) -> None:
        self._drive.delete(thing)

    def hide(self, folder: str) -> None:
        self._drive.unshare(folder, ACCOUNT)

    def show(self, folder: str) -> None:
        self._drive.share(folder, ACCOUNT)

    def view(self, file: str) -> None:
        self._drive.view(file, bump_version=True)

    def truth(self) -> Mapping[str, Seen]:
        return {
            thing: Seen(
                r["name"],
                iso(parse_time(r["modifiedTime"])),
                iso(parse_time(r["createdTime"])),
                int(r["size"]) if "size" in r else None,
            )
            for thing, r in self._drive.truth(self.root, ACCOUNT).items()
        }

    def connector(self, toolbox: Toolbox) -> Connector:
        sandbox = self._world.sandbox
        data = sandbox.google_credentials(ACCOUNT)
        return opened(GOOGLE_DRIVE, {"folder_id": self.root}, data, toolbox)

    def lose_cursor(self) -> None:
        self._world.sandbox.faults.add(faults.reject_change_token(410), kind="drive.changes.list")


class AutodeskStage:
    root_can_hide = False

    def __init__(self, world: World, *, silent: bool = False) -> None:
        self.silent = silent
        self._world = world
        self._aps = world.sandbox.aps
        self._project = self._aps.add_project(world.name("project"))
        self.root = self._aps.project_files(self._project)
        self.outside = [self._aps.top_folder(self._project, "Photos")]

    def new_file(self, parent: str, *, old: bool) -> str:
        stamp = "2019-01-01T00:00:00Z" if old else None
        name = f"{self._world.name('file')}.rvt"
        return self._aps.add_item(name, parent, created=stamp, modified=stamp)

    def new_folder(self, parent: str) -> str:
        return self._aps.add_folder(self._world.name("folder"), parent)

    def edit(self, file: str, *, backwards: bool) -> None:
        self._aps.upload(file, modified="2018-05-05T05:05:05Z" if backwards else None)

    def rename(self, thing: str) -> None:
        with self._quietly():
            self._aps.rename(thing, self._world.name("renamed"), touch=False)

    def move(self, thing: str, parent: str) -> None:
        with self._quietly():
            self._aps.move(thing, parent)

    def trash(self, thing: str) -> None:
        with self._quietly():
            self._aps.delete(thing)

    def restore(self, thing: str) -> None:
        with self._quietly():
            self._aps.restore(thing)

    def delete(self, thing: str) -> None:
        self.trash(thing)  # ACC never erases

    def hide(self, folder: str) -> None:
        """Rights move no time: only a sweep could see them, the fast way promises nothing."""

    def show(self, folder: str) -> None:
        return None

    def view(self, file: str) -> None:
        self._aps.process(file)

    def truth(self) -> Mapping[str, Seen]:
        return {
            thing: Seen(
                item.name,
                iso(max(item.modified, item.tip.modified)),
                iso(item.created),
                item.tip.size,
            )
            for thing, item in self._aps.truth(self.root).items()
        }

    def connector(self, toolbox: Toolbox) -> Connector:
        data = self._world.sandbox.aps_credentials("two_legged")
        return opened(AUTODESK, {"project_id": self._project}, data, toolbox)

    def _quietly(self) -> AbstractContextManager[None]:
        """No rollup tells of renames, moves, deletions and restores on a silent stage."""
        return self._aps.silent() if self.silent else nullcontext()

    def lose_cursor(self) -> None:
        """ACC has no tokens to lose: its cursor is the stored tree."""


STAGES: Mapping[str, Callable[[World], Stage]] = {
    "drive": DriveStage,
    "shared_drive": lambda world: DriveStage(world, shared_drive=True),
    "autodesk": AutodeskStage,
    "autodesk_silent": lambda world: AutodeskStage(world, silent=True),
}
