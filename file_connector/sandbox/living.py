"""The world behind the reserved credentials name ``sandbox``: a Drive folder and an ACC project in
which people keep working.

A deployment has many processes and no place for one more server, so every process serves the world
itself: what it holds is a function of a seed, an epoch and the present moment. The first process
writes seed and epoch to ``sandbox.json`` in the deployment's home; all others read them, replay the
same history and see the same files, times and change tokens. Every minute or two something happens
to each provider; after some hours life slows down to a few events an hour, so that replaying a year
takes seconds, and what is finished gets cleared away, so that the world stays small.

What there is to connect:

    Drive    folder_id   sandbox-drive-folder
    ACC      project_id  b.6c2cffb0-e8c8-43d3-b415-e53f4377cedb
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from file_connector.sandbox.aps_world import ApsWorld
from file_connector.sandbox.drive_world import DOCUMENT, SPREADSHEET, DriveWorld
from file_connector.sandbox.server import ACCOUNT, Sandbox
from file_connector.sandbox.world import Clock, SandboxError, read_time

DRIVE_FOLDER = "sandbox-drive-folder"
ACC_HUB = "b.e3be8c87-1df5-470f-9214-1a8f7a9eaea8"
ACC_PROJECT = "b.6c2cffb0-e8c8-43d3-b415-e53f4377cedb"
STATE_FILE = "sandbox.json"

_BUSY = timedelta(hours=2)
_SLOWEST = 10.0
_FILES_AT_MOST = 90
_TRASH_AT_MOST = 12

_PEOPLE = {
    "ana.roe@example.com": ("ANAROE000001", "Ana Roe"),
    "jo.doe@example.com": ("JODOE0000002", "Jo Doe"),
    "mei.lin@example.com": ("MEILIN000003", "Mei Lin"),
    "omar.diaz@example.com": ("OMARDIAZ0004", "Omar Díaz"),
}
_ROOMS = ("Drawings", "Meeting minutes", "Contracts", "Site photos", "Reports")
_TRADES = ("Architecture", "Structure", "MEP", "Coordination")
_PLACES = ("Level 1", "Level 2", "Roof", "Core", "Façade", "Car park", "Lobby", "Plant room")
_DRAWINGS = ("plan", "section", "details", "elevation", "reflected ceiling")
_PAPERS = (
    "RFI {n:03d} {place}.pdf",
    "Submittal {n:03d} {place}.pdf",
    "Site report week {week}.docx",
    "Cost plan rev {n}.xlsx",
    "Inspection {place} {n:03d}.pdf",
    "IMG_{n:04d}.jpg",
)
_NATIVE = (("Minutes week {week}", DOCUMENT), ("Snag list {place}", SPREADSHEET))
_MODELS = (
    ("{letter}-{n:03d} {place} {drawing}.dwg", 900_000),
    ("{letter}-{n:03d} {place} {drawing}.pdf", 400_000),
    ("{trade} model {place}.rvt", 90_000_000),
    ("{trade} {place} {n:03d}.ifc", 30_000_000),
)
_MIME = {
    "pdf": "application/pdf",
    "jpg": "image/jpeg",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


@dataclass(frozen=True)
class Addresses:
    """How to reach the living world from this process. ``repr`` shows no key."""

    drive_api_endpoint: str
    aps_base_url: str
    google_credentials: dict[str, Any] = field(repr=False)
    aps_credentials: dict[str, Any] = field(repr=False)


class LivingWorld:
    """Plays history up to the present. The same seed and epoch give the same world."""

    def __init__(self, sandbox: Sandbox, seed: int, epoch: datetime) -> None:
        self.sandbox = sandbox
        self.epoch = epoch
        self._lock = threading.Lock()
        self._lives: list[_Life] = [
            DriveLife(sandbox.drive, random.Random(f"drive {seed}")),
            AccLife(sandbox.aps, random.Random(f"acc {seed}")),
        ]
        for life in self._lives:
            life.begin(sandbox.clock, epoch)

    def catch_up(self, now: datetime | None = None) -> None:
        """Let everything happen that happens until ``now`` (default: the real present)."""
        self.sandbox.log.clear()  # a world may live for months, and nobody reads it here
        now = now or datetime.now(timezone.utc)
        with self._lock:
            clock = self.sandbox.clock
            if now <= clock.now():
                return
            for life in self._lives:
                life.live_until(now, clock, self.epoch)
            clock.set(now)


class _Life(ABC):
    """The events of one provider, each at its own moment."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.next_at: datetime | None = None
        self.number = 0

    def begin(self, clock: Clock, epoch: datetime) -> None:
        """Ten days of history before the epoch."""
        clock.set(epoch - timedelta(days=11))
        self.found()
        at = epoch - timedelta(days=10)
        while at < epoch:
            clock.set(at)
            self.create()
            at += timedelta(hours=self.dice.uniform(6, 14))
        self.next_at = epoch + timedelta(seconds=self.dice.uniform(20, 60))
        clock.set(epoch)

    def live_until(self, now: datetime, clock: Clock, epoch: datetime) -> None:
        """All events up to ``now``."""
        while self.next_at is not None and self.next_at <= now:
            clock.set(self.next_at)
            self.event()
            slow = min(_SLOWEST, max(1.0, (self.next_at - epoch) / _BUSY))
            self.next_at += timedelta(seconds=round(self.dice.uniform(60, 120) * slow, 3))

    def event(self) -> None:
        """One thing happens."""
        full = self.size() >= _FILES_AT_MOST
        doings: list[tuple[Callable[[], object], int]] = [
            (self.create, 0 if full else 6),
            (self.edit, 6),
            (self.rename, 1),
            (self.move, 1),
            (self.remove, 4 if full else 1),
            (self.bring_back, 1),
        ]
        self.dice.choices([d for d, _ in doings], [w for _, w in doings])[0]()

    def words(self, pattern: str, trade: str = "") -> str:
        """A name out of a pattern."""
        self.number += 1
        trade = trade or self.dice.choice(_TRADES)
        return pattern.format(
            n=self.number,
            week=1 + self.number % 52,
            place=self.dice.choice(_PLACES),
            drawing=self.dice.choice(_DRAWINGS),
            trade=trade,
            letter=trade[0],
        )

    def revised(self, name: str) -> str:
        """The name with its next revision mark."""
        stem, dot, ending = name.rpartition(".")
        stem, mark, number = (stem if dot else name).rpartition(" rev ")
        if mark and number.isdigit():
            fresh = f"{stem} rev {int(number) + 1}"
        else:
            fresh = f"{(name.rpartition('.')[0] if dot else name)} rev 2"
        return f"{fresh}.{ending}" if dot else fresh

    @abstractmethod
    def found(self) -> None:
        """What is there from the beginning."""

    @abstractmethod
    def size(self) -> int:
        """How much there is."""

    @abstractmethod
    def create(self) -> None: ...

    @abstractmethod
    def edit(self) -> None: ...

    @abstractmethod
    def rename(self) -> None: ...

    @abstractmethod
    def move(self) -> None: ...

    @abstractmethod
    def remove(self) -> None: ...

    @abstractmethod
    def bring_back(self) -> None: ...


class DriveLife(_Life):
    """A project folder shared with the service account."""

    def __init__(self, world: DriveWorld, dice: random.Random) -> None:
        super().__init__(dice)
        self.world = world
        self.files: list[str] = []
        self.trash: list[str] = []
        self.folders: list[str] = []

    def found(self) -> None:
        for email, (_, name) in _PEOPLE.items():
            self.world.add_user(email, name)
        owner = next(iter(_PEOPLE))
        self.world.add_folder("Tower 42", id=DRIVE_FOLDER, owner=owner, shared_with=[ACCOUNT])
        for room in _ROOMS:
            self.folders.append(self.world.add_folder(room, DRIVE_FOLDER))
        drawings = self.folders[0]
        for trade in _TRADES:
            self.folders.append(self.world.add_folder(trade, drawings))

    def size(self) -> int:
        return len(self.files)

    def create(self) -> None:
        by = self.dice.choice(list(_PEOPLE))
        if self.dice.random() < 0.2:
            pattern, mime = self.dice.choice(_NATIVE)
        else:
            pattern = self.dice.choice(_PAPERS)
            mime = _MIME[pattern.rpartition(".")[2]]
        parent = self.dice.choice(self.folders)
        name, size = self.words(pattern), self.dice.randrange(20_000, 9_000_000)
        self.files.append(self.world.add_file(name, parent, mime_type=mime, size=size, by=by))

    def edit(self) -> None:
        by = self.dice.choice(list(_PEOPLE))
        self.world.edit(self.dice.choice(self.files), by=by)

    def rename(self) -> None:
        one = self.dice.choice(self.files)
        self.world.rename(one, self.revised(self.world.items[one].name))

    def move(self) -> None:
        self.world.move(self.dice.choice(self.files), self.dice.choice(self.folders))

    def remove(self) -> None:
        if len(self.files) < 12:
            self.create()
            return
        one = self.files.pop(self.dice.randrange(len(self.files)))
        self.world.trash(one)
        self.trash.append(one)
        if len(self.trash) > _TRASH_AT_MOST:
            self.world.delete(self.trash.pop(0))

    def bring_back(self) -> None:
        if not self.trash:
            self.edit()
            return
        one = self.trash.pop()
        self.world.restore(one)
        self.files.append(one)


class AccLife(_Life):
    """A project with models and drawings; nothing is ever erased there, only hidden."""

    def __init__(self, world: ApsWorld, dice: random.Random) -> None:
        super().__init__(dice)
        self.world = world
        self.items: list[str] = []
        self.hidden: list[str] = []
        self.folders: dict[str, str] = {}

    def found(self) -> None:
        for user, name in _PEOPLE.values():
            self.world.add_user(user, name)
        hub = self.world.add_hub("Sandbox Construction", id=ACC_HUB, region="EMEA")
        project = self.world.add_project("Tower 42", hub, id=ACC_PROJECT)
        top = self.world.project_files(project)
        for trade in _TRADES:
            folder = self.world.add_folder(trade, top)
            self.folders[folder] = trade
            for stage in ("WIP", "Published"):
                self.folders[self.world.add_folder(stage, folder)] = trade

    def size(self) -> int:
        return len(self.items) + len(self.hidden)

    def person(self) -> str:
        return self.dice.choice(list(_PEOPLE.values()))[0]

    def create(self) -> None:
        folder = self.dice.choice(list(self.folders))
        pattern, usual = self.dice.choice(_MODELS)
        name = self.words(pattern, self.folders[folder])
        size = int(usual * self.dice.uniform(0.3, 2))
        self.items.append(self.world.add_item(name, folder, size=size, user=self.person()))

    def edit(self) -> None:
        one = self.dice.choice(self.items)
        size = int((self.world.items[one].tip.size or 1000) * self.dice.uniform(0.95, 1.1))
        self.world.upload(one, size=size, user=self.person())

    def rename(self) -> None:
        one = self.dice.choice(self.items)
        self.world.rename(one, self.revised(self.world.items[one].name))

    def move(self) -> None:
        self.world.move(self.dice.choice(self.items), self.dice.choice(list(self.folders)))

    def remove(self) -> None:
        if len(self.items) < 12 or len(self.hidden) >= 3 * _TRASH_AT_MOST:
            self.edit()
            return
        one = self.items.pop(self.dice.randrange(len(self.items)))
        self.world.delete(one)
        self.hidden.append(one)

    def bring_back(self) -> None:
        if not self.hidden:
            self.edit()
            return
        one = self.hidden.pop()
        self.world.restore(one)
        self.items.append(one)


# -- one world per deployment, one server per process ---------------------------------------------
class _Servers:
    """The servers of this process."""

    def __init__(self) -> None:
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """A forked child has no server threads: it starts its own."""
        self.lock = threading.Lock()
        self.running: dict[tuple[str, int, str], Sandbox] = {}


_servers = _Servers()


def attach(home: Path) -> Addresses:
    """The living world of the deployment at ``home``, served in this process from now on.

    Idempotent and thread-safe; the first call starts a daemon thread. Raises SandboxError if
    ``sandbox.json`` cannot be read.
    """
    seed, epoch = _state(Path(home))
    key = (str(Path(home).resolve()), seed, epoch.isoformat())
    with _servers.lock:
        sandbox = _servers.running.get(key)
        if sandbox is None:
            sandbox = _servers.running[key] = serve(seed, epoch)
    return addresses_of(sandbox)


def serve(seed: int, epoch: datetime, port: int = 0) -> Sandbox:
    """A running sandbox with the living world of this seed and epoch."""
    sandbox = Sandbox(clock=Clock(epoch, step=timedelta(0)), port=port)
    world = LivingWorld(sandbox, seed, epoch)
    sandbox.before_request = world.catch_up
    sandbox.drive.hints["folder"] = f"(The sandbox serves one folder: folder_id {DRIVE_FOLDER!r}.)"
    sandbox.aps.hints["hub"] = f"(The sandbox serves one hub: {ACC_HUB!r}.)"
    sandbox.aps.hints["project"] = f"(The sandbox serves one project: project_id {ACC_PROJECT!r}.)"
    return sandbox.start()


def addresses_of(sandbox: Sandbox) -> Addresses:
    """Addresses and credentials of a running sandbox."""
    return Addresses(
        sandbox.drive_api_endpoint,
        sandbox.aps_base_url,
        sandbox.google_credentials(),
        sandbox.aps_credentials(),
    )


def _state(home: Path) -> tuple[int, datetime]:
    """Seed and epoch of this deployment; written once, whoever comes first."""
    path = home / STATE_FILE
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        epoch = datetime.now(timezone.utc).replace(microsecond=0)
        state = {"seed": random.SystemRandom().randrange(1, 10**6), "epoch": epoch.isoformat()}
        handle, draft = tempfile.mkstemp(dir=home, prefix=".sandbox-", suffix=".json")
        with os.fdopen(handle, "w") as file:
            json.dump(state, file)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            Path(draft).unlink()
    try:
        stored = json.loads(path.read_text())
        seed, moment = int(stored["seed"]), read_time(str(stored["epoch"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SandboxError(f"{path} cannot be read ({error}); delete it to begin anew") from None
    if moment is None:
        raise SandboxError(f"{path} holds no usable epoch; delete it to begin anew")
    return seed, moment
