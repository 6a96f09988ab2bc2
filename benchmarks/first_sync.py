"""First sync of one big shared drive, against a bare loop that lists it and drops the rows.

A stub server in a process of its own lists ``--files`` files, 1,000 a page, each page after
``--latency-ms`` (a real listing of 1,000 files takes some hundred milliseconds). Both loops use the
same Google client. Prints: throughput ratio (ours / bare), peak resident memory, with ``--kill``
also how many files a killed first sync lists again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import resource
import signal
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from file_connector.connectors.base import Credentials, Toolbox
from file_connector.connectors.google_drive import SPEC
from file_connector.connectors.google_drive.client import DriveClient
from file_connector.destination.open import open_store
from file_connector.models import Identity
from file_connector.sync.run import SyncRun

DRIVE = "0ABenchmarkSharedDrive"
PAGE = 1000
FOLDERS = 200
IDENTITY = Identity("big", "google_drive", "benchmark", "benchmark")


def page_body(start: int, total: int) -> bytes:
    """One page of the listing: a few folders first, then files spread over them."""
    items = []
    for n in range(start, min(start + PAGE, total)):
        folder = n < FOLDERS
        item: dict[str, Any] = {
            "id": f"1{n:032d}",
            "name": f"Folder {n}" if folder else f"Drawing {n:07d} rev B.pdf",
            "mimeType": "application/vnd.google-apps.folder" if folder else "application/pdf",
            "parents": [DRIVE if folder else f"1{n % FOLDERS:032d}"],
            "driveId": DRIVE,
            "webViewLink": f"https://drive.google.com/file/d/1{n:032d}/view?usp=drivesdk",
            "createdTime": "2024-05-01T10:00:00.000Z",
            "modifiedTime": f"2025-0{n % 9 + 1}-11T12:34:56.789Z",
            "trashed": False,
            "version": str(n % 50 + 1),
        }
        if not folder:
            item |= {"size": str(n), "md5Checksum": f"{n:032x}", "headRevisionId": f"{n:x}"}
        items.append(item)
    body: dict[str, Any] = {"files": items, "incompleteSearch": False}
    if start + PAGE < total:
        body["nextPageToken"] = f"at-{start + PAGE}"
    return json.dumps(body).encode()


class Stub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    total = 0
    latency = 0.0
    listed: Any = None

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if url.path.endswith("/changes/startPageToken"):
            self.answer({"startPageToken": "1"})
        elif url.path.endswith("/changes"):
            self.answer({"changes": [], "newStartPageToken": "1"})
        elif url.path.endswith(f"/drives/{DRIVE}"):
            self.answer({"id": DRIVE, "name": "Benchmark"})
        elif re.search(r"/files/[^/]+$", url.path):
            self.answer(
                {
                    "id": DRIVE,
                    "name": "Benchmark",
                    "mimeType": "application/vnd.google-apps.folder",
                    "driveId": DRIVE,
                    "trashed": False,
                }
            )
        else:
            q = query.get("q", [""])[0]
            only_folders = "mimeType = " in q
            first = FOLDERS if "mimeType != " in q else 0
            start = int(query.get("pageToken", [f"at-{first}"])[0].removeprefix("at-"))
            time.sleep(self.latency)
            self.listed.value += 1
            self.answer(page_body(start, FOLDERS if only_folders else self.total))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer({"access_token": "bench", "expires_in": 36000, "token_type": "Bearer"})

    def answer(self, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        return None


class StubServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients are killed here on purpose."""


def serve(total: int, latency: float, port: Any, listed: Any) -> None:
    Stub.total, Stub.latency, Stub.listed = total, latency, listed
    server = StubServer(("127.0.0.1", 0), Stub)
    port.value = server.server_address[1]
    server.serve_forever()


def connector(port: int) -> Any:
    credentials = Credentials(
        "bench",
        "the benchmark",
        {
            "type": "authorized_user",
            "client_id": "bench",
            "client_secret": "bench-secret",
            "refresh_token": "bench-refresh",
            "token_uri": f"http://127.0.0.1:{port}/token",
        },
    )
    environ = {"GOOGLE_DRIVE_API_ENDPOINT": f"http://127.0.0.1:{port}/drive/v3/"}
    return SPEC.open(SPEC.details(drive_id=DRIVE), credentials, Toolbox(environ=environ))


def bare(port: int) -> float:
    """List every page with the same client and the same mask; keep nothing."""
    client: DriveClient = connector(port)._client
    query = {"q": "trashed = false", "corpora": "drive", "driveId": DRIVE}
    began, token, files = time.monotonic(), None, 0
    while True:
        page = client.files(query, token)
        files += len(page.items)
        token = page.next_token
        if token is None:
            return files / (time.monotonic() - began)


def ours(port: int, home: Path) -> tuple[float, int]:
    store = open_store(None, home)
    began = time.monotonic()
    report = SyncRun(IDENTITY, connector(port), store).drain()
    return report.counts.inserted / (time.monotonic() - began), report.counts.inserted


def killed(port: int, home: Path, listed: Any, after_pages: int) -> int:
    """Kill a first sync after some pages, finish it in another process; pages listed twice."""
    listed.value = 0
    child = multiprocessing.Process(target=ours, args=(port, home))
    child.start()
    while listed.value < after_pages and child.is_alive():
        time.sleep(0.01)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    store = open_store(None, home)
    with store._engine.begin() as conn:  # what 90 seconds would do
        conn.exec_driver_sql("delete from sync_leases")
    store.close()
    ours(port, home)
    return int(listed.value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--latency-ms", type=float, default=300.0)
    parser.add_argument("--kill", action="store_true")
    args = parser.parse_args()
    context = multiprocessing.get_context("fork")
    port, listed = context.Value("i", 0), context.Value("i", 0)
    server = context.Process(
        target=serve, args=(args.files, args.latency_ms / 1000, port, listed), daemon=True
    )
    server.start()
    while not port.value:
        time.sleep(0.01)
    try:
        with tempfile.TemporaryDirectory() as folder:
            base = bare(port.value)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            listed.value = 0
            mine, rows = ours(port.value, Path(folder))
            pages = listed.value
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"rows written                 {rows}")
            print(
                f"throughput ours / bare       {mine / base:.2f}  ({mine:.0f} / {base:.0f} files/s)"
            )
            print(f"peak resident memory         {peak:.0f} MB ({before:.0f} MB before)")
        if args.kill:
            with tempfile.TemporaryDirectory() as folder:
                again = killed(port.value, Path(folder), listed, pages // 2) - pages
                print(f"pages listed again after a kill  {again} of {pages}")
    finally:
        server.kill()


if __name__ == "__main__":
    main()
