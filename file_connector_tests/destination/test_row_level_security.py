"""Who may read and write what, over the roles that Supabase gives to its clients.

The database is dressed as Supabase's: its roles, and default privileges that hand every new table
of ``public`` to them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest

from file_connector.destination.postgres import PostgresStore
from file_connector.models import Gone, GoneReason, Outcome
from file_connector_tests.builders import NOON, a_file, an_identity
from file_connector_tests.destination.helpers import Writer
from file_connector_tests.postgres import PostgresServer

ROLES = ("anon", "authenticated", "service_role")
ANA, BEN = "6c2cffb0-e8c8-43d3-b415-e53f4377cedb", "user_2ben"
"""The subject of Supabase's own sign-in is a uuid; a third party's need not be."""

OPEN_TO = {
    "authenticated": {"files": {"SELECT"}},
    "service_role": {
        table: {"SELECT", "INSERT", "UPDATE", "DELETE"}
        for table in ("files", "sync_runs", "endpoints")
    },
    "anon": {},
}
"""Everything else is closed. A new table must be closed by its migration, or be entered here."""


@dataclass
class Supabase:
    server: PostgresServer
    database: str

    def ask(self, role: str, sql: str, user: str | None = None) -> list[tuple[Any, ...]]:
        """As PostgREST asks: a transaction, a role, the claims of the token. Rolled back."""
        with closing(self.server.connect(self.database)) as connection:
            connection.autocommit = False
            cursor = connection.cursor()
            cursor.execute(f"set local role {role}")
            if role != "anon":
                claims = json.dumps({"sub": user, "role": role} if user else {"role": role})
                cursor.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
            cursor.execute(sql)
            rows = cursor.fetchall() if cursor.description else [(cursor.rowcount,)]
            connection.rollback()
            return rows

    def tables(self) -> list[str]:
        found = self.server.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace "
            "and relkind in ('r', 'p', 'v', 'm', 'f') order by 1",
            self.database,
        )
        return [name for (name,) in found]


@pytest.fixture(scope="module")
def supabase(postgres_server: PostgresServer) -> Iterator[Supabase]:
    made = []
    for role in ROLES:
        if not postgres_server.execute(f"select 1 from pg_roles where rolname = '{role}'"):
            bypass = "bypassrls" if role == "service_role" else ""
            postgres_server.execute(f"create role {role} nologin {bypass}")
            made.append(role)
    name = postgres_server.create()
    for kind in ("tables", "functions", "sequences"):
        postgres_server.execute(
            f"alter default privileges in schema public grant all on {kind} "
            f"to {', '.join(ROLES)}; grant usage on schema public to {', '.join(ROLES)}",
            name,
        )
    store = PostgresStore(postgres_server.url(name))
    store.migrate()
    for user in (ANA, BEN):
        writer = Writer(store, an_identity(f"of-{user}", user_id=user), f"run-{user}")
        writer.commit(a_file("f1"), a_file("f2"))
        writer.commit(gone=[Gone("f2", GoneReason.DELETED)])
        store.finish_run(writer.run_id, Outcome.COMPLETE, "", 0, 0)
        store.note_success(writer.identity, NOON)
    store.close()
    yield Supabase(postgres_server, name)
    postgres_server.drop(name)
    for role in made:
        postgres_server.execute(f"drop role {role}")


def test_a_user_reads_own_rows_only(supabase: Supabase) -> None:
    for user in (ANA, BEN):
        rows = supabase.ask("authenticated", "select user_id, external_id from files", user)
        assert sorted(rows) == [(user, "f1"), (user, "f2")]
        other = BEN if user == ANA else ANA
        assert (
            supabase.ask("authenticated", f"select * from files where user_id = '{other}'", user)
            == []
        )


@pytest.mark.parametrize("user", [None, "", "nobody", "%", "6C2CFFB0-E8C8-43D3-B415-E53F4377CEDB"])
def test_a_token_of_nobody_reads_nothing(supabase: Supabase, user: str | None) -> None:
    assert supabase.ask("authenticated", "select * from files", user) == []


@pytest.mark.parametrize(
    "sql",
    [
        "insert into files select * from files",
        "update files set user_id = 'x'",
        "delete from files",
        "truncate files",
    ],
)
@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_users_write_nothing(supabase: Supabase, role: str, sql: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        supabase.ask(role, sql, ANA)


def test_every_table_is_guarded(supabase: Supabase) -> None:
    """A table without row-level security, or with a grant nobody decided on, fails here."""
    unguarded = supabase.server.execute(
        "select relname from pg_class where relnamespace = 'public'::regnamespace "
        "and relkind in ('r', 'p') and not relrowsecurity",
        supabase.database,
    )
    assert unguarded == []
    granted = supabase.server.execute(
        "select grantee, table_name, privilege_type from information_schema.table_privileges "
        f"where table_schema = 'public' and grantee in {(*ROLES, 'PUBLIC')!r}",
        supabase.database,
    )
    wanted = {
        (role, table, privilege)
        for role, tables in OPEN_TO.items()
        for table, privileges in tables.items()
        for privilege in privileges
    }
    assert set(granted) == wanted


def test_every_other_table_is_closed(supabase: Supabase) -> None:
    assert len(supabase.tables()) > 10
    for role in ROLES:
        for table in supabase.tables():
            if table in OPEN_TO[role]:
                assert len(supabase.ask(role, f"select * from {table}", ANA)) > 0
                continue
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                supabase.ask(role, f"select * from {table}", ANA)


def test_there_is_one_policy_and_it_reads(supabase: Supabase) -> None:
    found = supabase.server.execute(
        "select tablename, policyname, cmd from pg_policies where schemaname = 'public'",
        supabase.database,
    )
    assert found == [("files", "files_owner_reads", "SELECT")]


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_users_call_no_function(supabase: Supabase, role: str) -> None:
    found = supabase.server.execute(
        "select oid::regprocedure::text, proname, proargtypes::regtype[]::text[] from pg_proc "
        "where pronamespace = 'public'::regnamespace",
        supabase.database,
    )
    assert len(found) > 30
    for signature, name, types in found:
        arguments = ", ".join(f"null::{kind}" for kind in types)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            supabase.ask(role, f"select {name}({arguments}) -- {signature}", ANA)


def test_the_application_writes_with_the_service_role(supabase: Supabase) -> None:
    assert supabase.ask("service_role", "select count(*) from files") == [(4,)]
    assert supabase.ask("service_role", "update files set title = title") == [(4,)]
    assert supabase.ask("service_role", "delete from endpoints") == [(2,)]


def test_the_policy_is_evaluated_once_per_statement(supabase: Supabase) -> None:
    plan = supabase.ask("authenticated", "explain select * from files", ANA)
    assert "InitPlan" in str(plan)
