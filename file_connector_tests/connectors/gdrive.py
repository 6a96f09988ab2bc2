"""Makers for the Google Drive tests: a sandbox with one watched folder, and endpoints on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from file_connector.connectors.base import Credentials, RateLimiter, Toolbox, Unlimited
from file_connector.connectors.google_drive.connector import GoogleDriveConnector
from file_connector.connectors.google_drive.spec import SPEC, GoogleDriveDetails
from file_connector.models import Folder, Probe
from file_connector.sandbox import ACCOUNT, DriveWorld, Sandbox
from file_connector.times import parse_time
from file_connector_tests.connectors.memory import Memory, Sync

OLD = "2019-01-01T00:00:00.000Z"
NOW = datetime(2026, 3, 2, 12, tzinfo=timezone.utc)


@dataclass
class Naps:
    """A sleep that only notes how long it should have slept."""

    seconds: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@dataclass
class Desk:
    """A running sandbox, the folder ``root`` shared with ACCOUNT in it, and what tests open."""

    sandbox: Sandbox
    naps: Naps = field(default_factory=Naps)
    opened: list[GoogleDriveConnector] = field(default_factory=list)
    a: str = ""
    b: str = ""
    top: str = ""
    deep: str = ""

    def __post_init__(self) -> None:
        self.root = self.drive.add_folder("Watched", shared_with=[ACCOUNT])

    @property
    def drive(self) -> DriveWorld:
        return self.sandbox.drive

    def toolbox(
        self,
        *,
        timeout: float = 10.0,
        budget: float = 200.0,
        limiter: RateLimiter | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Toolbox:
        return Toolbox(
            limiter=limiter or Unlimited(),
            now=lambda: NOW,
            sleep=self.naps,
            timeout_seconds=timeout,
            retry_budget_seconds=budget,
            environ=environ if environ is not None else self.sandbox.environ,
        )

    def connector(
        self,
        details: Mapping[str, Any] | None = None,
        *,
        credentials: Mapping[str, Any] | None = None,
        toolbox: Toolbox | None = None,
    ) -> GoogleDriveConnector:
        """A connector of the watched folder, or of what ``details`` say."""
        checked = SPEC.details(**(details or {"folder_id": self.root}))
        assert isinstance(checked, GoogleDriveDetails)
        data = self.sandbox.google_credentials(ACCOUNT) if credentials is None else credentials
        connector = SPEC.open(
            checked, Credentials("test", "a test", data), toolbox or self.toolbox()
        )
        assert isinstance(connector, GoogleDriveConnector)
        self.opened.append(connector)
        return connector

    def sync(self, memory: Memory | None = None, **details: Any) -> Sync:
        """An endpoint that has not run yet."""
        return Sync(self.connector(details or None), memory or Memory())

    def again(self, sync: Sync, **details: Any) -> Sync:
        """The same endpoint in a new process: what was stored, and nothing else."""
        return Sync(
            self.connector(details or None),
            sync.memory,
            sync.cursor,
            sync.progress,
            sync.pass_no,
        )

    def probe(self, sync: Sync) -> Probe:
        return sync.connector.probe(sync.cursor, sync.memory)

    def assert_true(self, sync: Sync, root: str | None = None, **how: Any) -> None:
        """The rows are what a complete, careful observer sees."""
        root = root or self.root
        truth = self.drive.truth(root, ACCOUNT, **how)
        memory = sync.memory
        assert memory.live == set(truth)
        for external_id, seen in truth.items():
            row = memory.rows[external_id]
            assert row.title == seen["name"]
            assert row.link == seen["webViewLink"]
            assert row.updated_at == parse_time(seen["modifiedTime"])
            assert row.created_at == parse_time(seen["createdTime"])
            assert row.mime_type == seen["mimeType"]
            assert row.size_bytes == (int(seen["size"]) if "size" in seen else None)
            assert row.parent_id == seen["parents"][0]
            assert memory.path(external_id) == self.path(external_id, root)

    def path(self, external_id: str, root: str) -> str:
        """The path below ``root`` as the world knows it."""
        names, at = [], external_id
        while at != root:
            item = self.drive.get(at)
            names.append(item.name)
            assert item.parent is not None
            at = item.parent
        return "/" + "/".join(reversed(names))

    def calls(self, kind: str = "drive.*", since: int = 0) -> int:
        """Requests of that kind, token requests never included."""
        return sum(1 for c in self.sandbox.log.calls(kind, since=since) if c.kind != "drive.token")

    def mark(self) -> int:
        return self.sandbox.log.mark()


def folder_state(memory: Memory, folder_id: str) -> Mapping[str, Any]:
    folder: Folder | None = memory.folder(folder_id)
    assert folder is not None
    return folder.state


@contextmanager
def a_desk(**how: Any) -> Iterator[Desk]:
    """A desk that cleans up after itself; ``how`` goes to the sandbox."""
    with Sandbox(**how) as sandbox:
        desk = Desk(sandbox)
        try:
            yield desk
        finally:
            for connector in desk.opened:
                connector.close()


@contextmanager
def drip() -> Iterator[str]:
    """A Drive that sends its answers byte by byte, for ten seconds, and never to the end. Yields
    its address."""
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            try:
                for _ in range(200):
                    if stop.wait(0.05):
                        break
                    self.wfile.write(b" ")
                    self.wfile.flush()
            except OSError:
                pass

        def log_message(self, *args: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/drive/v3/"
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
