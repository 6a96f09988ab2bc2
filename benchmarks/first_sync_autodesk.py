"""First sync of one big Autodesk project, against a bare crawler that lists it and drops the rows.

A stub server in a process of its own holds ``--files`` files in ``--folders`` folders, each page of
contents after ``--latency-ms`` (about 6 KB a file, as in real answers). Both sides list as many
folders at the same time. Prints: throughput ratio (ours / bare), calls beyond the listing pages,
peak resident memory; with ``--scale N`` a first sync under Autodesk's limit of 300 listings a
minute, in time that runs N times as fast, the latency too: the stub refuses more, our budget has to
keep us below; with ``--kill`` how many listings a killed first sync makes again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import queue
import resource
import signal
import tempfile
import threading
import time
from collections import deque
from datetime import datetime, timezone
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import requests

from file_connector.connectors.autodesk.connector import WORKERS
from file_connector.connectors.autodesk.spec import SPEC
from file_connector.connectors.base import Credentials, RateLimiter, Toolbox, Unlimited
from file_connector.destination.open import FILE_NAME, open_store
from file_connector.destination.sqlite import SqliteStore
from file_connector.models import Identity
from file_connector.sync.run import SyncRun

IDENTITY = Identity("big", "autodesk_construction_cloud", "benchmark", "benchmark")
PROJECT = "b.00000000-0000-4000-8000-000000000000"
STAMP = "2025-03-04T16:20:05.0000000Z"
FANOUT = 50
PER_MINUTE = 300
PADDING = "x" * 4000
"""Links and relationships we do not read make up most of a real answer."""


def folder(n: int) -> dict[str, Any]:
    name = "Project Files" if n == 0 else f"Folder {n}"
    times = {"lastModifiedTime": STAMP, "lastModifiedTimeRollup": STAMP}
    return {
        "type": "folders",
        "id": f"urn:adsk.wipprod:fs.folder:co.{n:022d}",
        "attributes": {"name": name, "createTime": STAMP, **times, "hidden": False},
    }


def file(n: int) -> tuple[dict[str, Any], dict[str, Any]]:
    lineage, version = (
        f"urn:adsk.wipprod:dm.lineage:{n:022d}",
        f"urn:adsk.wipprod:fs.file:vf.{n:022d}",
    )
    tip = f"{version}?version=2"
    item = {
        "type": "items",
        "id": lineage,
        "attributes": {
            "displayName": f"Sheet {n}.pdf",
            "createTime": STAMP,
            "lastModifiedTime": STAMP,
        },
        "relationships": {"tip": {"data": {"type": "versions", "id": tip}}},
    }
    attributes = {
        "name": f"Sheet {n}.pdf",
        "lastModifiedTime": STAMP,
        "versionNumber": 2,
        "storageSize": n,
        "fileType": "pdf",
    }
    web = {"href": f"https://acc.autodesk.com/docs/files/projects/x?entityId={lineage}"}
    return item, {
        "type": "versions",
        "id": tip,
        "attributes": attributes,
        "links": {"webView": web},
        "relationships": {"padding": PADDING},
    }


class Stub(BaseHTTPRequestHandler):
    """The first FANOUT folders lie in Project Files, the others evenly in those."""

    protocol_version = "HTTP/1.1"
    files = folders = 0
    latency = 0.0
    listed: Any = None
    answered: Any = None
    """How often each folder's listing was answered."""
    window: Any = None
    """Seconds in which PER_MINUTE listings are allowed; 0: any number."""
    refused: Any = None
    recent: ClassVar[deque[float]] = deque()
    lock = threading.Lock()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).split("/")
        if parts[-1] == "hubs":
            self.answer(json.dumps({"data": [{"type": "hubs", "id": "b.hub"}]}).encode())
        elif parts[-1] == "topFolders":
            self.answer(json.dumps({"data": [folder(0)]}).encode())
        elif self.too_many():
            self.answer(b"{}", 429)
        else:
            with self.listed.get_lock():
                self.listed.value += 1
            time.sleep(self.latency * (self.window.value or 60) / 60)
            number = int(parts[-2][-22:])
            self.answer(self.contents(number))
            self.answered[number] += 1

    def too_many(self) -> bool:
        if not self.window.value:
            return False
        now = time.monotonic()
        with self.lock:
            while self.recent and self.recent[0] <= now - self.window.value:
                self.recent.popleft()
            if len(self.recent) < PER_MINUTE:
                self.recent.append(now)
                return False
        self.refused.value += 1
        return True

    @classmethod
    @lru_cache(maxsize=4000)
    def contents(cls, n: int) -> bytes:
        if n == 0:
            below = range(1, min(FANOUT, cls.folders - 1) + 1)
        else:
            below = range(n + FANOUT, cls.folders, FANOUT) if n <= FANOUT else range(0)
        share = cls.files // cls.folders
        rows = [file(i) for i in range(n * share, (n + 1) * share)]
        data = [*map(folder, below), *(item for item, _ in rows)]
        return json.dumps({"data": data, "included": [tip for _, tip in rows]}).encode()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(json.dumps({"access_token": "bench", "expires_in": 36000}).encode())

    def answer(self, data: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        return None


class StubServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients are killed here on purpose."""


def serve(
    args: argparse.Namespace, port: Any, listed: Any, answered: Any, window: Any, refused: Any
) -> None:
    Stub.files, Stub.folders, Stub.listed, Stub.answered = (
        args.files,
        args.folders,
        listed,
        answered,
    )
    Stub.window, Stub.refused = window, refused
    Stub.latency = args.latency_ms / 1000
    for n in range(args.folders):
        Stub.contents(n)
    server = StubServer(("127.0.0.1", 0), Stub)
    port.value = server.server_address[1]
    server.serve_forever()


def bare(port: int) -> float:
    """As many threads, one session each: list, parse, follow, keep nothing."""
    base = f"http://127.0.0.1:{port}/data/v1/projects/{PROJECT}/folders"
    todo: queue.Queue[str] = queue.Queue()
    files = [0] * WORKERS

    def crawl(n: int) -> None:
        with requests.Session() as session:
            while True:
                page = session.get(f"{base}/{todo.get()}/contents", timeout=30).json()
                for entry in page["data"]:
                    if entry["type"] == "folders":
                        todo.put(entry["id"])
                    else:
                        files[n] += 1
                todo.task_done()

    began = time.monotonic()
    todo.put(folder(0)["id"])
    for n in range(WORKERS):
        threading.Thread(target=crawl, args=(n,), daemon=True).start()
    todo.join()
    return sum(files) / (time.monotonic() - began)


def faster(home: Path, scale: int) -> RateLimiter:
    """The deployment's own budget, in time that runs ``scale`` times as fast."""
    began = datetime.now(timezone.utc)

    def clock() -> datetime:
        return began + (datetime.now(timezone.utc) - began) * scale

    return SqliteStore(
        home / FILE_NAME, clock=clock, sleep=lambda seconds: time.sleep(seconds / scale)
    ).limiter()


def ours(port: int, home: Path, scale: int = 0) -> tuple[float, int, int]:
    environ = {"APS_BASE_URL": f"http://127.0.0.1:{port}"}
    credentials = Credentials(
        "bench", "the benchmark", {"client_id": "b", "client_secret": "bench"}
    )
    store = open_store(None, home)
    limiter = faster(home, scale) if scale else Unlimited()
    toolbox = Toolbox(limiter=limiter, environ=environ)
    began = time.monotonic()
    connector = SPEC.open(SPEC.details(project_id=PROJECT), credentials, toolbox)
    counts = SyncRun(IDENTITY, connector, store).drain().counts
    return counts.inserted / (time.monotonic() - began), counts.inserted, counts.api_calls


def killed(
    port: int, home: Path, listed: Any, answered: Any, after: int, scale: int
) -> tuple[int, int]:
    """Kill a first sync after some listings, finish it in this process. All listings made, and how
    many were made again although the killed process had their answer."""
    listed.value, answered[:] = 0, [0] * len(answered)
    child = multiprocessing.get_context("fork").Process(target=ours, args=(port, home, scale))
    child.start()
    while listed.value < after and child.is_alive():
        time.sleep(0.001)
    os.kill(child.pid or 0, signal.SIGKILL)
    before = answered[:]
    child.join()
    store = open_store(None, home)
    with store._engine.begin() as conn:  # what 90 seconds would do
        conn.exec_driver_sql("delete from sync_leases")
    store.close()
    ours(port, home, scale)
    twice = sum(1 for was, now in zip(before, answered, strict=True) if was and now > 1)
    return int(listed.value), twice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--folders", type=int, default=1_500)
    parser.add_argument("--latency-ms", type=float, default=300.0)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--scale", type=int, default=0)
    args = parser.parse_args()
    context = multiprocessing.get_context("fork")
    port, listed, refused = (context.Value("i", 0) for _ in range(3))
    window = context.Value("d", 0.0)
    answered = context.Array("i", args.folders)
    server = context.Process(
        target=serve, args=(args, port, listed, answered, window, refused), daemon=True
    )
    server.start()
    while not port.value:
        time.sleep(0.01)
    try:
        with tempfile.TemporaryDirectory() as home:
            base = bare(port.value)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            mine, rows, calls = ours(port.value, Path(home))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"rows written                 {rows}")
            print(f"calls beyond listing pages   {calls - args.folders}")
            print(
                f"throughput ours / bare       {mine / base:.2f}  ({mine:.0f} / {base:.0f} files/s)"
            )
            print(f"peak resident memory         {peak:.0f} MB ({before:.0f} MB before)")
        if args.scale:
            window.value = 60 / args.scale
            with tempfile.TemporaryDirectory() as home:
                pace, rows, calls = ours(port.value, Path(home), args.scale)
            minutes, least = rows / pace * args.scale / 60, args.folders / PER_MINUTE
            print(f"within 300 listings a minute {minutes:.1f} min for {rows} rows", end="")
            print(f" (least possible: {least:.1f}), {refused.value} listings refused")
        if args.kill:
            with tempfile.TemporaryDirectory() as home:
                made, twice = killed(
                    port.value, Path(home), listed, answered, args.folders // 2, args.scale
                )
            print(f"repeated after a kill        {made - args.folders} of {args.folders} listings,")
            print(f"                             {twice} of them had been answered")
    finally:
        server.kill()


if __name__ == "__main__":
    main()
