"""One deployment of many endpoints in a folder, a sandbox for its providers, and the daemon's work
done step by step: a tick, the queue, a backfill. Runs are processes of their own."""

from __future__ import annotations

import itertools
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.instance.ref import InstanceRef
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.remote_representation.external import RemoteSchedule
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorTick,
    InstigatorType,
    ScheduleInstigatorData,
    TickStatus,
)
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import (
    QueuedRunCoordinatorDaemon,
)
from dagster._grpc.types import ExecuteRunArgs
from dagster._scheduler.scheduler import launch_scheduled_runs_for_schedule_iterator
from dagster._serdes import serialize_value
from dagster_shared.error import SerializableErrorInfo
from sqlalchemy import update

import file_connector
from file_connector.connectors.base import Toolbox
from file_connector.destination.base import RunRow
from file_connector.destination.open import open_store
from file_connector.destination.sql_store import SqlStore
from file_connector.destination.tables import sync_leases, sync_runs, sync_state
from file_connector.models import Identity, Outcome, RunReport, SyncState
from file_connector.orchestration.factory import asset_key
from file_connector.orchestration.runs import ENDPOINT_TAG
from file_connector.orchestration.storage import POSTGRES_VARIABLE
from file_connector.sandbox import Sandbox
from file_connector.sandbox.faults import before as before_request
from file_connector.sync.plan import next_sweep_at
from file_connector.sync.run import SyncRun
from file_connector.times import utc_now
from file_connector_tests.crashes.child import CLOCK_VARIABLE, Death
from file_connector_tests.crashes.launcher import ZygoteLauncher
from file_connector_tests.faults.worlds import disturb, populate
from file_connector_tests.histories.machine import rows_of
from file_connector_tests.histories.stages import STAGES, Stage, World

CHECKOUT = Path(file_connector.__file__).parent.parent
LOCATION = "file_connector_tests.crashes.location"
PATIENCE = 120.0
"""Seconds after which a wait has failed; every wait is for a condition, so only a busy machine or
a broken product takes long."""

ENDPOINTS = {"drive": 75, "autodesk": 55}
OLD_FROM = {"drive_0": "2026-02-01", "autodesk_0": "2026-02-01"}
"""Endpoints whose partitions begin early. The others' begin yesterday: each day covered costs
Dagster two events."""

TYPES = {"drive": "google_drive", "autodesk": "autodesk_construction_cloud"}
TICK = timedelta(minutes=5)
LIVING = {
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """The first true answer of ``condition``."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.02)
    return answer


@contextmanager
def dagsters_own_warnings_ignored() -> Iterator[None]:
    """Its snapshots and backfills use what it deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


class Hold:
    """A request that is not answered until we say so."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._go = threading.Event()

    def __call__(self) -> None:
        self._reached.set()
        self._go.wait(3 * PATIENCE)

    def reached(self, seconds: float = PATIENCE) -> None:
        assert self._reached.wait(seconds), "nobody asks the provider anything"

    def let_go(self) -> None:
        self._go.set()


class Child:
    """A process of the zygote."""

    def __init__(self, log: Path) -> None:
        self.log = log
        """Its stdout and stderr."""
        self.pid: int | None = None
        self.status: int | None = None
        self._begun = threading.Event()
        self._ended = threading.Event()

    def begun(self, pid: int) -> None:
        self.pid = pid
        self._begun.set()

    def ended(self, status: int) -> None:
        self.status = status
        self._ended.set()

    @property
    def running(self) -> bool:
        return not self._ended.is_set()

    def signal(self, number: int = signal.SIGKILL) -> None:
        assert self._begun.wait(PATIENCE)
        assert self.pid is not None
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(self.pid, number)

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait(self) -> int:
        """The exit code; negative: died of that signal."""
        assert self._ended.wait(PATIENCE), "the process does not end"
        assert self.status is not None
        return os.waitstatus_to_exitcode(self.status)


class Zygote:
    """See the module of this name."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = dict(environ)
        self._orders: dict[int, Child] = {}
        self._children: dict[int, Child] = {}
        self._numbers = itertools.count()
        self._ready = threading.Event()
        self._lock = threading.Lock()
        with (folder / "zygote.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "file_connector_tests.crashes.zygote"],
                cwd=folder,
                env=self._environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, program: str, args: Sequence[str], death: Death | None = None) -> Child:
        if not self._ready.wait(PATIENCE):
            raise AssertionError((self._folder / "zygote.log").read_text())
        number = next(self._numbers)
        child = Child(self._folder / f"child-{number}.log")
        with self._lock:
            self._orders[number] = child
        order = {
            "order": number,
            "program": program,
            "args": list(args),
            "folder": str(self._folder),
            "environ": self._environ,
            "log": str(child.log),
            "death": death.to_json() if death else None,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return child

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "ready" in message:
                self._ready.set()
            elif "order" in message:
                child = self._children[message["pid"]] = self._orders.pop(message["order"])
                child.begun(message["pid"])
            else:
                self._children.pop(message["pid"]).ended(message["status"])

    def close(self) -> None:
        for child in list(self._children.values()):
            child.signal()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Plot:
    """One endpoint and its world."""

    def __init__(self, endpoint_id: str, source: str, stage: Stage) -> None:
        self.id = endpoint_id
        self.source = source
        self.stage = stage
        self.identity = Identity(endpoint_id, TYPES[source], "tower-42", "ana")
        self.ids: dict[str, str] = {}

    def details(self) -> dict[str, str]:
        if self.source == "drive":
            return {"folder_id": self.stage.root}
        return {"project_id": self.stage._project}  # type: ignore[attr-defined]


def operator_writes(
    folder: Path, sandbox: Sandbox, plots: Iterable[Plot], **entry: Any
) -> dict[str, str]:
    """The files an operator writes; the environment of the deployment's processes."""
    yesterday = utc_now().date() - timedelta(days=1)
    entries = [
        {
            "name": plot.id,
            "id": plot.id,
            "endpoint_type": TYPES[plot.source],
            "project_id": "tower-42",
            "user_id": "ana",
            "endpoint_details": plot.details(),
            "credentials": "crash",
            "start_date": OLD_FROM.get(plot.id, yesterday),
            **entry,
        }
        for plot in plots
    ]
    (folder / "endpoints.yaml").write_text(yaml.safe_dump({"endpoints": entries}))
    (folder / "dagster.yaml").write_text((CHECKOUT / "dagster.yaml").read_text())
    (folder / "clock").write_text("0")
    kept = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "TMPDIR")
    environ = {name: os.environ[name] for name in kept if name in os.environ}
    return environ | {
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONWARNINGS": "ignore",
        "FILE_CONNECTOR_ENDPOINTS": str(folder / "endpoints.yaml"),
        "GOOGLE_CREDENTIALS__CRASH": json.dumps(sandbox.google_credentials()),
        "APS_CREDENTIALS__CRASH": json.dumps(sandbox.aps_credentials()),
        CLOCK_VARIABLE: str(folder / "clock"),
        **sandbox.environ,
    }


def age(store: SqlStore, plot: Plot, span: timedelta) -> None:
    """The lease's end comes nearer by ``span``; what ended, ended so much longer ago."""
    mine = sync_leases.c.endpoint_id == plot.id
    with store._engine.begin() as conn:
        for lease in conn.execute(sync_leases.select().where(mine)).all():
            conn.execute(update(sync_leases).where(mine).values(expires_at=lease.expires_at - span))
        ended = (sync_runs.c.endpoint_id == plot.id) & sync_runs.c.ended_at.is_not(None)
        for run in conn.execute(sync_runs.select().where(ended)).all():
            conn.execute(
                update(sync_runs)
                .where(sync_runs.c.run_id == run.run_id)
                .values(started_at=run.started_at - span, ended_at=run.ended_at - span)
            )


def one_after_the_other(store: SqlStore, plot: Plot) -> bool:
    """Whether no two runs of the endpoint ever wrote at the same time."""
    spans = sorted((r.started_at, r.ended_at) for r in store.runs(plot.id))
    return all(
        ended is not None and ended <= begins
        for (_, ended), (begins, _) in itertools.pairwise(spans)
    )


class House:
    """See the module. ``database_url`` is the destination, ``history_url`` holds what Dagster
    remembers; None takes SQLite."""

    def __init__(
        self,
        folder: Path,
        sandbox: Sandbox,
        database_url: str | None = None,
        history_url: str | None = None,
        *,
        endpoints: Mapping[str, int] = ENDPOINTS,
    ) -> None:
        self.folder = folder
        self.sandbox = sandbox
        world = World(sandbox)
        self.plots = {
            f"{source}_{n}": Plot(f"{source}_{n}", source, STAGES[source](world))
            for source, count in endpoints.items()
            for n in range(count)
        }
        self._fresh = {
            source: iter(
                [p for p in self.plots.values() if p.source == source and p.id not in OLD_FROM]
            )
            for source in endpoints
        }
        self.environ = operator_writes(folder, sandbox, self.plots.values())
        if database_url:
            self.environ["SUPABASE_DB_URL"] = database_url
        if history_url:
            self.environ[POSTGRES_VARIABLE] = history_url
        self.clock = folder / "clock"
        launcher = {"module": ZygoteLauncher.__module__, "class": ZygoteLauncher.__name__}
        with (folder / "dagster.yaml").open("a") as file:
            file.write(yaml.safe_dump({"run_launcher": launcher}))
        self.zygote = Zygote(folder, self.environ)
        self.store = open_store(database_url, folder / ".file_connector")
        self.store.migrate()
        self._closing = ExitStack()
        self._launched: queue.SimpleQueue[Child] = queue.SimpleQueue()
        self._death: Death | None = None
        self._last: Child | None = None
        with self.entered(), dagsters_own_warnings_ignored():
            self.instance = self._closing.enter_context(
                dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder)))
            )
            origin = InProcessCodeLocationOrigin(
                LoadableTargetOrigin(
                    executable_path=sys.executable,
                    module_name=LOCATION,
                    working_directory=str(CHECKOUT),
                ),
                location_name="file_connector",
            )
            self.workspace: WorkspaceProcessContext = self._closing.enter_context(
                create_test_daemon_workspace_context(
                    InProcessWorkspaceLoadTarget(origin), self.instance
                )
            )
        self._numbers = itertools.count()
        self._queue = QueuedRunCoordinatorDaemon(interval_seconds=1)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This process as one of the deployment's."""
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - self.environ.keys() - {"PYTEST_CURRENT_TEST"}:
                patch.delenv(name)
            for name, value in self.environ.items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            patch.setattr(ZygoteLauncher, "start", staticmethod(self._start_run))
            yield

    def close(self) -> None:
        self.zygote.close()
        with self.entered():
            self._closing.close()
        self.store.close()

    # -- the world -------------------------------------------------------------------------------

    def plot(
        self, source: str, *, synced: bool = False, disturbed: bool = False, old: bool = False
    ) -> Plot:
        """An endpoint nobody has used yet; ``old``: the one with many partitions."""
        self.sandbox.faults.clear()
        self.clock.write_text("0")
        for run in self.instance.get_runs(dg.RunsFilter(statuses=list(LIVING))):
            self.instance.report_run_failed(run, "left over by a test that failed")
        plot = self.plots[f"{source}_0"] if old else self._undue(source)
        plot.ids = populate(plot.stage)
        if synced:
            self.sync(plot)
        if disturbed:
            disturb(plot.stage, plot.ids)
        return plot

    def _undue(self, source: str) -> Plot:
        """The next endpoint whose daily sweep is hours away, whatever time of day it is."""
        now = utc_now()
        for plot in self._fresh[source]:
            due = next_sweep_at(plot.id, SyncState(plot.id, swept_at=now))
            if due is not None and due - now > timedelta(hours=3):
                return plot
        raise AssertionError("more endpoints are needed")

    def sync(self, plot: Plot, *, now: Callable[[], datetime] = utc_now) -> RunReport:
        """One run in this process."""
        toolbox = Toolbox(
            retry_budget_seconds=0.0, sleep=lambda seconds: None, environ=self.sandbox.environ
        )
        connector = plot.stage.connector(toolbox)
        try:
            return SyncRun(plot.identity, connector, self.store, now=now).drain()
        finally:
            connector.close()

    def pass_time(self, plot: Plot, span: timedelta) -> None:
        """Time passes: the ticks' clock goes on, and the store's."""
        self.pass_clock(span)
        age(self.store, plot, span)

    def pass_clock(self, span: timedelta) -> None:
        """Time passes, and whoever lives renews his lease."""
        self.clock.write_text(str(float(self.clock.read_text()) + span.total_seconds()))

    def make_sweep_due(self, plot: Plot) -> None:
        with self.store._engine.begin() as conn:
            conn.execute(
                update(sync_state)
                .where(sync_state.c.endpoint_id == plot.id)
                .values(swept_at=utc_now() - timedelta(hours=25))
            )

    def now(self) -> datetime:
        return utc_now() + timedelta(seconds=float(self.clock.read_text()))

    # -- the daemon, step by step ----------------------------------------------------------------

    def schedule(self, plot: Plot) -> RemoteSchedule:
        location = self.workspace.create_request_context().get_code_location("file_connector")
        (repository,) = location.get_repositories().values()
        return repository.get_schedule(f"{plot.id}_schedule")

    def tick(self, plot: Plot, *, lease_renewed: bool = False) -> InstigatorTick:
        """The next tick of the endpoint's schedule, as the scheduler makes it; it may submit a run
        to the queue."""
        schedule = self.schedule(plot)
        due = next(schedule.execution_time_iterator(self.now().timestamp() + 1))
        span = due - self.now() + timedelta(seconds=1)
        if lease_renewed:
            self.pass_clock(span)
        else:
            self.pass_time(plot, span)
        origin, selector = schedule.get_remote_origin_id(), schedule.selector_id
        since = due.timestamp() - 1
        state = self.instance.get_instigator_state(origin, selector)
        data = ScheduleInstigatorData(schedule.cron_schedule, since)
        if state is None:
            state = self.instance.add_instigator_state(
                InstigatorState(
                    schedule.get_remote_origin(),
                    InstigatorType.SCHEDULE,
                    InstigatorStatus.DECLARED_IN_CODE,
                    data,
                )
            )
        errors = [
            error
            for error in launch_scheduled_runs_for_schedule_iterator(
                self.workspace,
                logging.getLogger("crashes"),
                schedule,
                state.with_data(data),
                due.astimezone(timezone.utc),
                0,
                0,
                self.instance.get_tick_retention_settings(InstigatorType.SCHEDULE),
                None,
                None,
                None,
            )
            if isinstance(error, SerializableErrorInfo)
        ]
        assert not errors, [error.to_string() for error in errors]
        (tick,) = self.instance.get_ticks(origin, selector, limit=1)
        assert tick.timestamp == due.timestamp()
        assert tick.status in (TickStatus.SUCCESS, TickStatus.SKIPPED)
        return tick

    def command(self, *args: str, death: Death | None = None) -> Child:
        """``file-connector ARGS...`` as a process."""
        return self.zygote.start("command_line", args, death)

    def dequeue(self, death: Death | None = None) -> list[Child]:
        """What the queue may launch now is launched."""
        self._death = death
        try:
            for _ in self._queue.run_iteration(self.workspace):
                pass
        finally:
            self._death = None
        children = []
        while not self._launched.empty():
            self._last = self._launched.get()
            children.append(self._last)
        return children

    def _start_run(self, run: dg.DagsterRun) -> None:
        assert run.job_code_origin is not None
        args = ExecuteRunArgs(
            job_origin=run.job_code_origin, run_id=run.run_id, instance_ref=self.instance.get_ref()
        )
        self._launched.put(self.zygote.start("dagster_run", [serialize_value(args)], self._death))

    def runs(self, plot: Plot) -> list[dg.DagsterRun]:
        """Newest first."""
        return list(self.instance.get_runs(dg.RunsFilter(tags={ENDPOINT_TAG: plot.id})))

    def strike(self, request: int, action: Callable[[], object]) -> Any:
        """Do this before the n-th request from now on is answered; the rule."""
        return self.sandbox.faults.add(before_request(action), kind="*", nth=request)

    def hold(self, request: int = 2) -> Hold:
        """The n-th request from now on waits."""
        hold = Hold()
        self.strike(request, hold)
        return hold

    def backfill(self, plot: Plot, days: Sequence[str]) -> list[dg.DagsterRun]:
        """The UI's backfill of these days, as the backfill daemon submits it; its runs, queued."""
        with dagsters_own_warnings_ignored():
            return self._backfill(plot, days)

    def _backfill(self, plot: Plot, days: Sequence[str]) -> list[dg.DagsterRun]:
        context = self.workspace.create_request_context()
        backfill_id = f"backfill{next(self._numbers)}"
        self.instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id=backfill_id,
                asset_graph=context.asset_graph,
                partition_names=list(days),
                asset_selection=[asset_key(plot.id)],
                backfill_timestamp=time.time(),
                tags={},
                dynamic_partitions_store=self.instance,
                all_partitions=False,
                title=None,
                description=None,
                run_config=None,
            )
        )

        def runs() -> list[dg.DagsterRun]:
            return list(
                self.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
            )

        def iterate() -> bool:
            for error in execute_backfill_iteration(self.workspace, logging.getLogger("crashes")):
                assert error is None, error.to_string()
            return bool(runs())

        wait_for(iterate, "the backfill's run")
        iterate()
        return runs()

    def materialize(self, plot: Plot, days: tuple[str, str] | None = None) -> dg.DagsterRun:
        """What the UI's Materialize does: a run of the asset over a range of its partitions (the
        last one by default), queued."""
        today = utc_now().date().isoformat()
        first, last = days or (today, today)
        context = self.workspace.create_request_context()
        location = context.get_code_location("file_connector")
        (repository,) = location.get_repositories().values()
        job = repository.get_full_job(f"{plot.id}_sync")
        selection = frozenset({asset_key(plot.id)})
        job = location.get_job(job.get_subset_selector(selection, set()))
        tags = {
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
        }
        plan = location.get_execution_plan(job, {}, None, None)
        run = self.instance.create_run(
            job_name=job.name,
            run_id=None,
            run_config={},
            status=dg.DagsterRunStatus.NOT_STARTED,
            tags=tags,
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=job.job_snapshot,
            parent_job_snapshot=job.parent_job_snapshot,
            asset_selection=selection,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
            asset_graph=repository.asset_graph,
        )
        return self.instance.submit_run(run.run_id, context)

    # -- the promise -----------------------------------------------------------------------------

    def live(self, plot: Plot) -> dict[str, Any]:
        held = rows_of(self.store, plot.id)
        return {i: seen for i, (seen, gone) in held.items() if not gone}

    def true(self, plot: Plot) -> bool:
        return self.live(plot) == dict(plot.stage.truth())

    def open_runs(self, plot: Plot) -> list[RunRow]:
        return [r for r in self.store.runs(plot.id) if r.outcome is None]

    def heals(self, plot: Plot, ticks: int = 3) -> int:
        """With ticks alone, and within so many, the endpoint is healthy; how many runs it took."""
        self.sandbox.faults.clear()
        ran = 0
        for _ in range(ticks):
            self.pass_time(plot, TICK)
            self.tick(plot)
            for child in self.dequeue():
                child.wait()
                ran += 1
            if self.healthy(plot):
                return ran
        raise AssertionError(self.story(plot))

    def healthy(self, plot: Plot) -> bool:
        unfinished = [r for r in self.runs(plot) if r.status in LIVING]
        newest = self.store.runs(plot.id, limit=1)
        return (
            self.true(plot)
            and not unfinished
            and not self.open_runs(plot)
            and bool(newest)
            and newest[0].outcome is Outcome.COMPLETE
        )

    def story(self, plot: Plot) -> str:
        """What happened to an endpoint, for a test that failed."""
        schedule = self.schedule(plot)
        ticks = self.instance.get_ticks(
            schedule.get_remote_origin_id(), schedule.selector_id, limit=5
        )
        lines = [f"tick {t.status.value}: {t.skip_reason or t.error or t.run_ids}" for t in ticks]
        lines += [f"dagster {r.run_id[:8]} {r.status.value}" for r in self.runs(plot)]
        lines += [f"sync {r.run_id[:8]} {r.outcome} {r.reason}" for r in self.store.runs(plot.id)]
        lines += [f"true: {self.true(plot)}"]
        if self._last is not None:
            lines.append(self._last.said[-3000:])
        return "\n".join(lines)
