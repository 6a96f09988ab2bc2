"""24 hours in which nothing happens: what 20 endpoints cost (S42).

``python -m benchmarks.idle_day [ENDPOINTS] [HOURS]`` makes every tick of the day as the scheduler
does, with a clock moved on from tick to tick, against the sandbox; runs that a tick asks for are
made at once, in this process. It prints runs, provider calls, growth of Dagster's files and of
memory, and fails if a promise is broken.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import yaml

MEGABYTE = 1_000_000
CHECKOUT = Path(__file__).resolve().parent.parent


def main(endpoints: int = 20, hours: float = 24.0) -> None:
    with deployment(endpoints) as day:
        day.run(hours)
        day.report(hours)


@contextlib.contextmanager
def deployment(endpoints: int) -> Iterator[Day]:
    """So many endpoints of both sources, in a folder of their own, against a sandbox."""
    from file_connector.sandbox import ACCOUNT, Sandbox

    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as name, Sandbox() as sandbox:
        folder = Path(name)
        entries: list[dict[str, Any]] = []
        for n in range(endpoints):
            if n % 2:
                project = sandbox.aps.add_project(f"Project {n}")
                sandbox.aps.add_items(50, sandbox.aps.project_files(project))
                details, kind = {"project_id": project}, "autodesk_construction_cloud"
            else:
                root = sandbox.drive.add_folder(f"Folder {n}", shared_with=[ACCOUNT])
                sandbox.drive.add_files(50, root)
                details, kind = {"folder_id": root}, "google_drive"
            entries.append(
                {
                    "name": f"Idle {n}",
                    "endpoint_type": kind,
                    "project_id": "tower-42",
                    "user_id": "ana",
                    "endpoint_details": details,
                    "credentials": "idle",
                }
            )
        (folder / "endpoints.yaml").write_text(yaml.safe_dump({"endpoints": entries}))
        (folder / "dagster.yaml").write_text((CHECKOUT / "dagster.yaml").read_text())
        os.environ.update(
            sandbox.environ,
            FILE_CONNECTOR_ENDPOINTS=str(folder / "endpoints.yaml"),
            GOOGLE_CREDENTIALS__IDLE=json.dumps(sandbox.google_credentials()),
            APS_CREDENTIALS__IDLE=json.dumps(sandbox.aps_credentials()),
        )
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield Day(folder, sandbox)
        finally:
            os.chdir(before)


class Day:
    def __init__(self, folder: Path, sandbox: Any) -> None:
        import dagster as dg
        from dagster._core.instance.ref import InstanceRef

        from file_connector.deployment import Deployment
        from file_connector.orchestration.build import build_definitions

        self.folder = folder
        self.sandbox = sandbox
        self.moment = datetime.now(timezone.utc)
        self.instance = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder)))
        catalog = Deployment.from_environ(os.environ, folder).catalog()
        assert not catalog.problems, catalog.problems
        self.endpoints = catalog.endpoints
        self.defs = build_definitions(catalog, now=lambda: self.moment)
        self.repository = self.defs.get_repository_def()
        self.runs: dict[str, int] = {e.id: 0 for e in self.endpoints}
        self.ticks = 0
        self.seconds: list[float] = []
        self.sizes: list[int] = []
        self.memory: list[int] = []
        self.calls = 0

    def run(self, hours: float) -> None:
        """First syncs; then every tick of the day."""
        from file_connector.destination.sql_store import SqlStore

        # The store's and the run's own clocks follow the day, so that the sweep is due when it is.
        from file_connector.sync import run as sync_run

        sync_run.SyncRun.__init__.__kwdefaults__["now"] = lambda: self.moment  # type: ignore[index]
        SqlStore.__init__.__kwdefaults__["clock"] = lambda: self.moment  # type: ignore[index]
        self.first_syncs()
        begin = self.moment
        steps = round(hours * 12)
        for step in range(steps):
            self.moment = begin + timedelta(minutes=5 * (step + 1))
            for endpoint in self.endpoints:
                self.tick(endpoint)
            if step % 12 == 0:
                self.count_calls()
                self.sizes.append(self.size())
                self.memory.append(rss())

    def first_syncs(self) -> None:
        for endpoint in self.endpoints:
            self.tick(endpoint)
        assert all(count == 1 for count in self.runs.values()), "the first syncs"
        self.runs = dict.fromkeys(self.runs, 0)
        self.sandbox.log.clear()
        self.ticks = 0
        self.seconds.clear()

    def tick(self, endpoint: Any) -> None:
        """As the scheduler does it: a tick in Dagster's books, an evaluation, its outcome."""
        import dagster as dg
        from dagster._core.scheduler.instigation import InstigatorType, TickData, TickStatus

        schedule = self.repository.get_schedule_def(f"{endpoint.id}_schedule")
        began = time.monotonic()
        tick = self.instance.create_tick(
            TickData(
                instigator_origin_id=endpoint.id,
                selector_id=endpoint.id,
                instigator_name=schedule.name,
                instigator_type=InstigatorType.SCHEDULE,
                status=TickStatus.STARTED,
                timestamp=self.moment.timestamp(),
            )
        )
        with dg.build_schedule_context(
            instance=self.instance,
            repository_def=self.repository,
            resources=self.defs.resources,
            scheduled_execution_time=self.moment,
        ) as context:
            data = schedule.evaluate_tick(context)
        if data.skip_message:
            tick = tick.with_status(TickStatus.SKIPPED).with_reason(data.skip_message)
        self.instance.update_tick(tick)
        self.seconds.append(time.monotonic() - began)
        self.ticks += 1
        for request in data.run_requests or ():
            self.runs[endpoint.id] += 1
            job = self.defs.resolve_job_def(f"{endpoint.id}_sync")
            tags = {**job.tags, **request.tags}
            assert job.execute_in_process(instance=self.instance, tags=tags).success

    def count_calls(self) -> None:
        """The sandbox, which lives in this process, need not remember what is counted."""
        self.calls += self.sandbox.log.count()
        self.sandbox.log.clear()

    def size(self) -> int:
        history = self.folder / ".file_connector" / "dagster"
        return sum(f.stat().st_size for f in history.rglob("*") if f.is_file())

    def report(self, hours: float) -> None:
        self.count_calls()
        share = 24 / hours / len(self.endpoints)
        growth = (self.size() - self.sizes[0]) * share / MEGABYTE
        heap = (self.memory[-1] - self.memory[len(self.memory) // 2]) / MEGABYTE
        self.seconds.sort()
        print(f"{len(self.endpoints)} endpoints, {hours:g} simulated hours, {self.ticks} ticks")
        print(f"runs per endpoint: {sorted(set(self.runs.values()))}")
        print(f"provider calls per endpoint and day: {self.calls * share:.0f}")
        print(f"Dagster's files grow by {growth:.2f} MB per endpoint and day")
        print(f"memory: {self.memory[0] / MEGABYTE:.0f} MB, {heap:+.1f} MB in the second half")
        p95 = self.seconds[int(len(self.seconds) * 0.95)]
        print(f"a tick: median {self.seconds[len(self.seconds) // 2]:.3f} s, p95 {p95:.3f} s")
        assert max(self.runs.values()) <= -(-hours // 24), "more than one run a day"
        assert growth <= 1.0, "the event log grows by more than 1 MB a day and endpoint"
        assert heap < 20, "memory grows"


def rss() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmRSS"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    main(*(int(a) for a in sys.argv[1:2]), *(float(a) for a in sys.argv[2:3]))
