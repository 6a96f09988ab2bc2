"""Migrations, the tables the code expects and the SQLite file are one and the same."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from file_connector.destination import migrations
from file_connector.destination.migrations import Migration
from file_connector.destination.open import open_store
from file_connector.destination.postgres import PostgresStore, driver_url
from file_connector.destination.tables import metadata
from file_connector.errors import ConfigurationError
from file_connector_tests.builders import a_file
from file_connector_tests.destination.helpers import Writer
from file_connector_tests.postgres import PostgresServer

RUNNER = "file_connector_migrations"

SHAPE = """
    select table_name, column_name, data_type, is_nullable, collation_name, column_default
    from information_schema.columns where table_schema = 'public' order by 1, 2;
"""
INDEXES = "select indexname, indexdef from pg_indexes where schemaname = 'public' order by 1"
CHECKS = """
    select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
    where connamespace = 'public'::regnamespace and contype in ('c', 'p', 'u', 'f') order by 1, 2
"""


@pytest.fixture
def store(empty_postgres_url: str) -> Iterator[PostgresStore]:
    opened = PostgresStore(empty_postgres_url)
    yield opened
    opened.close()


def shape(server: PostgresServer, url: str) -> list[list[tuple[object, ...]]]:
    database = make_url(url).database
    return [
        [row for row in server.execute(sql, database) if RUNNER not in str(row)]
        for sql in (SHAPE, INDEXES, CHECKS)
    ]


def test_migrations_make_the_tables_the_code_expects(
    postgres_server: PostgresServer, postgres_url: str, empty_postgres_url: str
) -> None:
    engine = create_engine(driver_url(empty_postgres_url))
    metadata.create_all(engine)
    engine.dispose()
    expected, migrated = (shape(postgres_server, u) for u in (empty_postgres_url, postgres_url))
    assert [len(part) > 10 for part in expected] == [True] * 3
    assert migrated == expected


def test_sqlite_has_the_same_tables_and_columns(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    store = open_store(None, tmp_path)
    store.migrate()
    store.close()
    with closing(sqlite3.connect(tmp_path / "supabase.db")) as file:
        tables = [
            name
            for (name,) in file.execute("select name from sqlite_master where type = 'table'")
            if not name.startswith("sqlite_")
        ]
        here = {
            (table, column[1], "NO" if column[3] else "YES")
            for table in tables
            for column in file.execute(f"pragma table_info({table})")
        }
    there = {(row[0], row[1], row[3]) for row in shape(postgres_server, postgres_url)[0]}
    assert here == there


def test_migrating_twice_changes_nothing(
    postgres_server: PostgresServer, empty_postgres_url: str, store: PostgresStore
) -> None:
    names = [m.name for m in migrations.shipped()]
    assert store.migrate(dry_run=True) == names
    assert postgres_server.execute(INDEXES, make_url(empty_postgres_url).database) == []
    assert store.migrate() == names
    first = shape(postgres_server, empty_postgres_url)
    assert store.migrate() == []
    assert store.migrate(dry_run=True) == []
    assert shape(postgres_server, empty_postgres_url) == first
    Writer(store).commit(a_file("f1"))
    assert store.migrate() == []


def test_two_migrators_at_once(empty_postgres_url: str) -> None:
    stores = [PostgresStore(empty_postgres_url) for _ in range(4)]
    applied: list[object] = []
    threads = [threading.Thread(target=lambda s=s: applied.append(s.migrate())) for s in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    assert sorted(map(str, applied)) == sorted(
        map(str, [[m.name for m in migrations.shipped()], [], [], []])
    )


def test_an_edited_migration_is_told(
    postgres_server: PostgresServer, empty_postgres_url: str, store: PostgresStore
) -> None:
    store.migrate()
    postgres_server.execute(
        f"update {RUNNER} set checksum = 'other'", make_url(empty_postgres_url).database
    )
    for dry_run in (True, False):
        with pytest.raises(ConfigurationError, match="was edited after it was applied"):
            store.migrate(dry_run=dry_run)


def test_what_supabases_own_tool_pushed_is_recognized(
    postgres_server: PostgresServer, empty_postgres_url: str, store: PostgresStore
) -> None:
    """It runs the files and knows nothing of our checksums."""
    database = make_url(empty_postgres_url).database
    for migration in migrations.shipped():
        postgres_server.execute(migration.sql, database)
    assert store.state("plans").version == 0
    assert store.migrate() == []
    found = postgres_server.execute(f"select name, checksum from {RUNNER} order by 1", database)
    assert found == [(m.name, m.checksum) for m in migrations.shipped()]


def test_files_may_be_applied_over_themselves(
    postgres_server: PostgresServer, own_postgres_url: str
) -> None:
    database = make_url(own_postgres_url).database
    before = shape(postgres_server, own_postgres_url)
    postgres_server.execute(
        "insert into endpoints values ('e','','','','','new',null,null,0,null,'')", database
    )
    for migration in migrations.shipped():
        postgres_server.execute(migration.sql, database)
    assert shape(postgres_server, own_postgres_url) == before
    assert postgres_server.execute("select endpoint_id from endpoints", database) == [("e",)]


def test_a_new_version_asks_for_its_migration_and_keeps_the_data(
    postgres_server: PostgresServer, own_postgres_url: str
) -> None:
    later = Migration(
        "20991231235959_later",
        "alter table public.endpoints add column note text;"
        f"insert into public.{RUNNER} (name) values ('20991231235959_later')",
    )
    engine = create_engine(driver_url(own_postgres_url))
    postgres_server.execute(
        "insert into endpoints values ('e','','','','','new',null,null,0,null,'')",
        make_url(own_postgres_url).database,
    )
    with engine.begin() as conn:
        assert migrations.migrate(conn, wanted=[*migrations.shipped(), later]) == [later.name]
    with engine.begin() as conn:
        assert migrations.migrate(conn, wanted=[*migrations.shipped(), later]) == []
        assert migrations.migrate(conn) == []  # an older program leaves newer tables alone
        endpoints = conn.exec_driver_sql("select endpoint_id, note from endpoints").all()
        assert [tuple(row) for row in endpoints] == [("e", None)]
    engine.dispose()


def test_a_failing_migration_changes_nothing(
    postgres_server: PostgresServer, own_postgres_url: str
) -> None:
    before = shape(postgres_server, own_postgres_url)
    bad = Migration("20991231235959_bad", "create table public.half (); select 1 / 0;")
    engine = create_engine(driver_url(own_postgres_url))
    with pytest.raises(Exception, match="division by zero"), engine.begin() as conn:
        migrations.migrate(conn, wanted=[*migrations.shipped(), bad])
    engine.dispose()
    assert shape(postgres_server, own_postgres_url) == before


@pytest.mark.parametrize("theirs", ["table files (id integer)", "view files as select 1 as id"])
def test_files_of_another_application_are_left_alone(
    postgres_server: PostgresServer, empty_postgres_url: str, store: PostgresStore, theirs: str
) -> None:
    database = make_url(empty_postgres_url).database
    postgres_server.execute(f"create {theirs}", database)
    for dry_run in (True, False):
        with pytest.raises(ConfigurationError, match=r"is not ours\. Rename it"):
            store.migrate(dry_run=dry_run)
    tables = "select table_name from information_schema.tables where table_schema = 'public'"
    assert postgres_server.execute(tables, database) == [("files",)]


@pytest.mark.parametrize("publishes", ["some tables", "all tables", "for somebody else"])
def test_files_are_published_to_realtime_where_it_is(
    postgres_server: PostgresServer, empty_postgres_url: str, store: PostgresStore, publishes: str
) -> None:
    database = make_url(empty_postgres_url).database
    name = "another" if publishes == "for somebody else" else "supabase_realtime"
    whole = " for all tables" if publishes == "all tables" else ""
    postgres_server.execute(f"create publication {name}{whole}", database)
    store.migrate()
    files = migrations.shipped()
    for migration in files:  # once more changes nothing
        postgres_server.execute(migration.sql, database)
    published = postgres_server.execute(
        "select tablename from pg_publication_rel r "
        "join pg_publication p on p.oid = r.prpubid "
        "join pg_publication_tables t on t.pubname = p.pubname "
        f"where p.pubname = '{name}'",
        database,
    )
    assert published == ([("files",)] if publishes == "some tables" else [])
    identity = "select relreplident from pg_class where oid = 'files'::regclass"
    assert postgres_server.execute(identity, database) == [("d",)]


ONE_OF_EACH = {
    "files": "('e', 'f', 'google_drive', 'p', 'u', 'Title', null, null, null, null, 1, 2, "
    "'Title', null, null, null, now(), now(), 7, '{}')",
    "sync_state": "('e', 1, '\"c\"', null, 3, null, null, null, null, false, null, 0, false, '[]')",
    "sync_folders": "('e', 'd', null, 'D', '{}')",
    "sync_seen": "('e', 3, 'f')",
    "sync_runs": "('r', 'e', now(), null, 'sweep', null, 1, 0, 0, 0, 5, 0, '')",
    "sync_leases": "('e', 'r', now(), now())",
    "endpoints": "('e', 'E', 'google_drive', 'p', 'u', 'ok', now(), null, 0, null, '')",
    "rate_limits": "('k', now())",
    "tokens": "('t', 'sealed', now())",
    "token_locks": "('t', 'h', now())",
}


def first_tables(server: PostgresServer, database: str) -> dict[str, str]:
    """A database as the first version made it, with a row in every table; what they hold."""
    server.execute(migrations.shipped()[0].sql, database)
    for table, row in ONE_OF_EACH.items():
        server.execute(f"insert into {table} values {row}", database)
    server.execute("update change_counter set value = 7", database)
    return {
        table: f"select {', '.join(name for (name,) in columns)} from {table}"
        for table in (*ONE_OF_EACH, "change_counter")
        if (
            columns := server.execute(
                "select column_name from information_schema.columns "
                f"where table_schema = 'public' and table_name = '{table}'",
                database,
            )
        )
    }


def test_the_first_tables_shipped_keep_their_data(
    postgres_server: PostgresServer, empty_postgres_url: str, store: PostgresStore
) -> None:
    database = str(make_url(empty_postgres_url).database)
    reads = first_tables(postgres_server, database)
    held = {table: postgres_server.execute(sql, database) for table, sql in reads.items()}
    assert all(len(rows) == 1 for rows in held.values())
    with pytest.raises(ConfigurationError, match="those of an older version: they lack 2026"):
        store.state("e")
    later = [m.name for m in migrations.shipped()[1:]]
    assert store.migrate(dry_run=True) == later
    assert store.migrate() == later
    met = "sync_seen"  # is now kept in another form
    assert reads.pop(met)
    assert held.pop(met) == [("e", 3, "f")]
    assert {t: postgres_server.execute(sql, database) for t, sql in reads.items()} == held
    assert (store.unseen_count("e", 3), store.unseen_count("e", 4)) == (0, 1)
    assert store.state("e").cursor == "c"
    store.check()


def test_an_upgrade_gives_way_to_those_who_wait_behind_it(
    postgres_server: PostgresServer,
    empty_postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader that takes its time holds an upgrade up, and the upgrade holds up other readers: not
    for long. It goes away, tries again, and in the end gets through."""
    database = str(make_url(empty_postgres_url).database)
    first_tables(postgres_server, database)
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.2)
    with closing(postgres_server.connect(database)) as reader:
        reader.autocommit = False
        reader.cursor().execute("select * from files, sync_state")
        gave_way: list[float] = []

        def sleep(seconds: float) -> None:
            gave_way.append(seconds)
            others = "select count(*) from files, sync_state"
            assert postgres_server.execute(f"set lock_timeout = '2s'; {others}", database)
            if len(gave_way) == 2:
                reader.rollback()

        with closing(PostgresStore(empty_postgres_url, sleep=sleep)) as store:
            assert len(store.migrate()) == len(migrations.shipped()) - 1
    assert len(gave_way) == 2


def test_an_index_made_beforehand_is_found_by_the_upgrade(
    postgres_server: PostgresServer, empty_postgres_url: str, store: PostgresStore
) -> None:
    """The words of docs/supabase.md, for those whose writers must not wait for it."""
    database = str(make_url(empty_postgres_url).database)
    first_tables(postgres_server, database)
    words = (Path(__file__).parents[2] / "docs" / "supabase.md").read_text()
    (statement,) = re.findall("create index concurrently [^;]*", words)
    postgres_server.execute(statement, database)
    made = "select indexrelid from pg_index where indisvalid and indexrelid = to_regclass('{}')"
    ours = made.format("public.files_project_idx")
    before = postgres_server.execute(ours, database)
    assert len(before) == 1
    store.migrate()
    assert postgres_server.execute(ours, database) == before


HARSH = re.compile(
    r"\bconcurrently\b|\bcreate extension\b|^\\|^set (?!local )[^\n]*;"
    r"|^(begin|commit|rollback)( work| transaction)?;|^vacuum\b",
    re.IGNORECASE | re.MULTILINE,
)
LONG = re.compile(
    r"alter table (public\.)?files\b(?=[^;]*\b(type|set not null|check|default|unique|primary)\b)"
    r"(?![^;]*not valid)",
    re.IGNORECASE,
)


def test_files_are_plain_sql_of_one_transaction_each() -> None:
    """As `supabase db push` applies them; and none reads all of `files` under a lock."""
    found = migrations.shipped()
    assert HARSH.search("select 1;\n\\echo")
    assert LONG.search("alter table public.files alter column title set not null")
    assert [m.name for m in found if HARSH.search(m.sql)] == []
    assert [m.name for m in found[1:] if LONG.search(m.sql)] == []


def test_names_follow_supabases_convention() -> None:
    stamps = [migration.name.partition("_")[0] for migration in migrations.shipped()]
    assert len(set(stamps)) == len(stamps)  # to Supabase's tool, the stamp alone is the version
    for migration in migrations.shipped():
        stamp, _, words = migration.name.partition("_")
        assert len(stamp) == 14
        assert stamp.isdigit()
        assert words.replace("_", "").isalnum()
        assert f"values ('{migration.name}') on conflict do nothing;" in migration.sql
        assert migration.sql.rstrip().endswith("notify pgrst, 'reload schema';")


def test_sqlite_files_of_an_older_version_are_brought_up(tmp_path: Path) -> None:
    store = open_store(None, tmp_path)
    writer = Writer(store)
    writer.commit(a_file("f1"))
    store.close()
    with closing(sqlite3.connect(tmp_path / "supabase.db", isolation_level=None)) as file:
        file.execute("alter table sync_state drop column stored_at")
        file.execute("drop table rate_limits")
        file.execute("drop index files_project_idx")
        file.execute("drop table sync_met")
        file.execute("create table sync_seen (endpoint_id text, pass_no integer, external_id text)")
        file.execute("insert into sync_seen values ('plans', 3, 'f1')")
    again = open_store(None, tmp_path)
    lacking = {"rate_limits", "sync_state.stored_at", "files_project_idx", "sync_met"}
    assert set(again.migrate(dry_run=True)) == lacking
    assert set(again.migrate()) == lacking
    assert again.migrate() == ()
    assert (again.unseen_count("plans", 3), again.unseen_count("plans", 4)) == (0, 1)
    writer.store = again
    assert writer.commit(a_file("f1")).unchanged == 1
    again.close()
