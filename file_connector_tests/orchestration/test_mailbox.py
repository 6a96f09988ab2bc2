"""The mailbox of the control plane, from asking to the end of the run, with real Dagster runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from sqlalchemy import make_url

from file_connector.deployment import Deployment
from file_connector.destination.control import ControlPlane, control_plane
from file_connector.destination.open import open_store
from file_connector.endpoints.catalog import Catalog
from file_connector.errors import ReconnectError
from file_connector.models import Batch, Mode, Outcome
from file_connector.orchestration import mailbox
from file_connector.orchestration.build import build_definitions
from file_connector.orchestration.factory import asset_key
from file_connector.orchestration.runs import (
    ENDPOINT_TAG,
    MODE_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    SILENCE,
    bury_the_dead,
    silent,
    unfinished,
)
from file_connector.times import utc_now
from file_connector_tests.builders import a_file, an_identity
from file_connector_tests.endpoints.fakes import a_registry
from file_connector_tests.orchestration.conftest import House
from file_connector_tests.postgres import PostgresServer
from file_connector_tests.sync.scripted import listing

Answer = dg.SensorResult | dg.SkipReason


class Office(House):
    """A house with a real database, and thus a mailbox."""

    def __init__(self, folder: Path, environ: dict[str, str], server: PostgresServer) -> None:
        super().__init__(folder, environ)
        self.store.close()
        self.store = open_store(environ["SUPABASE_DB_URL"], folder)
        self._server = server
        control = control_plane(self.store)
        assert control is not None
        self.control: ControlPlane = control
        assert self.tick_sensor().skip_message == "no job waits"  # now the endpoints are known

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        return self._server.execute(sql, make_url(self.environ["SUPABASE_DB_URL"]).database)

    def enqueue(self, arguments: str = "'plans'") -> int:
        [(job,)] = self.ask(f"select connectors.enqueue_connector_job({arguments})")
        return int(job)

    def job(self, job: int) -> tuple[Any, ...]:
        [row] = self.ask(f"select status, attempts, error from connectors.jobs where id = {job}")
        return row

    def tick_sensor(self, defs: dg.Definitions | None = None) -> Any:
        defs = defs or self.definitions()
        repository = defs.get_repository_def()
        sensor = repository.get_sensor_def(mailbox.NAME)
        with dg.build_sensor_context(
            instance=self.instance, repository_def=repository, resources=defs.resources
        ) as context:
            return sensor.evaluate_tick(context)

    def empty(self, *, later: timedelta = timedelta(), catalog: Catalog | None = None) -> Answer:
        return mailbox.empty_mailbox(
            catalog or self.catalog(), self.control, self.store, self.instance, utc_now() + later
        )

    def execute(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        assert request.job_name is not None
        job = self.definitions().resolve_job_def(request.job_name)
        return job.execute_in_process(
            instance=self.instance, tags=request.tags, raise_on_error=False
        )

    def a_run(
        self, request: dg.RunRequest, status: dg.DagsterRunStatus, **tags: str
    ) -> dg.DagsterRun:
        """A run of this request that nobody works on."""
        run: dg.DagsterRun = create_run_for_test(
            self.instance,
            job_name="plans_sync",
            status=status,
            tags={**request.tags, **tags},
            asset_selection=frozenset({asset_key("plans")}),
        )
        return run


@pytest.fixture
def office(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_server: PostgresServer,
    postgres_url: str,
) -> Iterator[Office]:
    environ = {
        "FAKE_CREDENTIALS__ACME": '{"token": "canary-of-the-office"}',
        "SUPABASE_DB_URL": postgres_url,
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for name in ("FILE_CONNECTOR_HOME", "FILE_CONNECTOR_ENDPOINTS", "FILE_CONNECTOR_SOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    office = Office(tmp_path, environ, postgres_server)
    yield office
    office.store.close()
    office.instance.dispose()


def launched(answer: Any) -> dg.RunRequest:
    """The one run an evaluation asks for."""
    requests = answer.run_requests
    assert requests is not None, answer.skip_message
    [request] = requests
    assert isinstance(request, dg.RunRequest)
    return request


def skipped(answer: Answer) -> str:
    assert isinstance(answer, dg.SkipReason), answer
    return str(answer.skip_message)


# -- from end to end -------------------------------------------------------------------------------


def test_a_job_becomes_a_run_and_is_completed(office: Office) -> None:
    office.plans.sweep_script = listing(a_file("a"), a_file("b"))
    job = office.enqueue()
    request = launched(office.tick_sensor())
    assert (request.job_name, request.run_key) == ("plans_sync", f"job-{job}.1")
    assert request.tags[MODE_TAG] == "incremental"
    assert request.tags[ENDPOINT_TAG] == "plans"
    assert office.job(job) == ("claimed", 1, None)
    done = office.execute(request)
    assert done.success
    assert office.rows() == {"a", "b"}
    assert "is complete" in str(office.tick_sensor().skip_message)
    assert office.job(job) == ("completed", 1, None)
    [(result,)] = office.ask("select result from connectors.jobs")
    assert result["run_id"] == done.run_id
    assert (result["outcome"], result["inserted"]) == ("complete", 2)
    assert office.tick_sensor().skip_message == "no job waits"


def test_a_run_that_fails_fails_its_job_and_says_why(office: Office) -> None:
    job = office.enqueue()
    office.connectors.refuses = ReconnectError("the grant was revoked", remedy="Connect it again.")
    request = launched(office.tick_sensor())
    assert not office.execute(request).success
    office.tick_sensor()
    status, attempts, error = office.job(job)
    assert (status, attempts) == ("failed", 1)
    assert error.startswith("failed: ")
    assert "the grant was revoked" in error


def test_a_sweep_and_a_window_are_what_they_say(office: Office) -> None:
    office.plans.sweep_script = listing(a_file("a"))
    assert office.run().success
    office.plans.calls.clear()
    office.enqueue("'plans', 'sweep'")
    assert office.execute(launched(office.tick_sensor())).success
    assert office.plans.named("sweep")
    office.plans.calls.clear()
    office.plans.window_script = [Batch(done=True)]
    office.enqueue("""'plans', 'window', '{"from": "2026-03-01", "to": "2026-03-03"}'""")
    request = launched(office.tick_sensor())
    assert MODE_TAG not in request.tags
    days = request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG]
    assert days == ("2026-03-01", "2026-03-03")
    assert office.execute(request).success
    assert office.plans.named("window")


def test_jobs_of_instances_of_the_control_plane(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with endpoints from the table: both halves of the control plane together."""
    office.ask(
        "insert into connectors.instances (name, endpoint_type, project_id, user_id, "
        "endpoint_details, credentials, schedule) values ('Models', 'fake', 'p', 'ben', "
        """'{"folder_id": "x"}', 'acme', '{"type": "manual"}')"""
    )
    environ = {**office.environ, "FILE_CONNECTOR_SOURCE": "control_plane"}
    deployment = Deployment.from_environ(environ, office.folder, a_registry())
    defs = build_definitions(
        deployment.catalog(), resources={"fake": office.connectors}, deployment=deployment
    )
    job = office.enqueue("'models'")
    request = launched(office.tick_sensor(defs))
    office.connectors.of("models").sweep_script = listing(a_file("m"))
    done = defs.resolve_job_def("models_sync").execute_in_process(
        instance=office.instance, tags=request.tags
    )
    assert done.success
    office.tick_sensor(defs)
    assert office.job(job)[0] == "completed"
    assert office.ask("select endpoint_id, user_id from files") == [("models", "ben")]


# -- what cannot run -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "told"),
    [
        ('"from": "2026-02-30"', "are no days"),
        ('"from": "2026-03-05", "to": "2026-03-01"', "in this order"),
        ('"from": "2020-01-01"', "not between 2026-01-01 and today"),
        ('"from": "2099-01-01"', "not between 2026-01-01 and today"),
    ],
)
def test_days_that_cannot_be_read_fail_at_once(office: Office, days: str, told: str) -> None:
    job = office.enqueue(f"'plans', 'window', '{{{days}}}'")
    assert f"job {job} is failed" in skipped(office.empty())
    status, _, error = office.job(job)
    assert status == "failed"
    assert told in error


def test_days_in_the_future_end_today(office: Office) -> None:
    office.enqueue("""'plans', 'window', '{"from": "2026-03-01", "to": "2099-01-01"}'""")
    answer = office.empty()
    assert isinstance(answer, dg.SensorResult)
    assert launched(answer).tags[RANGE_END_TAG] == utc_now().date().isoformat()


def test_a_job_of_a_quarantined_endpoint_fails_with_its_reason(office: Office) -> None:
    catalog = office.catalog(more=", schedule: {type: cron, cron: '61 * * * *'}")
    job = office.enqueue()
    skipped(office.empty(catalog=catalog))
    status, _, error = office.job(job)
    assert status == "failed"
    assert "quarantined: endpoints.yaml:" in error


def test_a_job_of_an_endpoint_not_loaded_yet_waits(office: Office) -> None:
    job = office.enqueue()
    assert "jobs wait for plans, " in skipped(office.empty(catalog=office.catalog("models")))
    assert office.job(job) == ("queued", 0, None)
    assert isinstance(office.empty(), dg.SensorResult)


# -- runs that wait, die, or never start -----------------------------------------------------------


def claimed(office: Office, arguments: str = "'plans'") -> tuple[int, dg.RunRequest]:
    job = office.enqueue(arguments)
    answer = office.empty()
    assert isinstance(answer, dg.SensorResult)
    return job, launched(answer)


def seconds_left(office: Office) -> float:
    [(seconds,)] = office.ask("select extract(epoch from due_at - now()) from connectors.jobs")
    return float(seconds)


def end_lease(office: Office) -> None:
    office.ask("update connectors.jobs set due_at = now() + interval '10 seconds'")


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_a_run_that_waits_or_works_keeps_its_job(
    office: Office, status: dg.DagsterRunStatus
) -> None:
    job, request = claimed(office)
    office.a_run(request, status)
    end_lease(office)
    assert f"is {status.value.lower()}" in skipped(office.empty())
    assert seconds_left(office) > mailbox.LEASE_SECONDS - 20
    assert office.job(job) == ("claimed", 1, None)


def test_a_run_that_never_starts_returns_its_job_by_the_lease(office: Office) -> None:
    job, first = claimed(office)
    end_lease(office)
    assert "has no run yet" in skipped(office.empty())
    assert seconds_left(office) <= 10
    office.ask("update connectors.jobs set due_at = now()")
    answer = office.empty()
    assert isinstance(answer, dg.SensorResult)
    second = launched(answer)
    assert (first.run_key, second.run_key) == (f"job-{job}.1", f"job-{job}.2")


def test_a_run_whose_process_vanished_returns_its_job(office: Office) -> None:
    job, request = claimed(office, "'plans', 'sweep'")
    office.a_run(request, dg.DagsterRunStatus.STARTED)
    skipped(office.empty())
    assert office.job(job)[0] == "claimed"
    later = utc_now() + SILENCE
    suspects = silent(["plans"], unfinished(office.instance), office.instance, later)
    assert bury_the_dead(suspects, office.store, office.instance)
    skipped(office.empty())
    status, attempts, error = office.job(job)
    assert (status, attempts) == ("queued", 1)
    assert "without a verdict" in error
    assert 20 < seconds_left(office) <= 30


def test_a_run_killed_after_its_last_commit_has_done_its_job(office: Office) -> None:
    job, request = claimed(office)
    run = office.a_run(request, dg.DagsterRunStatus.FAILURE)
    identity = an_identity(source="fake")
    office.store.begin_run(identity, Mode.INCREMENTAL, f"{run.run_id}:plans")
    office.store.finish_run(f"{run.run_id}:plans", Outcome.COMPLETE, "", 1, 0)
    skipped(office.empty())
    assert office.job(job)[0] == "completed"


def test_a_run_that_dagster_starts_again_is_waited_for(office: Office) -> None:
    job, request = claimed(office)
    office.a_run(request, dg.DagsterRunStatus.FAILURE, **{"dagster/will_retry": "true"})
    skipped(office.empty())
    assert office.job(job) == ("claimed", 1, None)
    office.a_run(request, dg.DagsterRunStatus.SUCCESS)
    skipped(office.empty())
    assert office.job(job) == ("completed", 1, None)


def test_a_canceled_run_is_not_tried_again(office: Office) -> None:
    job, request = claimed(office)
    office.a_run(request, dg.DagsterRunStatus.CANCELED)
    skipped(office.empty())
    assert office.job(job) == ("failed", 1, "was canceled in Dagster")


def test_the_run_of_an_earlier_claim_says_nothing_about_this_one(office: Office) -> None:
    job, request = claimed(office)
    office.ask("update connectors.jobs set due_at = now()")
    answer = office.empty()
    assert isinstance(answer, dg.SensorResult)
    office.a_run(request, dg.DagsterRunStatus.CANCELED)
    assert "has no run yet" in skipped(office.empty())
    assert office.job(job) == ("claimed", 2, None)


def test_a_burst_is_taken_in_portions(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "AT_ONCE", 3)
    asked = [office.enqueue(f"'plans', 'sync', '{{\"n\": {n}}}'") for n in range(7)]
    keys = []
    for _ in range(3):
        answer = office.empty()
        assert isinstance(answer, dg.SensorResult)
        keys += [request.run_key for request in answer.run_requests or []]
    assert keys == [f"job-{job}.1" for job in asked]


# -- where there is a mailbox ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, []),
        ({"SUPABASE_DB_URL": "postgresql://u:p@127.0.0.1:1/x"}, ["RUNNING"]),
        ({"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_SECRET_KEY": "k"}, ["STOPPED"]),
    ],
)
def test_the_sensor_is_there_where_there_is_a_mailbox(
    house: House, environ: dict[str, str], wanted: list[str]
) -> None:
    deployment = Deployment.from_environ(environ, house.folder, a_registry())
    defs = build_definitions(house.catalog(), deployment=deployment)
    sensors = defs.get_repository_def().sensor_defs
    assert [s.default_status.value for s in sensors if s.name == mailbox.NAME] == wanted
    for sensor in sensors:
        assert not sensor.required_resource_keys, "Dagster would open its storages each time"
