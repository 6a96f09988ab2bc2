"""The whole of Dagster as it is deployed (daemon, code server, runs by the default launcher), each
a process, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.events import EngineEventData
from dagster._core.instance.ref import InstanceRef
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorTick,
    InstigatorType,
    ScheduleInstigatorData,
    TickStatus,
)
from dagster._core.storage.tags import SCHEDULED_EXECUTION_TIME_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from file_connector.destination.open import open_store
from file_connector.models import Outcome
from file_connector.orchestration.runs import ENDPOINT_TAG
from file_connector.orchestration.storage import POSTGRES_VARIABLE
from file_connector.sandbox import Sandbox
from file_connector.sandbox.faults import before as before_request
from file_connector.times import utc_now
from file_connector_tests.crashes.child import CLOCK_VARIABLE
from file_connector_tests.crashes.house import (
    LOCATION,
    Hold,
    Plot,
    age,
    one_after_the_other,
    operator_writes,
    wait_for,
)
from file_connector_tests.faults.worlds import populate
from file_connector_tests.histories.machine import rows_of
from file_connector_tests.histories.stages import STAGES, World

Status = dg.DagsterRunStatus
START_SECONDS = 240.0
"""A daemon, its code server and a run each need seconds to start; many more on a busy machine."""

CRON = f"{(utc_now() - timedelta(minutes=5)).minute} * * * *"
"""Hourly, and not due by itself while the tests run."""


class Town:
    """A deployment with real daemons. Its schedules tick hourly, that is, only when we let an hour
    pass by dating their beginning back."""

    def __init__(self, folder: Path, sandbox: Sandbox, history_url: str) -> None:
        self.folder = folder
        self.sandbox = sandbox
        world = World(sandbox)
        self.plots = [Plot(f"{s}_town", s, STAGES[s](world)) for s in ("drive", "autodesk")]
        self.environ = operator_writes(
            folder, sandbox, self.plots, schedule={"type": "cron", "cron": CRON}
        )
        self.environ["DAGSTER_HOME"] = str(folder)
        if history_url:
            self.environ[POSTGRES_VARIABLE] = history_url
        (folder / "workspace.yaml").write_text(
            yaml.safe_dump(
                {
                    "load_from": [
                        {"python_module": {"module_name": LOCATION, "location_name": "town"}}
                    ]
                }
            )
        )
        self.store = open_store(None, folder / ".file_connector")
        self.store.migrate()
        self.instance: dg.DagsterInstance = dg.DagsterInstance.from_ref(
            InstanceRef.from_dir(str(folder))
        )
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._states: dict[str, InstigatorState] = {}
        self._ticks_before: dict[str, int] = {}

    def close(self) -> None:
        for daemon in self._daemons:
            self.kill(daemon)
        self.instance.dispose()
        self.store.close()

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "daemon.log").open("ab") as log:
            daemon = subprocess.Popen(
                [*(sys.executable, "-m", "dagster._daemon", "run", "-w", "workspace.yaml")],
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._daemons.append(daemon)
        return daemon

    def kill(self, daemon: subprocess.Popen[bytes], *, sparing: Sequence[int] = ()) -> None:
        """kill -9 of the daemon and all that came of it, but ``sparing``."""

        def all_dead() -> bool:
            doomed = [pid for pid in family(daemon.pid) if pid not in sparing]
            for pid in doomed:
                with suppress(ProcessLookupError):  # it ended by itself since we looked
                    os.kill(pid, signal.SIGKILL)
            return not doomed

        wait_for(all_dead, "the death of all")
        daemon.wait()

    def hour_passes(self, *, lease: bool = True) -> None:
        """The schedules are due at once; leases that nobody renews are over, unfinished runs have
        said nothing since. Only what is there already ages: with a clock put forward, a run just
        created by one daemon would look silent to the other."""
        for plot in self.plots:
            if lease:
                age(self.store, plot, timedelta(hours=1))
            for run in self.runs(plot):  # or Dagster takes this hour's tick for one already made
                slot = datetime.fromisoformat(run.tags[SCHEDULED_EXECUTION_TIME_TAG])
                earlier = (slot - timedelta(hours=1)).isoformat()
                self.instance.add_run_tags(run.run_id, {SCHEDULED_EXECUTION_TIME_TAG: earlier})
                if not run.is_finished:
                    self._last_words(run)
            origin = self._origin(plot)
            selector = origin.get_selector().get_id()
            data = ScheduleInstigatorData(CRON, utc_now().timestamp() - 2 * 3600)
            self.instance.purge_ticks(origin.get_id(), selector, utc_now().timestamp() + 3600)
            state = self.instance.get_instigator_state(origin.get_id(), selector)
            if state is None:
                self.instance.add_instigator_state(
                    InstigatorState(
                        origin, InstigatorType.SCHEDULE, InstigatorStatus.DECLARED_IN_CODE, data
                    )
                )
            else:
                self.instance.update_instigator_state(state.with_data(data))

    def _last_words(self, run: dg.DagsterRun) -> None:
        """The newest that is known of it, an hour old."""
        event = dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.ENGINE_EVENT.value,
            job_name=run.job_name,
            message="said an hour ago",
            event_specific_data=EngineEventData(),
        )
        self.instance.report_dagster_event(event, run.run_id, timestamp=time.time() - 3600)

    def _origin(self, plot: Plot) -> RemoteInstigatorOrigin:
        location = ManagedGrpcPythonEnvCodeLocationOrigin(
            LoadableTargetOrigin(
                executable_path=sys.executable,
                module_name=LOCATION,
                working_directory=str(self.folder),
            ),
            location_name="town",
        )
        repository = RemoteRepositoryOrigin(location, "__repository__")
        return RemoteInstigatorOrigin(repository, f"{plot.id}_schedule")

    def ticks(self, plot: Plot) -> Sequence[InstigatorTick]:
        """Since time was last let pass."""
        origin = self._origin(plot)
        return self.instance.get_ticks(origin.get_id(), origin.get_selector().get_id())

    def runs(self, plot: Plot) -> list[dg.DagsterRun]:
        return list(self.instance.get_runs(dg.RunsFilter(tags={ENDPOINT_TAG: plot.id})))

    def healthy(self, plot: Plot) -> bool:
        held = rows_of(self.store, plot.id)
        live = {i: seen for i, (seen, gone) in held.items() if not gone}
        newest = self.store.runs(plot.id, limit=1)
        return (
            live == dict(plot.stage.truth())
            and bool(newest)
            and newest[0].outcome is Outcome.COMPLETE
            and all(r.is_finished for r in self.runs(plot))
            and bool(self.runs(plot))
        )

    def wait_until_healthy(self) -> None:
        try:
            wait_for(lambda: all(map(self.healthy, self.plots)), "health", START_SECONDS)
        except AssertionError:
            log = (self.folder / "daemon.log").read_text().splitlines()
            said = [line for line in log if "is still sending heartbeats" not in line]
            print(*map(self._described, self.plots), *said[-100:], sep="\n")  # noqa: T201
            raise

    def _described(self, plot: Plot) -> str:
        """All that ``healthy`` asks, and the ticks."""
        held = rows_of(self.store, plot.id)
        live = {i for i, (_, gone) in held.items() if not gone}
        lines = [f"{plot.id}: {len(live)} rows, {len(live ^ set(plot.stage.truth()))} wrong"]
        lines += [f"  stored {run}" for run in self.store.runs(plot.id, limit=5)]
        lines += [f"  tick {t.status.value} {t.run_ids} {t.skip_reason}" for t in self.ticks(plot)]
        for run in self.runs(plot):
            lines.append(f"  run {run.run_id[:8]} {run.status.value}")
            lines += [
                f"    {entry.timestamp:.2f} {entry.message}"
                for entry in self.instance.all_logs(run.run_id)
            ]
        return "\n".join(lines)


def family(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, sid = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(sid) == session and state != "Z":
            found.append(int(folder.name))
    return found


@pytest.fixture
def history_url(request: pytest.FixtureRequest) -> str:
    """Where Dagster's history rests: in Postgres if a test says so, else in SQLite."""
    url = getattr(request, "param", "")
    return str(request.getfixturevalue(url)) if url else ""


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history_url: str) -> Iterator[Town]:
    monkeypatch.chdir(tmp_path)
    for name in ("FILE_CONNECTOR_HOME", "FILE_CONNECTOR_ENDPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(POSTGRES_VARIABLE, history_url)
    monkeypatch.setenv(CLOCK_VARIABLE, str(tmp_path / "clock"))
    with Sandbox() as sandbox:
        town = Town(tmp_path, sandbox, history_url)
        for plot in town.plots:
            populate(plot.stage)
        yield town
        town.close()


def hold_a_run(town: Town) -> Hold:
    hold = Hold()
    town.sandbox.faults.add(before_request(hold), kind="drive.*", nth=4)
    return hold


@pytest.mark.parametrize("history_url", ["empty_postgres_url"], indirect=True)
def test_s17_everything_is_killed_in_the_middle_of_a_run(town: Town) -> None:
    town.hour_passes()
    hold = hold_a_run(town)
    daemon = town.start()
    hold.reached(START_SECONDS)
    town.kill(daemon)
    hold.let_go()
    drive = town.plots[0]
    (dead,) = town.runs(drive)
    assert dead.status is Status.STARTED

    town.hour_passes()
    town.start()
    town.wait_until_healthy()
    assert [r.status for r in town.runs(drive)] == [Status.SUCCESS, Status.FAILURE]
    lost = town.store.runs(drive.id)[-1]
    assert lost.outcome is Outcome.FAILED
    assert lost.reason.startswith("lost: ")
    assert [t.status for t in town.ticks(drive)] == [TickStatus.SUCCESS]


def test_s41_a_run_that_outlives_its_daemon_is_waited_for(town: Town) -> None:
    drive, autodesk = town.plots
    town.hour_passes()
    hold = hold_a_run(town)
    daemon = town.start()
    hold.reached(START_SECONDS)
    wait_for(lambda: town.healthy(autodesk), "the end of the other run", START_SECONDS)
    (run,) = town.runs(drive)
    started = town.instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT
    )
    (pid,) = {
        int(e.event_log_entry.message.split("pid: ")[1].split(")")[0])
        for e in started.records
        if "Started process for run" in e.event_log_entry.message
    }
    town.kill(daemon, sparing=[pid])
    assert family(daemon.pid) == [pid]

    town.hour_passes(lease=False)
    town.start()
    (tick,) = wait_for(
        lambda: [t for t in town.ticks(drive) if t.status is not TickStatus.STARTED],
        "a tick",
        START_SECONDS,
    )
    assert tick.status is TickStatus.SKIPPED, json.dumps(tick.run_ids)
    assert f"run {run.run_id[:8]} is started" in str(tick.skip_reason)
    hold.let_go()
    town.wait_until_healthy()
    assert [r.status for r in town.runs(drive)] == [Status.SUCCESS]


def test_two_daemons_do_no_harm(town: Town) -> None:
    """Somebody starts a second one by mistake: the rows are right, one writer at a time."""
    town.hour_passes()
    daemons = [town.start(), town.start()]
    town.wait_until_healthy()
    for plot in town.plots:
        assert one_after_the_other(town.store, plot)
        assert 1 <= len(town.runs(plot)) <= 2
        assert town.store.runs(plot.id)[0].counts.inserted in (0, len(plot.stage.truth()))
    assert any(daemon.poll() is None for daemon in daemons)
