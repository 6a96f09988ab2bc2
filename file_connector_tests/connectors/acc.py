"""Makers for the Autodesk tests: a small project in the sandbox, and endpoints that sync it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from file_connector.connectors.autodesk import AutodeskDetails
from file_connector.connectors.autodesk.connector import AutodeskConnector
from file_connector.connectors.base import Credentials, RateLimiter, TokenVault, Toolbox, Unlimited
from file_connector.errors import TransientError
from file_connector.sandbox import Sandbox
from file_connector_tests.connectors.memory import Memory, Sync


@dataclass
class Naps:
    """A sleep that only notes how long it should have slept."""

    seconds: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


class CountingLimiter:
    """Lets everything pass and remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def acquire(self, key: str, per_minute: int) -> None:
        self.asked.append((key, per_minute))


class DictVault:
    """A vault in memory, shared by whoever holds it; ``broken`` makes it refuse to save."""

    def __init__(self) -> None:
        self.held: dict[str, Mapping[str, Any]] = {}
        self.broken: Exception | None = None
        self.saves = 0
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    @contextmanager
    def locked(self, key: str, patience_seconds: float = 90.0) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        if not lock.acquire(timeout=patience_seconds):
            raise TransientError(f"renewed by another process for {patience_seconds:.0f} s")
        try:
            yield
        finally:
            lock.release()

    def load(self, key: str) -> Mapping[str, Any] | None:
        return self.held.get(key)

    def save(self, key: str, value: Mapping[str, Any]) -> None:
        if self.broken is not None:
            raise self.broken
        self.saves += 1
        self.held[key] = dict(value)


@dataclass
class Site:
    """A sandbox with one project: Project Files / Plans / (Level 1 / Room), Models."""

    sandbox: Sandbox
    hub: str
    project: str
    files: str
    plans: str
    level: str
    room: str
    models: str
    naps: Naps = field(default_factory=Naps)

    def toolbox(
        self,
        *,
        vault: TokenVault | None = None,
        limiter: RateLimiter | None = None,
        **values: Any,
    ) -> Toolbox:
        return Toolbox(
            limiter=limiter or Unlimited(),
            vault=vault,
            now=values.pop("now", self.sandbox.clock.now),
            sleep=self.naps,
            environ={"APS_BASE_URL": self.sandbox.aps_base_url},
            **values,
        )

    def connector(
        self,
        details: Mapping[str, Any] | None = None,
        *,
        credentials: Mapping[str, Any] | None = None,
        toolbox: Toolbox | None = None,
        workers: int = 4,
    ) -> AutodeskConnector:
        data = self.sandbox.aps_credentials() if credentials is None else credentials
        return AutodeskConnector(
            AutodeskDetails.model_validate({"project_id": self.project, **(details or {})}),
            Credentials("test", "environment variable APS_CREDENTIALS__TEST", data),
            toolbox or self.toolbox(),
            workers=workers,
        )

    def sync(self, details: Mapping[str, Any] | None = None, **values: Any) -> Sync:
        return Sync(self.connector(details, **values), Memory())

    def truth(self, top: str | None = None) -> dict[str, tuple[Any, ...]]:
        """What the rows should say: id -> title, version, parent, created, updated."""
        found = self.sandbox.aps.truth(top or self.files)
        return {
            i: (
                item.tip.name,
                item.tip.number,
                item.parent,
                item.created,
                max(item.modified, item.tip.modified),
            )
            for i, item in found.items()
        }

    def calls(self, since: int = 0, kind: str | None = None) -> int:
        return self.sandbox.log.count(kind, since=since)


def rows(memory: Memory) -> dict[str, tuple[Any, ...]]:
    """The live rows in the form of ``Site.truth``."""
    return {
        i: (r.title, r.version, r.parent_id, r.created_at, r.updated_at)
        for i, r in memory.rows.items()
        if i in memory.live
    }


@contextmanager
def a_site(**values: Any) -> Iterator[Site]:
    """A served project with five folders and six files."""
    with Sandbox(**values) as sandbox:
        aps = sandbox.aps
        hub = aps.add_hub()
        project = aps.add_project()
        files = aps.project_files(project)
        plans = aps.add_folder("Plans", files)
        level = aps.add_folder("Level 1", plans)
        room = aps.add_folder("Room", level)
        models = aps.add_folder("Models", files)
        for name, parent in [
            ("read me.txt", files),
            ("A-101.pdf", plans),
            ("A-102.pdf", plans),
            ("L1-1.dwg", level),
            ("R-1.pdf", room),
            ("tower.rvt", models),
        ]:
            aps.add_item(name, parent)
        yield Site(sandbox, hub, project, files, plans, level, room, models)
