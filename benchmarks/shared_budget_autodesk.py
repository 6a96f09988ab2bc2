"""Twenty Autodesk endpoints of one app, one with 200,000 files: how long do the others wait?

Each endpoint is a process of its own; all share one budget of 300 listings a minute, which the
sandbox enforces, in time that runs ``--scale`` times as fast. Everybody begins with a first sync at
the same moment. While the big one's goes on, each small endpoint ticks at its own moment of the
interval: once with a change in each of its folders, then with none.

Prints, for each small endpoint, how long first sync, changed and idle tick took, in intervals of
five minutes; the longest of each; when the big one was done, and how many calls were refused.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from file_connector.connectors.autodesk.spec import SPEC
from file_connector.connectors.base import Credentials, RateLimiter, Toolbox
from file_connector.destination.open import FILE_NAME, open_store
from file_connector.destination.sqlite import SqliteStore
from file_connector.models import Identity, Outcome
from file_connector.sandbox import Sandbox
from file_connector.sandbox.faults import delay
from file_connector.sync.run import SyncRun

INTERVAL = 300.0
LATENCY = 0.3
PER_MINUTE = 300
SMALL_FOLDERS = 8
FILES_IN_SMALL = 10


def serve(args: argparse.Namespace, line: Connection) -> None:
    """The provider; a project's number on ``line`` changes a file in each of its folders."""
    with Sandbox() as sandbox:
        aps = sandbox.aps
        hub = aps.add_hub()
        projects, items = [], []
        for n in range(args.endpoints):
            project = aps.add_project(f"Project {n}", hub)
            root = aps.project_files(project)
            folders = args.folders if n == 0 else SMALL_FOLDERS
            files = args.files // args.folders if n == 0 else FILES_IN_SMALL
            nests = [aps.add_folder(f"Nest {m}", root) for m in range(max(folders // 50, 1))]
            rest = [
                aps.add_folder(f"Folder {m}", nests[m % len(nests)])
                for m in range(folders - len(nests) - 1)
            ]
            items.append([aps.add_items(files, f)[0] for f in [root, *nests, *rest]])
            projects.append(project)
        sandbox.clock.advance(minutes=1)
        sandbox.aps_api.limits.enabled = True
        sandbox.aps_api.limits.scale = args.scale
        sandbox.faults.add(delay(LATENCY / args.scale), kind="aps.*", times=None)
        line.send((sandbox.aps_base_url, sandbox.aps_credentials(), hub, projects))
        while (changed := line.recv()) is not None:
            for item in items[changed]:
                aps.upload(item)
            sandbox.clock.advance(minutes=1)
            line.send("changed")
        refused = sum(call.status == 429 for call in sandbox.log.calls())
        line.send(refused)


def faster(home: Path, scale: float) -> RateLimiter:
    """The deployment's own budget, in time that runs ``scale`` times as fast."""
    began = datetime.now(timezone.utc)

    def clock() -> datetime:
        return began + (datetime.now(timezone.utc) - began) * scale

    def sleep(seconds: float) -> None:
        time.sleep(seconds / scale)

    return SqliteStore(home / FILE_NAME, clock=clock, sleep=sleep).limiter()


class Endpoint:
    """One endpoint's process: what it does when, and how long each took."""

    def __init__(self, n: int, home: Path, scale: float, site: Any, began: float) -> None:
        url, data, hub, projects = site
        self.n, self.home, self.scale, self.began = n, home, scale, began
        self.identity = Identity(f"e{n:02d}", SPEC.type, f"project-{n}", "ana")
        self.details = SPEC.details(project_id=projects[n], hub_id=hub)
        self.credentials = Credentials("bench", "the benchmark", data)
        self.environ = {"APS_BASE_URL": url}

    def run(self) -> float:
        """One incremental run; what it took, in intervals."""
        since = time.monotonic()
        store = open_store(None, self.home)
        toolbox = Toolbox(limiter=self.limiter, environ=self.environ)
        connector = SPEC.open(self.details, self.credentials, toolbox)
        report = SyncRun(self.identity, connector, store).drain()
        connector.close()
        store.close()
        if report.outcome is not Outcome.COMPLETE:
            raise RuntimeError(f"{self.identity.endpoint_id}: {report.reason}")
        return (time.monotonic() - since) * self.scale / INTERVAL

    def sleep_until(self, seconds: float) -> None:
        time.sleep(max(self.began + seconds / self.scale - time.monotonic(), 0.0))

    def main(self, wakes: list[float], change: Connection, lock: Any, told: Any) -> None:
        """First sync, then two ticks for each wake; what became of them goes to ``told``."""
        self.limiter = faster(self.home, self.scale)
        try:
            self.sleep_until(0.0)
            took = [self.run()]
            for wake in wakes:
                self.sleep_until(wake)
                with lock:
                    change.send(self.n)
                    change.recv()
                took += [self.run(), self.run()]
        except Exception as error:  # noqa: BLE001 - the parent ends the benchmark with it
            told.put((self.n, None, repr(error)))
        else:
            told.put((self.n, took, (time.monotonic() - self.began) * self.scale / INTERVAL))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", type=int, default=20)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--folders", type=int, default=1_500)
    parser.add_argument("--scale", type=float, default=2.0)
    args = parser.parse_args()
    context = multiprocessing.get_context("fork")
    line, far_end = context.Pipe()
    server = context.Process(target=serve, args=(args, far_end), daemon=True)
    server.start()
    far_end.close()
    site = line.recv()
    lock, told = context.Lock(), context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        open_store(None, home).close()
        began = time.monotonic() + 1.0
        children = []
        for n in range(args.endpoints):
            # Each at its own moment of the interval that begins a minute after the first syncs.
            wakes = [60 + INTERVAL * n / args.endpoints] if n else []
            endpoint = Endpoint(n, home, args.scale, site, began)
            child = context.Process(target=endpoint.main, args=(wakes, line, lock, told))
            child.start()
            children.append(child)
        answers = {}
        while len(answers) < len(children):
            n, took, done = told.get()
            if took is None:
                raise SystemExit(f"endpoint {n}: {done}")
            answers[n] = took, done
        for child in children:
            child.join()
    line.send(None)
    refused = line.recv()
    server.kill()
    small = [answers[n][0] for n in range(1, args.endpoints)]
    print("endpoint  first sync  changed  idle   (in intervals of 5 minutes)")
    for n, took in enumerate(small, start=1):
        print(f"e{n:02d}       {took[0]:10.2f} {took[1]:8.2f} {took[2]:5.2f}")
    longest = [max(took[i] for took in small) for i in range(3)]
    print("longest   {:10.2f} {:8.2f} {:5.2f}".format(*longest))
    print(f"the big one is done after {answers[0][1]:.2f} intervals; {refused} calls refused")
    print(
        f"least possible for its {args.folders} folders alone: {args.folders / PER_MINUTE / 5:.2f}"
    )


if __name__ == "__main__":
    os.nice(5)
    main()
