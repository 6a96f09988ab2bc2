"""What the database does to us: refusals, cut connections, deadlocks, full disks. Each is told with
its remedy, none with a password, and a failed transaction leaves nothing behind."""

from __future__ import annotations

import re
import socket
import sqlite3
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import event, make_url

from file_connector.destination.base import Store
from file_connector.destination.failures import translated
from file_connector.destination.open import open_store
from file_connector.destination.postgres import PostgresStore, driver_url
from file_connector.destination.sqlite import SqliteStore
from file_connector.destination.tables import metadata
from file_connector.errors import (
    BugError,
    BusyError,
    ConfigurationError,
    FileConnectorError,
    TransientError,
    redact,
)
from file_connector.models import Folder, Gone, GoneReason, Mode, Outcome
from file_connector_tests.builders import NOON, a_file, an_identity, at
from file_connector_tests.destination.helpers import Writer, folders
from file_connector_tests.destination.proxy import CuttingProxy
from file_connector_tests.postgres import PASSWORD, PostgresServer, free_port, same_server


@contextmanager
def opened(url: str, **options: object) -> Iterator[PostgresStore]:
    store = PostgresStore(url, **options)  # type: ignore[arg-type]
    yield store
    store.close()


def told(work: Callable[[], object]) -> FileConnectorError:
    """What ``work`` raises; nothing about it may show the password or the URL."""
    with pytest.raises(FileConnectorError) as caught:
        work()
    text = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in text
    assert "hunter2" not in text
    assert "://" not in str(caught.value)
    return caught.value


# -- getting in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"password": "hunter2%2"}, ConfigurationError, "does not accept the password"),
        ({"database": "nowhere"}, ConfigurationError, "named in the URL does not exist"),
        ({"host": "nosuch.invalid"}, ConfigurationError, "host in the URL is unknown"),
        ({"port": 0}, TransientError, "refuses connections"),
        ({"query": {"sslmode": "require"}}, ConfigurationError, "does not speak TLS"),
        ({"query": {"sslmode": "maybe"}}, ConfigurationError, "sslmode that Postgres does not"),
        ({"query": {"ssl": "1"}}, ConfigurationError, "option that Postgres does not know"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_each_way_of_not_getting_in_is_told_apart(
    postgres_url: str,
    change: dict[str, object],
    kind: type[FileConnectorError],
    words: str,
) -> None:
    if change == {"port": 0}:
        change = {"port": free_port()}
    with opened(same_server(postgres_url, **change)) as store:
        error = told(lambda: store.state("plans"))
        assert type(error) is kind
        assert words in str(error)
        assert "SUPABASE_DB_URL" in str(error)
        assert "[redacted]" not in str(error)


def test_a_database_that_does_not_answer_is_given_up_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"postgresql://postgres:hunter2@127.0.0.1:{port}/x?connect_timeout=2"
        with opened(url) as store:
            error = told(lambda: store.state("plans"))
    assert isinstance(error, TransientError)
    assert "did not answer in time" in str(error)


@pytest.mark.parametrize(
    "said",
    [
        "FATAL:  sorry, too many clients already",
        'FATAL:  too many connections for role "app"',
        'FATAL:  too many connections for database "app"',
    ],
)
def test_whoever_limits_connections_the_message_says_what_helps(said: str) -> None:
    error = translated(psycopg2.OperationalError(f'connection to "127.0.0.1" failed: {said}'))
    assert type(error) is TransientError
    assert "pooler" in error.remedy


@pytest.mark.parametrize(
    "said",
    [
        "SSL error: certificate verify failed",
        'root certificate file "/ca.pem" does not exist',
        'server certificate for "10.0.0.1" does not match host name "127.0.0.1"',
        'private key file "/k.pem" has group or world access',
        "channel binding is required, but server did not offer it",
    ],
)
def test_what_is_wrong_with_tls_is_not_waited_for(said: str) -> None:
    error = translated(psycopg2.OperationalError(f'connection to "127.0.0.1" failed: {said}'))
    assert type(error) is ConfigurationError
    assert "SUPABASE_DB_URL" in error.remedy


@pytest.mark.parametrize(
    "url",
    [
        *("hunter2", "mysql://a:hunter2@b/c", "https://x.supabase.co", "a:b@c:hunter2/"),
        *("postgresql://a:half@hunter2@b/c", "postgresql://a:hunter2@b:port/c"),
    ],
)
def test_what_is_no_postgres_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SUPABASE_DB_URL") as caught:
        open_store(url, Path())
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg"]
)
def test_every_spelling_of_a_url_works(postgres_url: str, scheme: str) -> None:
    """As copied from Supabase's page for other tools, options included."""
    url = same_server(
        postgres_url,
        drivername=scheme,
        query={
            "sslmode": "prefer",
            "pgbouncer": "true",
            "connection_limit": "1",
            "connect_timeout": "7",
            "options": "-c search_path=public -c lock_timeout=1s",
        },
    )
    with closing(open_store(url, Path())) as store:
        store.check()
    assert make_url(url).password == PASSWORD


def test_hosts_and_options_reach_the_driver() -> None:
    url = driver_url(
        "postgres://u:p%25@[2001:db8::1]:6543/db?sslmode=verify-full&options=-c%20a%3Db"
    )
    assert (url.drivername, url.host, url.port) == ("postgresql+psycopg2", "2001:db8::1", 6543)
    assert url.password == "p%"
    assert dict(url.query) == {"sslmode": "verify-full", "options": "-c a=b"}


@pytest.mark.parametrize("where", ["before the @", "among the options"])
def test_a_password_the_driver_repeats_is_not_shown(where: str) -> None:
    """Whatever spelling of it ends up in somebody's message."""
    password, spelled = "hun/ter2%4", "hun%2Fter2%254"
    driver_url(
        f"postgresql://u:{spelled}@h/d"
        if where == "before the @"
        else f"postgresql://h/d?user=u&password={spelled}"
    )
    for word in (password, spelled):
        assert word not in str(ConfigurationError(f"could not connect with {word}"))


def test_a_password_with_a_raw_at_sign_is_not_shown_by_half() -> None:
    """DAGSTER_POSTGRES_URL, say, of which nobody told us that it holds a secret."""
    said = redact("no answer from postgresql+psycopg2://u:half@other-half@db.example/x, giving up")
    assert said == "no answer from postgresql+psycopg2://u:[redacted]@db.example/x, giving up"


def test_a_password_may_hold_any_character(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    password = "p%40 /:@?#[]&=+ü%"
    postgres_server.execute(f"create role odd login superuser password '{password}'")
    try:
        with opened(same_server(postgres_url, username="odd", password=password)) as store:
            assert store.state("plans").version == 0
    finally:
        postgres_server.execute("drop role odd")


@pytest.mark.parametrize(
    ("settings", "query"),
    [
        ({"client_encoding": "latin1"}, {}),
        ({}, {"client_encoding": "latin1"}),
        ({"search_path": "app, public"}, {}),
        ({"search_path": "app"}, {}),
        (
            {
                "timezone": "America/New_York",
                "datestyle": "German, DMY",
                "intervalstyle": "iso_8601",
                "default_transaction_isolation": "serializable",
                "statement_timeout": "1s",
                "idle_in_transaction_session_timeout": "1s",
            },
            {},
        ),
    ],
    ids=str,
)
def test_settings_of_a_database_change_nothing(
    postgres_server: PostgresServer,
    empty_postgres_url: str,
    settings: dict[str, str],
    query: dict[str, str],
) -> None:
    """Among them a schema of the application, looked into before ours, that has such tables too."""
    database = str(make_url(empty_postgres_url).database)
    postgres_server.execute("create schema app", database)
    for name in ("files", "sync_state", "endpoints", "file_connector_migrations"):
        postgres_server.execute(f"create table app.{name} (name text, checksum text)", database)
    for name, value in settings.items():
        postgres_server.execute(f"alter database {database} set {name} = {value!r}", database)
    if "search_path" in settings:
        postgres_server.execute(
            f"alter database {database} set search_path = {settings['search_path']}", database
        )
    title = "Pl\u00e4ne \u56f3\u9762\t\\ '"
    with opened(same_server(empty_postgres_url, query=query)) as store:
        store.migrate()
        store.check()
        writer = Writer(store)
        for what, counts in ((title, (1, 0, 0)), (title, (0, 0, 1)), (title + "2", (0, 1, 0))):
            result = writer.commit(a_file("f1", title=what, updated_at=NOON), mark_seen=True)
            assert (result.inserted, result.updated, result.unchanged) == counts
        assert [f.title for f in store.live_between("plans", NOON, at(13))] == [title + "2"]
        assert store.unseen_count("plans", 0) == 0
        store.mirror([])
    read = "select convert_to(title, 'utf8'), updated_at at time zone 'utc' from public.files"
    [(stored, updated_at)] = postgres_server.execute(read, database)
    assert (bytes(stored).decode(), updated_at) == (title + "2", NOON.replace(tzinfo=None))
    assert postgres_server.execute("select from app.files", database) == []


def test_opening_connects_to_nothing(tmp_path: Path) -> None:
    """Definitions load without a database."""
    open_store(f"postgresql://a:b@127.0.0.1:{free_port()}/x", tmp_path).close()
    open_store(None, tmp_path / "not" / "made").close()
    assert list(tmp_path.iterdir()) == []


# -- what the login may do -------------------------------------------------------------------------


@pytest.fixture
def clerk(postgres_server: PostgresServer, own_postgres_url: str) -> Iterator[str]:
    """The URL of a login that owns nothing."""
    database = make_url(own_postgres_url).database
    postgres_server.execute(f"create role clerk login password '{PASSWORD}'")
    yield same_server(own_postgres_url, username="clerk")
    postgres_server.execute("drop owned by clerk", database)
    postgres_server.execute("drop role clerk")


def test_a_missing_grant_is_named(clerk: str) -> None:
    with opened(clerk) as store:
        error = told(lambda: store.state("plans"))
    assert isinstance(error, ConfigurationError)
    assert "lacks a permission (permission denied for table" in str(error)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("revoke all on sync_leases from clerk", "lacks permissions: select, insert, update"),
        ("revoke insert on files from clerk", "lacks permissions: insert on files"),
        ("revoke delete on sync_met from clerk", "lacks permissions: delete on sync_met"),
        ("alter table sync_state enable row level security", "hides the rows of sync_state"),
        (
            "alter table file_connector_migrations enable row level security",
            "row-level security hides the rows of file_connector_migrations",
        ),
        ("drop table sync_folders", "tables are missing: sync_folders. Run `file-connector mig"),
        ("alter role clerk set default_transaction_read_only = on", "the database is read-only"),
        ("delete from file_connector_migrations where name ~ 'rest'", "those of an older version"),
        ("drop table file_connector_migrations", "the tables are missing. Run `file-connector mi"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_a_check_tells_apart_what_would_keep_a_run_from_writing(
    postgres_server: PostgresServer, clerk: str, harm: str, words: str
) -> None:
    database = make_url(clerk).database
    able = "".join(
        f"alter table {t.name} disable row level security;" for t in metadata.sorted_tables
    )
    postgres_server.execute(
        f"{able} alter table file_connector_migrations disable row level security;"
        "grant all on all tables in schema public to clerk",
        database,
    )
    with opened(clerk) as store:
        store.check()
    postgres_server.execute(harm, database)
    with opened(clerk) as store:
        error = told(store.check)
    assert type(error) is ConfigurationError
    assert words in str(error)


def test_a_dropped_table_comes_back(postgres_server: PostgresServer, own_postgres_url: str) -> None:
    with opened(own_postgres_url) as store:
        Writer(store).commit(a_file("f1"))
        postgres_server.execute("drop table sync_folders", make_url(own_postgres_url).database)
        assert store.migrate(dry_run=True) == store.migrate() != []
        assert store.migrate() == []
        store.check()
        assert store.known("plans").live_count() == 1


# -- in the middle of a commit ---------------------------------------------------------------------


def state_of_things(server: PostgresServer, url: str) -> list[object]:
    database = make_url(url).database
    tables = ("files", "sync_state", "sync_folders", "sync_runs", "change_counter")
    return [server.execute(f"select * from {t} order by 1, 2", database) for t in tables]


def trip(server: PostgresServer, url: str, code: str, times: int = 1_000) -> None:
    """Let the database fail with SQLSTATE ``code`` the next ``times`` times a file is inserted."""
    server.execute(
        f"""
        create sequence trips;
        create function trip() returns trigger language plpgsql as $$
        begin
            if nextval('trips') <= {times} then
                raise exception 'tripped' using errcode = '{code}';
            end if;
            return new;
        end $$;
        create trigger trip before insert on files for each row execute function trip();
        """,
        make_url(url).database,
    )


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_deadlocks_and_serialization_failures_are_repeated(
    postgres_server: PostgresServer, own_postgres_url: str, code: str
) -> None:
    trip(postgres_server, own_postgres_url, code, times=3)
    waits: list[float] = []
    with opened(own_postgres_url, sleep=waits.append) as store:
        result = Writer(store).commit(a_file("f1"), moved={"cursor": "c"})
        assert (result.inserted, result.state.version) == (1, 1)
        assert store.runs("plans")[0].counts.inserted == 1
    assert len(waits) == 3


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("40001", TransientError, "could not serialize"),
        ("40P01", TransientError, "deadlock"),
        ("53100", ConfigurationError, "disk is full"),
        ("53200", TransientError, "53200"),
        ("55P03", TransientError, "holds a lock"),
        ("57014", TransientError, "took too long"),
        ("25006", ConfigurationError, "read-only"),
        ("42501", ConfigurationError, "lacks a permission"),
        ("0A000", BugError, "0A000"),
    ],
)
def test_a_failing_commit_leaves_nothing_behind(
    postgres_server: PostgresServer,
    own_postgres_url: str,
    code: str,
    kind: type[FileConnectorError],
    words: str,
) -> None:
    with opened(own_postgres_url, sleep=lambda _: None) as store:
        writer = Writer(store)
        writer.commit(a_file("f0", parent_id="b"), folders=folders("a", "a/b"))
        before = state_of_things(postgres_server, own_postgres_url)
        trip(postgres_server, own_postgres_url, code)
        error = told(
            lambda: writer.commit(
                a_file("f1", title="a title that is nobody's business"),
                folders=[Folder("b", "a", "N")],
                gone=[Gone("f0", GoneReason.DELETED)],
                moved={"cursor": "c"},
            )
        )
        assert type(error) is kind
        assert words in str(error)
        assert "nobody" not in str(error)
        assert state_of_things(postgres_server, own_postgres_url) == before


def test_a_lock_is_not_waited_for_for_ever(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    with opened(postgres_url, lock_seconds=0.2) as store:
        writer = Writer(store)
        with closing(postgres_server.connect(make_url(postgres_url).database)) as other:
            other.autocommit = False
            other.cursor().execute("select * from sync_state for update")
            error = told(lambda: writer.commit(a_file("f1")))
        assert isinstance(error, TransientError)
        assert "holds a lock" in str(error)
        assert writer.commit(a_file("f1")).inserted == 1


def test_a_statement_is_not_waited_for_for_ever(
    postgres_server: PostgresServer, own_postgres_url: str
) -> None:
    with opened(own_postgres_url, statement_seconds=0.2) as store:
        writer = Writer(store)
        postgres_server.execute(
            "create function doze() returns trigger language plpgsql as "
            "$$ begin perform pg_sleep(20); return new; end $$;"
            "create trigger doze before insert on files execute function doze()",
            make_url(own_postgres_url).database,
        )
        error = told(lambda: writer.commit(a_file("f1")))
    assert isinstance(error, TransientError)
    assert "took too long" in str(error)


def test_s26_nothing_new_does_not_wait_for_the_counter(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """An idle endpoint must not queue behind a busy one."""
    with opened(postgres_url, lock_seconds=5) as store:
        writer = Writer(store)
        writer.commit(a_file("f1"), folders=folders("root"))
        with closing(postgres_server.connect(make_url(postgres_url).database)) as other:
            other.autocommit = False
            other.cursor().execute("select * from change_counter for update")
            result = writer.commit(
                a_file("f1"),
                folders=folders("root", "root/a"),
                gone=[Gone("zz", GoneReason.DELETED)],
            )
    assert result.unchanged == 1


def saying(word: bytes, number: int = 1) -> Callable[[bytes], bool]:
    """Whether this is the ``number``-th time the client says ``word``."""
    count = 0

    def heard(data: bytes) -> bool:
        nonlocal count
        count += word in data
        return word in data and count == number

    return heard


ONE_COMMIT = (
    b"set local",
    b"FOR UPDATE",
    b"sync_leases",
    b"clock_timestamp",
    b"change_counter",
    b"copy public.files",
    b"UPDATE public.sync_state",
    b"UPDATE public.sync_runs",
    b"COMMIT",
)


@pytest.mark.parametrize("cut_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("word", ONE_COMMIT, ids=lambda word: word.decode())
def test_s17_a_connection_cut_at_any_moment(
    postgres_url: str, word: bytes, cut_after: bool
) -> None:
    """Cut before COMMIT: repeated. Cut after COMMIT was sent: found out, and never stored twice."""
    with opened(postgres_url) as direct:
        writer = Writer(direct)
        with (
            CuttingProxy(postgres_url, saying(word), cut_after=cut_after) as proxy,
            opened(proxy.url, sleep=lambda _: None) as store,
        ):
            store._ensure_ready()
            writer.store = store
            result = writer.commit(a_file("f1"), a_file("f2"), moved={"cursor": "c1"})
            assert proxy.cuts == 1
            assert (result.inserted, result.state.version) == (2, 1)
            assert writer.commit(a_file("f1")).unchanged == 1
        assert direct.state("plans").cursor == "c1"
        counts = direct.runs("plans")[0].counts
        assert (counts.inserted, counts.unchanged) == (2, 1)


@pytest.mark.parametrize("cut_after", [False, True], ids=["before", "after"])
def test_s17_a_cut_commit_of_every_other_kind(postgres_url: str, cut_after: bool) -> None:
    def through_a_cut(work: Callable[[Store], object]) -> object:
        with (
            CuttingProxy(postgres_url, saying(b"COMMIT"), cut_after=cut_after) as proxy,
            opened(proxy.url, sleep=lambda _: None) as store,
        ):
            store._ensure_ready()
            result = work(store)
            assert proxy.cuts == 1
            return result

    identity = an_identity()
    with opened(postgres_url) as direct:
        through_a_cut(lambda s: s.begin_run(identity, Mode.SWEEP, "run-1"))
        with pytest.raises(BusyError):
            direct.begin_run(identity, Mode.SWEEP, "run-2")
        writer = Writer(direct, begin=False)
        writer.commit(a_file("f1"))
        assert through_a_cut(lambda s: s.restamp(an_identity(user_id="ben"), "run-1")) == 1
        assert direct.state("plans").version == 2
        assert through_a_cut(lambda s: s.renew("plans", "run-1")) is True
        through_a_cut(lambda s: s.finish_run("run-1", Outcome.COMPLETE, "", 1, 0))
        assert direct.runs("plans")[0].outcome is Outcome.COMPLETE
        advanced = through_a_cut(lambda s: s.advance(direct.state("plans")))
        assert advanced == direct.state("plans")
        through_a_cut(lambda s: s.reset("plans"))
        assert direct.state("plans").version == 4
        through_a_cut(lambda s: s.note_success(identity, NOON))
        through_a_cut(lambda s: s.mirror([]))


def test_a_dead_network_ends_as_a_transient_error(postgres_url: str) -> None:
    with (
        CuttingProxy(
            postgres_url, lambda data: b"set local" in data, cut_after=False, times=99
        ) as proxy,
        opened(proxy.url, sleep=lambda _: None) as store,
    ):
        error = told(lambda: Writer(store))
    assert isinstance(error, TransientError)


@pytest.mark.parametrize("cut_after", [False, True], ids=["before", "after"])
def test_a_connection_cut_while_it_is_made_is_made_again(
    postgres_url: str, cut_after: bool
) -> None:
    """A pooler or a server that restarts."""
    waits: list[float] = []
    with (
        CuttingProxy(postgres_url, saying(b"file-connector"), cut_after=cut_after) as proxy,
        opened(proxy.url, sleep=waits.append) as store,
    ):
        assert store.state("plans").version == 0
        assert (proxy.cuts, len(waits)) == (1, 1)


@pytest.mark.parametrize("cut_after", [False, True], ids=["before", "after"])
def test_a_read_that_is_cut_off_is_asked_again(postgres_url: str, cut_after: bool) -> None:
    with opened(postgres_url) as direct:
        Writer(direct).commit(a_file("f1"))
    with (
        CuttingProxy(postgres_url, saying(b"count("), cut_after=cut_after) as proxy,
        opened(proxy.url, sleep=lambda _: None) as store,
    ):
        assert store.known("plans").live_count() == 1
        assert proxy.cuts == 1


def test_an_idle_connection_that_died_is_replaced(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    with opened(postgres_url) as store:
        writer = Writer(store)
        name = make_url(postgres_url).database
        postgres_server.execute(
            f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
        )
        assert store.state("plans").version == 0
        assert writer.commit(a_file("f1")).inserted == 1


SESSION_STATE = re.compile(
    r"(^|;)\s*(set\s+(?!local)|prepare|execute|listen|discard|load\b|declare|create\s+temp)"
    r"|pg_(try_)?advisory_lock|set_config",
    re.IGNORECASE,
)


def test_nothing_said_to_postgres_outlives_its_transaction(postgres_url: str) -> None:
    """So that a transaction pooler may hand every transaction to another session."""
    said: list[str] = []
    with opened(postgres_url, encryption_key=Fernet.generate_key().decode()) as store:

        @event.listens_for(store._engine, "before_cursor_execute")
        def listen(_: object, __: object, statement: str, *___: object) -> None:
            said.append(statement)

        store.migrate()
        writer = Writer(store)
        writer.commit(a_file("f1", parent_id="b"), folders=folders("a", "a/b"), mark_seen=True)
        writer.commit(
            a_file("f1", title="x"),
            folders=[Folder("b", "a", "N")],
            gone=[Gone("f1", GoneReason.DELETED)],
        )
        store.restamp(an_identity(user_id="ben"), "run-1")
        store.renew("plans", "run-1")
        store.finish_run("run-1", Outcome.COMPLETE, "", 0, 0)
        store.advance(store.state("plans"))
        store.note_failure(an_identity(), NOON, "x", None)
        store.mirror([])
        store.limiter().acquire("client", 60)
        vault = store.vault(None)
        assert vault is not None
        with vault.locked("acme"):
            vault.save("acme", {})
    assert len(said) > 60
    assert [statement for statement in said if SESSION_STATE.search(statement)] == []


# -- the SQLite file -------------------------------------------------------------------------------


def test_sqlite_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "supabase.db")

    @event.listens_for(store._engine, "connect")
    def small(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 120")

    writer = Writer(store)
    writer.commit(a_file("f0"))
    error = told(
        lambda: writer.commit(
            *[a_file(f"f{i:04}", title="x" * 500) for i in range(2000)], moved={"cursor": "c"}
        )
    )
    assert isinstance(error, ConfigurationError)
    assert "full" in str(error)
    assert store.known("plans").live_count() == 1
    assert store.state("plans").cursor is None
    assert writer.commit(a_file("f1")).inserted == 1
    store.close()


def test_sqlite_a_disk_without_room_for_its_helper_files_says_what_to_do() -> None:
    """What SQLite says where the disk fills up between two runs, even to those who only read."""
    error = translated(sqlite3.OperationalError("disk I/O error"))
    assert isinstance(error, TransientError)
    assert "FILE_CONNECTOR_HOME" in str(error)
    assert "disk I/O error" in str(error)


def test_sqlite_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "supabase.db").write_bytes(b"not a database, " * 100)
    store = open_store(None, tmp_path)
    error = told(lambda: store.state("plans"))
    assert isinstance(error, ConfigurationError)
    assert "is not a database" in str(error)
    store.close()


def test_sqlite_a_home_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = open_store(None, tmp_path / "file" / "home")
    error = told(lambda: store.state("plans"))
    assert isinstance(error, ConfigurationError)
    assert "FILE_CONNECTOR_HOME" in str(error)
    (tmp_path / "supabase.db").mkdir()
    store = open_store(None, tmp_path)
    error = told(lambda: store.state("plans"))
    assert isinstance(error, ConfigurationError)
    assert "cannot be opened" in str(error)
    store.close()


def test_sqlite_a_writer_that_holds_on_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "supabase.db", busy_seconds=0.2)
    writer = Writer(store)
    with closing(sqlite3.connect(tmp_path / "supabase.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        error = told(lambda: writer.commit(a_file("f1")))
        assert store.known("plans").live_count() == 0  # readers go on
    assert isinstance(error, TransientError)
    assert "another process has been writing" in str(error)
    assert writer.commit(a_file("f1")).inserted == 1
    store.close()


def test_sqlite_is_made_once_by_many_at_once(tmp_path: Path) -> None:
    stores = [open_store(None, tmp_path / "home") for _ in range(6)]
    threads = [threading.Thread(target=store.state, args=("plans",)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.state("plans").version for store in stores] == [0] * 6
    for store in stores:
        store.close()
