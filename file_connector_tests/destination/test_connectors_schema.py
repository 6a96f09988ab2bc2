"""The schema ``connectors`` on two versions of Postgres: what its functions promise to whoever
calls them, ours or the application's."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import file_connector
from file_connector.connectors.registry import Registry
from file_connector.destination.control import Job
from file_connector.destination.postgres import PostgresStore
from file_connector.endpoints.loader import load_instances
from file_connector.endpoints.schema import Entry, slug
from file_connector.models import Outcome
from file_connector_tests.builders import NOON, a_file, an_identity
from file_connector_tests.destination.helpers import Writer
from file_connector_tests.postgres import PostgresServer

Answer = list[tuple[Any, ...]]


class Database:
    """Asks SQL, each question on a connection of its own."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.server = server
        self.name = name

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def ask(self, sql: str, *values: object) -> Answer:
        with closing(self.server.connect(self.name)) as connection:
            return asked(connection, sql, *values)

    def instances(self, *names: str) -> None:
        self.ask(
            "insert into connectors.instances (name, endpoint_type, project_id, user_id) "
            "select unnest(%s), 'google_drive', 'tower-42', 'ana'",
            list(names),
        )

    def enqueue(self, instance: str = "plans", kind: str = "sync", payload: str = "{}") -> int:
        [(job,)] = self.ask(
            "select connectors.enqueue_connector_job(%s, %s, %s)", instance, kind, payload
        )
        return int(job)

    def claim(self, worker: str = "w", seconds: int = 300, jobs: int = 1) -> Answer:
        return self.ask(CLAIM, worker, seconds, jobs)

    def job(self, job: int) -> tuple[Any, ...]:
        [row] = self.ask("select status, attempts, error from connectors.jobs where id = %s", job)
        return row

    def expire(self, job: int) -> None:
        """What the clock would do: the lease of a claim, or a back-off, ends now."""
        self.ask("update connectors.jobs set due_at = now() where id = %s", job)


CLAIM = "select id, claim_token, attempts from connectors.claim_connector_job(%s, %s, %s)"
COMPLETE = "select connectors.complete_connector_job(%s, %s, %s)"
FAIL = "select connectors.fail_connector_job(%s, %s, 'boom')"
FAIL_FOR_GOOD = "select connectors.fail_connector_job(%s, %s, 'boom', false)"
RENEW = "select connectors.renew_connector_job(%s, %s, 60)"


def asked(connection: Any, sql: str, *values: object) -> Answer:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description else []


on_both = pytest.mark.parametrize("database", ["postgres_server", "postgres_16"], indirect=True)
"""For what depends on how Postgres locks, compares and waits."""


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Database:
    server: PostgresServer = request.getfixturevalue(getattr(request, "param", "postgres_server"))
    return Database(server, server.wiped())


@pytest.fixture
def plans(database: Database) -> Database:
    """A database with the one instance ``plans``."""
    database.instances("Plans")
    return database


def at_once(count: int, work: Callable[[int], None]) -> None:
    """``work(0)`` to ``work(count - 1)`` in as many threads; raises what any of them raises."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - carried over to the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# -- the mailbox: each job to one claimer ----------------------------------------------------------


@on_both
def test_two_hundred_jobs_and_four_claimers(database: Database) -> None:
    database.instances(*(f"Plans {n}" for n in range(50)))
    asked_for = {
        job
        for (job,) in database.ask(
            "select connectors.enqueue_connector_job('plans_' || n, kind, payload::jsonb) "
            "from generate_series(0, 49) n, (values ('sync', '{}'), ('sweep', '{}'), "
            """('window', '{"from": "2026-03-01"}'), ('sync', '{"by": "ana"}')) k (kind, payload)"""
        )
    }
    assert len(asked_for) == 200
    claimed: list[list[int]] = [[], [], [], []]
    ready = threading.Barrier(4)

    def claimer(number: int) -> None:
        with closing(database.server.connect(database.name)) as connection:
            claim = (CLAIM, f"w{number}", 300, number + 1)
            jobs = asked(connection, *claim)
            ready.wait(60)  # everyone has some before anyone goes on
            while jobs:
                claimed[number] += [job for job, _, _ in jobs]
                for job, token, _ in jobs:
                    assert asked(connection, COMPLETE, job, token, "{}") == [(True,)]
                jobs = asked(connection, *claim)

    at_once(4, claimer)
    assert sorted(job for jobs in claimed for job in jobs) == sorted(asked_for)
    assert all(claimed), [len(jobs) for jobs in claimed]
    assert database.ask("select status, attempts, count(*) from connectors.jobs group by 1, 2") == [
        ("completed", 1, 200)
    ]


@on_both
def test_claimers_do_not_wait_for_each_other(plans: Database) -> None:
    """What an open transaction is claiming is passed over; if it dies, its job is there at once."""
    first, second = plans.enqueue(), plans.enqueue(kind="sweep")
    with closing(plans.server.connect(plans.name)) as slow:
        slow.autocommit = False
        assert asked(slow, CLAIM, "slow", 300, 1)[0][0] == first
        with closing(plans.server.connect(plans.name)) as other:
            asked(other, "set lock_timeout = '2s'")
            assert [row[0] for row in asked(other, CLAIM, "other", 300, 5)] == [second]
            assert asked(other, CLAIM, "other", 300, 5) == []
        slow.rollback()
    assert [row[0] for row in plans.claim()] == [first]


CLAIMER = f"""
import sys, time, psycopg2
connection = psycopg2.connect(sys.argv[1])
connection.autocommit = True
cursor = connection.cursor()
cursor.execute({CLAIM!r}, ("killed", 1, 1))
print(*cursor.fetchone(), flush=True)
time.sleep(600)
"""


@on_both
def test_the_job_of_a_killed_claimer_returns_within_its_lease(plans: Database) -> None:
    job = plans.enqueue()
    url = plans.url.replace("postgresql+psycopg2", "postgresql")
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIMER, url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    claimed, token, attempts = process.stdout.readline().split()
    process.kill()
    process.wait()
    process.stdout.close()
    assert (int(claimed), attempts) == (job, "1")
    due = threading.Event()
    while not (again := plans.claim("next")):
        assert time.monotonic() - began < 60
        due.wait(0.05)
    [(job_again, _, attempt)] = again
    assert (job_again, attempt) == (job, 2)
    [(after,)] = plans.ask(
        "select extract(epoch from claimed_at - requested_at) from connectors.jobs"
    )
    assert after >= 1, "the lease was still running"
    assert plans.ask(COMPLETE, job, token, "{}") == [(False,)]
    assert plans.job(job)[0] == "claimed"


def test_a_living_lease_is_respected_and_renewed(plans: Database) -> None:
    job = plans.enqueue()
    [(_, token, _)] = plans.claim(seconds=3600)
    assert plans.claim("other") == []
    assert plans.ask(RENEW, job, token) == [(True,)]
    [(seconds,)] = plans.ask(
        "select extract(epoch from due_at - now()) from connectors.jobs where id = %s", job
    )
    assert 50 < seconds <= 60
    assert plans.claim("other") == []


@on_both
def test_a_stale_claim_can_do_nothing_to_the_job(plans: Database) -> None:
    job = plans.enqueue()
    [(_, stale, _)] = plans.claim("first")
    plans.expire(job)
    [(_, token, _)] = plans.claim("second")
    before = plans.ask("select * from connectors.jobs")
    assert plans.ask(COMPLETE, job, stale, '{"rows": 1}') == [(False,)]
    assert plans.ask(FAIL, job, stale) == [(None,)]
    assert plans.ask(FAIL_FOR_GOOD, job, stale) == [(None,)]
    assert plans.ask(RENEW, job, stale) == [(False,)]
    assert plans.ask("select * from connectors.jobs") == before
    assert plans.ask(COMPLETE, job, token, '{"rows": 2}') == [(True,)]
    assert plans.ask("select result from connectors.jobs") == [({"rows": 2},)]


def test_a_late_claimer_may_still_complete_what_nobody_took_over(plans: Database) -> None:
    job = plans.enqueue()
    [(_, token, _)] = plans.claim()
    plans.expire(job)
    assert plans.ask(COMPLETE, job, token, "{}") == [(True,)]


@on_both
def test_saying_it_twice_is_saying_it_once(plans: Database) -> None:
    """The answer to the first call may have been lost."""
    for end, answer in ((COMPLETE, True), (FAIL_FOR_GOOD, "failed")):
        job = plans.enqueue()
        [(_, token, _)] = plans.claim()
        given = (job, token, "{}") if end == COMPLETE else (job, token)
        assert plans.ask(end, *given) == [(answer,)]
        [after] = plans.ask("select * from connectors.jobs where id = %s", job)
        assert plans.ask(end, *given) == [(answer,)]
        assert plans.ask("select * from connectors.jobs where id = %s", job) == [after]
    job = plans.enqueue()
    [(_, token, _)] = plans.claim()
    assert plans.ask(FAIL, job, token) == [("queued",)]
    assert plans.ask(FAIL, job, token) == [("queued",)]
    assert plans.job(job) == ("queued", 1, "boom")


@on_both
def test_a_failed_job_is_tried_again_later_and_not_for_ever(plans: Database) -> None:
    job = plans.enqueue()
    waits = []
    for _ in range(4):
        [(_, token, _)] = plans.claim()
        assert plans.ask(FAIL, job, token) == [("queued",)]
        assert plans.claim() == []
        [(wait,)] = plans.ask("select extract(epoch from due_at - now()) from connectors.jobs")
        waits.append(round(wait))
        plans.expire(job)
    assert waits == pytest.approx([30, 60, 120, 240], abs=3)
    [(_, token, _)] = plans.claim()
    assert plans.ask(FAIL, job, token) == [("failed",)]
    assert plans.job(job) == ("failed", 5, "boom")
    plans.expire(job)
    assert plans.claim() == []


def test_the_caller_may_say_when_to_try_again(plans: Database) -> None:
    job = plans.enqueue()
    [(_, token, _)] = plans.claim()
    plans.ask("select connectors.fail_connector_job(%s, %s, 'busy', true, 0)", job, token)
    assert [row[0] for row in plans.claim()] == [job]


def test_claimers_that_always_die_are_not_fed_for_ever(plans: Database) -> None:
    job = plans.enqueue()
    for _ in range(5):
        assert len(plans.claim()) == 1
        plans.expire(job)
    assert plans.claim() == []
    assert plans.job(job) == ("failed", 5, "claimed 5 times, and no claimer came back")


def test_jobs_are_handed_out_in_the_order_of_asking(plans: Database) -> None:
    kinds = ("sweep", "sync", "window")
    jobs = [plans.enqueue(kind=kind, payload='{"from": "2026-03-01"}') for kind in kinds]
    assert [plans.claim()[0][0] for _ in kinds] == jobs


def test_a_claimer_takes_only_what_it_knows(database: Database) -> None:
    database.instances("Plans", "Models")
    database.enqueue("plans")
    models = database.enqueue("models")
    found = database.ask(
        "select id from connectors.claim_connector_job('w', 60, 10, array['models', 'other'])"
    )
    assert found == [(models,)]


class Histories(RuleBasedStateMachine):
    """Whatever the application, claimers and the clock do in whatever order: a claim is one
    claimer's, ends one way, and every request is followed by a claim."""

    database: Database

    @initialize()
    def begin(self) -> None:
        name = self.database.server.wiped()
        self.connection = self.database.server.connect(name)
        asked(
            self.connection,
            "insert into connectors.instances (name, endpoint_type, project_id, user_id) "
            "values ('a', 'google_drive', 'p', 'u'), ('b', 'google_drive', 'p', 'u')",
        )
        self.waiting: dict[tuple[str, str], int] = {}
        self.held: dict[int, tuple[str, int]] = {}
        self.back: dict[int, int] = {}
        self.stale: list[tuple[int, str]] = []
        self.over: dict[int, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()

    def says(self, sql: str, *values: object) -> Any:
        return asked(self.connection, sql, *values)[0][0]

    @rule(instance=st.sampled_from("ab"), kind=st.sampled_from(["sync", "sweep"]))
    def ask(self, instance: str, kind: str) -> None:
        job = self.says("select connectors.enqueue_connector_job(%s, %s)", instance, kind)
        known = {*self.held, *self.back, *self.over, *self.waiting.values()}
        if (instance, kind) in self.waiting:
            assert job == self.waiting[instance, kind]
        else:
            assert job not in known
            self.waiting[instance, kind] = job

    @rule(most=st.integers(1, 3))
    def claim(self, most: int) -> None:
        found = asked(self.connection, CLAIM, "w", 3600, most)
        assert len(found) == min(most, len(self.waiting))
        for job, token, attempt in found:
            assert job in self.waiting.values()
            self.waiting = {k: j for k, j in self.waiting.items() if j != job}
            assert attempt == 1
            self.held[job] = (str(token), 1)

    @precondition(lambda self: self.held or self.back)
    @rule(data=st.data())
    def time_passes_for_one(self, data: st.DataObject) -> None:
        """A lease or a back-off ends, and the job is claimed at once by somebody else."""
        job = data.draw(st.sampled_from(sorted({*self.held, *self.back})))
        attempts = self.held[job][1] if job in self.held else self.back[job]
        asked(
            self.connection,
            "update connectors.jobs set due_at = now() - interval '1 day' where id = %s",
            job,
        )
        found = asked(self.connection, CLAIM, "other", 3600, 1)
        if job in self.held:
            self.stale.append((job, self.held.pop(job)[0]))
        self.back.pop(job, None)
        if attempts == 5:
            self.over[job] = "failed"
            for other, token, attempt in found:  # then the next in the queue was claimed
                assert attempt == 1
                self.waiting = {k: j for k, j in self.waiting.items() if j != other}
                self.held[other] = (str(token), 1)
        else:
            [(again, token, attempt)] = found
            assert (again, attempt) == (job, attempts + 1)
            self.held[job] = (str(token), attempt)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), end=st.sampled_from(["complete", "fail", "retry", "renew"]))
    def end(self, data: st.DataObject, end: str) -> None:
        job = data.draw(st.sampled_from(sorted(self.held)))
        token, attempts = self.held[job]
        if end == "renew":
            assert self.says(RENEW, job, token) is True
            return
        del self.held[job]
        if end == "complete":
            assert self.says(COMPLETE, job, token, "{}") is True
            self.over[job] = "completed"
        elif end == "retry" and attempts < 5:
            assert self.says(FAIL, job, token) == "queued"
            self.back[job] = attempts
        else:
            assert self.says(FAIL if end == "retry" else FAIL_FOR_GOOD, job, token) == "failed"
            self.over[job] = "failed"

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def the_late(self, data: st.DataObject) -> None:
        job, token = data.draw(st.sampled_from(self.stale))
        assert self.says(RENEW, job, token) is False
        if self.over.get(job) != "failed":  # else it is the last token, and the answer is known
            assert self.says(COMPLETE, job, token, "{}") is False
            assert self.says(FAIL, job, token) is None

    @invariant()
    def the_table_agrees(self) -> None:
        if not hasattr(self, "connection"):
            return
        rows = asked(self.connection, "select id, status, attempts from connectors.jobs")
        wanted = {(job, "queued", 0) for job in self.waiting.values()}
        wanted |= {(job, "claimed", attempts) for job, (_, attempts) in self.held.items()}
        wanted |= {(job, "queued", attempts) for job, attempts in self.back.items()}
        assert {row for row in rows if row[0] not in self.over} == wanted
        assert {job: status for job, status, _ in rows if job in self.over} == self.over


def test_histories_of_the_mailbox(database: Database) -> None:
    machine = type("Machine", (Histories,), {"database": database})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=8, stateful_step_count=30, deadline=None)
    )


# -- the mailbox: asking ---------------------------------------------------------------------------


@on_both
def test_the_same_request_is_one_job_while_it_waits(plans: Database) -> None:
    first = plans.enqueue()
    assert plans.enqueue() == first
    assert plans.enqueue(payload='{"by": "ana"}') != first
    assert plans.enqueue(kind="sweep") != first
    [(claimed, token, _)] = plans.claim()
    assert claimed == first
    again = plans.enqueue()
    assert again != first, "the run under way may have looked away already"
    assert plans.enqueue() == again
    assert plans.ask(FAIL, first, token) == [("queued",)], "a retry stands beside a new request"
    assert plans.enqueue() == again


@on_both
def test_many_who_ask_the_same_at_once_get_the_same_job(plans: Database) -> None:
    jobs: list[int] = []
    at_once(6, lambda _: jobs.append(plans.enqueue()))
    assert len(set(jobs)) == 1
    assert plans.ask("select count(*) from connectors.jobs") == [(1,)]


@on_both
def test_asking_and_claiming_race_without_losing_a_request(plans: Database) -> None:
    """Every answer to a request is a job whose claim comes after the request."""
    over = threading.Event()
    last: list[int] = []
    seen: set[int] = set()

    def work(number: int) -> None:
        with closing(plans.server.connect(plans.name)) as connection:
            if number == 0:
                while not over.is_set():
                    seen.update(row[0] for row in asked(connection, CLAIM, "w", 300, 1))
            else:
                for _ in range(40):
                    [(job,)] = asked(connection, "select connectors.enqueue_connector_job('plans')")
                    last.append(job)
                over.set()

    at_once(2, work)
    seen.update(row[0] for row in plans.claim(jobs=10))
    assert set(last) == seen
    assert last == sorted(last)


@pytest.mark.parametrize(
    ("kind", "payload", "error"),
    [
        ("other", "{}", psycopg2.errors.CheckViolation),
        ("sync", "[]", psycopg2.errors.CheckViolation),
        ("sync", f'{{"x": "{"y" * 5000}"}}', psycopg2.errors.CheckViolation),
        ("window", "{}", psycopg2.errors.CheckViolation),
        ("window", '{"from": "yesterday"}', psycopg2.errors.CheckViolation),
        ("window", '{"from": "2026-03-01", "to": 5}', psycopg2.errors.CheckViolation),
    ],
)
def test_what_no_run_could_do_is_refused(
    plans: Database, kind: str, payload: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        plans.enqueue(kind=kind, payload=payload)


def test_jobs_are_about_instances_or_about_endpoints_of_the_yaml(plans: Database) -> None:
    with pytest.raises(psycopg2.errors.ForeignKeyViolation, match="no instance 'models'"):
        plans.enqueue("models")
    store = PostgresStore(plans.url)
    store.note_success(an_identity("models", user_id="ben"), NOON)
    job = plans.enqueue("models")
    assert plans.ask("select user_id from connectors.jobs where id = %s", job) == [("ben",)]
    store.mirror([])
    store.close()
    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        plans.enqueue("models", "sweep")


def test_a_mailbox_nobody_empties_does_not_grow_for_ever(plans: Database) -> None:
    fill = (
        "insert into connectors.jobs (instance_id, payload) "
        "select 'plans', jsonb_build_object('n', n) from generate_series(1, %s) n"
    )
    plans.ask(fill, 1000)
    with pytest.raises(psycopg2.Error, match="too many jobs wait for instance 'plans'"):
        plans.enqueue()


def test_finished_jobs_are_forgotten_after_a_month(plans: Database) -> None:
    old, fresh, last = (plans.enqueue(kind=kind) for kind in ("sync", "sweep", "sync"))
    assert last == old
    last = plans.enqueue(payload='{"by": "ana"}')
    for job, token, _ in plans.claim(jobs=2):
        plans.ask(COMPLETE, job, token, "{}")
    plans.ask(
        "update connectors.jobs set finished_at = now() - interval '31 days' where id = %s", old
    )
    [(_, token, _)] = plans.claim()
    plans.ask(FAIL_FOR_GOOD, last, token)
    assert plans.ask("select id from connectors.jobs order by 1") == [(fresh,), (last,)]


# -- instances -------------------------------------------------------------------------------------


def test_the_code_expects_the_columns_there_are(database: Database) -> None:
    def columns(table: str) -> set[str]:
        found = database.ask(
            "select column_name from information_schema.columns "
            "where table_schema = 'connectors' and table_name = %s",
            table,
        )
        return {name for (name,) in found}

    assert columns("instances") == {*Entry.model_fields, "created_at", "updated_at"}
    assert {f.name for f in fields(Job)} <= columns("jobs")


@pytest.fixture(scope="module")
def slugs(postgres_server: PostgresServer) -> Iterator[Callable[[list[str]], list[str]]]:
    """What the database makes of names."""
    with closing(postgres_server.connect(postgres_server.wiped())) as connection:

        def ask(names: list[str]) -> list[str]:
            sql = "select connectors.slug(n) from unnest(%s) with ordinality u (n, i) order by i"
            return [made for (made,) in asked(connection, sql, names)]

        yield ask


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=70)


@settings(max_examples=25, deadline=None)
@given(names=st.lists(NAMES | st.text("aZ9 -_äßİ", max_size=80), min_size=1, max_size=40))
def test_the_database_makes_the_ids_that_the_yaml_would(
    slugs: Callable[[list[str]], list[str]], names: list[str]
) -> None:
    assert slugs(names) == [slug(name) for name in names]


def test_an_instance_without_an_id_gets_one_of_its_own(database: Database) -> None:
    database.instances("Tower 42 models", "Tower 42 models", "図面", "a" * 50, "a" * 50)
    ids = [i for (i,) in database.ask("select id from connectors.instances order by created_at")]
    assert len(set(ids)) == 5
    assert "tower_42_models" in ids
    assert "a" * 50 in ids
    assert all(slug(i) == i and len(i) <= 50 for i in ids)


@on_both
def test_twins_inserted_at_once_do_not_collide(database: Database) -> None:
    at_once(4, lambda _: database.instances("Plans"))
    assert database.ask("select count(distinct id) from connectors.instances") == [(4,)]


def test_an_id_never_changes(plans: Database) -> None:
    with pytest.raises(psycopg2.errors.RestrictViolation, match="never changes"):
        plans.ask("update connectors.instances set id = 'other'")
    plans.ask("update connectors.instances set name = 'Other'")
    found = plans.ask("select id, name, updated_at > created_at from connectors.instances")
    assert found == [("plans", "Other", True)]


@pytest.mark.parametrize(
    "values",
    [
        "id = 'Bad Id'",
        "id = 'a__b'",
        f"id = '{'a' * 51}'",
        "endpoint_details = '[]'",
        """credentials = '{"private_key": "x"}'""",
        "credentials = 'vault:'",
    ],
)
def test_a_row_that_is_no_instance_is_refused(plans: Database, values: str) -> None:
    column, value = values.split(" = ", 1)
    with pytest.raises(psycopg2.errors.CheckViolation):
        plans.ask(
            "insert into connectors.instances "
            f"(name, endpoint_type, project_id, user_id, {column}) "
            f"values ('x', 'google_drive', 'p', 'u', {value})"
        )


def test_what_waits_for_an_instance_ends_with_it(plans: Database) -> None:
    plans.enqueue()
    [(job, token, _)] = plans.claim()
    plans.enqueue()
    plans.ask("delete from connectors.instances")
    assert plans.ask("select id from connectors.jobs") == [(job,)]
    assert plans.ask(COMPLETE, job, token, "{}") == [(True,)]


@pytest.mark.parametrize(
    ("instance", "going"),
    [
        ("plans", "delete from connectors.instances where id = 'plans'"),
        ("models", "update public.endpoints set status = 'removed'"),
    ],
)
def test_a_claimed_job_whose_instance_is_gone_ends_and_says_so(
    plans: Database, instance: str, going: str
) -> None:
    """No claimer that is left knows the instance. He who holds the job may still end it."""
    plans.ask(
        "insert into public.endpoints values "
        "('models', 'Models', 'google_drive', 'p', 'ana', 'ok', null, null, 0, null, '')"
    )
    job = plans.enqueue(instance)
    plans.claim()
    plans.ask(going)
    claim = "select id from connectors.claim_connector_job('w', 300, 5, array['other'])"
    assert plans.ask(claim) == []
    assert plans.job(job) == ("claimed", 1, None)
    plans.expire(job)
    assert plans.ask(claim) == []
    assert plans.job(job) == ("failed", 1, f"there is no instance '{instance}' any more")


def test_a_waiting_job_of_an_endpoint_taken_out_of_the_yaml_ends(plans: Database) -> None:
    plans.ask(
        "insert into public.endpoints values "
        "('models', 'Models', 'google_drive', 'p', 'ana', 'ok', null, null, 0, null, '')"
    )
    job = plans.enqueue("models")
    plans.ask("update public.endpoints set status = 'removed'")
    assert plans.claim() == []
    assert plans.job(job)[0] == "failed"


# -- views -----------------------------------------------------------------------------------------


def test_views_show_runs_and_state(plans: Database) -> None:
    store = PostgresStore(plans.url)
    writer = Writer(store)
    writer.commit(a_file("f1"))
    store.finish_run(writer.run_id, Outcome.COMPLETE, "", 3, 0)
    store.note_success(writer.identity, NOON)
    store.close()
    assert plans.ask("select instance_id, outcome, inserted from connectors.runs") == [
        ("plans", "complete", 1)
    ]
    assert plans.ask("select instance_id, status, user_id from connectors.state") == [
        ("plans", "ok", "ana")
    ]


# -- the page that describes it --------------------------------------------------------------------

PAGE = Path(file_connector.__file__).parent.parent / "docs" / "control-plane.md"


@on_both
def test_the_statements_of_the_page_do_what_it_says(database: Database) -> None:
    insert, enqueue = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    database.ask(insert)
    jobs = [database.ask(statement) for statement in enqueue.split(";\n") if statement]
    assert len({job for [(job,)] in jobs}) == 3
    catalog = load_instances(database.ask("select connectors.list_instances()")[0][0], Registry())
    assert [e.id for e in catalog.endpoints] == ["acme_plans"]


def test_every_function_for_the_application_is_described(database: Database) -> None:
    described = set(re.findall(r"`?(\w+)\(([^)]*)\)", PAGE.read_text()))
    found = database.ask(
        "select proname, coalesce(array_to_string(proargnames[1:pronargs], ', '), '') from pg_proc "
        "where pronamespace = 'connectors'::regnamespace and proname ~ '_connector_job|^list|^def'"
    )
    wanted = {row for row in found if row[0] != "enqueue_connector_job"}
    assert len(wanted) == 8
    assert wanted - described == set()
