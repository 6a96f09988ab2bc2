"""What only a transaction pooler does to a store. The contract suite runs through it as well
(``place`` in conftest.py)."""

from __future__ import annotations

import threading
from contextlib import closing

import psycopg2
import pytest

from file_connector.destination.postgres import PostgresStore
from file_connector.errors import ConfigurationError, TransientError
from file_connector_tests.builders import a_file, an_identity
from file_connector_tests.destination.helpers import Writer
from file_connector_tests.pgbouncer import SESSIONS, Pooler, find_pgbouncer, running_pooler
from file_connector_tests.postgres import PostgresServer, same_server

if find_pgbouncer() is None:
    pytest.skip("NOT RUN: there is no PgBouncer (Debian: apt install pgbouncer)", True)


def test_it_pools_transactions(pooler: Pooler, postgres_server: PostgresServer) -> None:
    """Otherwise the suite that runs through it would prove nothing."""
    with (
        closing(psycopg2.connect(pooler.url("postgres"))) as one,
        closing(psycopg2.connect(pooler.url("postgres"))) as two,
    ):
        backends = []
        for connection in (one, two):
            with connection, connection.cursor() as cursor:
                cursor.execute("select pg_backend_pid()")
                backends.append(cursor.fetchone())
    assert backends[0] == backends[1]


def test_it_restarts_and_nobody_notices(postgres_server: PostgresServer, postgres_url: str) -> None:
    """Between two transactions; a restart inside one is a cut connection (test_faults.py)."""
    program = find_pgbouncer()
    assert program is not None
    with (
        running_pooler(program, postgres_server) as pooler,
        closing(PostgresStore(same_database(pooler, postgres_url))) as store,
    ):
        writer = Writer(store)
        writer.commit(a_file("f1"))
        pooler.stop()
        with pytest.raises(TransientError, match="refuses connections"):
            store.state("plans")
        pooler.start()
        assert writer.commit(a_file("f2")).inserted == 1
        assert store.known("plans").live_count() == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"password": "canary-4711"}, "does not accept the password"),
        ({"username": "stranger"}, "does not accept the password"),
        ({"database": "nowhere"}, "named in the URL does not exist"),
        ({"query": {"options": "-c lock_timeout=1s"}}, "the pooler refuses an option"),
    ],
)
def test_its_refusals_are_told_apart(
    pooler: Pooler, postgres_url: str, change: dict[str, object], words: str
) -> None:
    url = same_server(same_database(pooler, postgres_url), **change)
    with (
        closing(PostgresStore(url)) as store,
        pytest.raises(ConfigurationError, match=words),
    ):
        store.check()


def test_settings_of_a_transaction_stay_in_it(pooler: Pooler, postgres_url: str) -> None:
    """More writers than sessions, then a look at what each session was left with."""
    url = same_database(pooler, postgres_url)
    stores = [PostgresStore(url, lock_seconds=7, statement_seconds=77) for _ in range(6)]

    def write(number: int) -> None:
        writer = Writer(stores[number], an_identity(f"e{number}"), f"run-{number}")
        for turn in range(5):
            writer.commit(*[a_file(f"f{i}", version=turn) for i in range(5)])

    threads = [threading.Thread(target=write, args=(i,)) for i in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [s.known(f"e{i}").live_count() for i, s in enumerate(stores)] == [5] * 6
    for store in stores:
        store.close()
    left = []
    looking = [psycopg2.connect(url) for _ in range(SESSIONS)]
    for connection in looking:  # each keeps its transaction, and so a session of its own
        with connection.cursor() as cursor:
            cursor.execute(
                "select current_setting('lock_timeout'), current_setting('statement_timeout'), "
                "current_setting('synchronous_commit'), "
                "(select count(*) from pg_prepared_statements) "
                "+ (select count(*) from pg_locks where locktype = 'advisory')"
            )
            left.append(cursor.fetchone())
    for connection in looking:
        connection.close()
    assert left == [("0", "0", "on", 0)] * SESSIONS


def same_database(pooler: Pooler, url: str) -> str:
    return pooler.url(url.rsplit("/", 1)[1])
