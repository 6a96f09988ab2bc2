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

from file_connector.destination.control import SqlControlPlane
from file_connector.destination.postgres import PostgresStore
from file_connector.models import Gone, GoneReason, Outcome
from file_connector_tests.builders import NOON, a_file, an_identity
from file_connector_tests.destination.helpers import Writer
from file_connector_tests.postgres import PostgresServer

ROLES = ("anon", "authenticated", "service_role")
ANA, BEN = "6c2cffb0-e8c8-43d3-b415-e53f4377cedb", "user_2ben"
"""The subject of Supabase's own sign-in is a uuid; a third party's need not be."""

READ, WRITE = {"SELECT"}, {"SELECT", "INSERT", "UPDATE", "DELETE"}
OPEN_TO: dict[str, dict[str, set[str]]] = {
    "authenticated": {
        "public.files": READ,
        "connectors.definitions": READ,
        "connectors.instances": READ,
        "connectors.jobs": READ,
    },
    "service_role": {
        "public.files": WRITE,
        "public.sync_runs": WRITE,
        "public.endpoints": WRITE,
        "connectors.definitions": READ,
        "connectors.instances": WRITE,
        "connectors.jobs": READ,
        "connectors.runs": READ,
        "connectors.state": READ,
    },
    "anon": {},
}
"""Everything else is closed. A new table must be closed by its migration, or be entered here."""

ASKING = {
    (role, "connectors.jobs", column)
    for role in ("authenticated", "service_role")
    for column in ("instance_id", "kind", "payload")
}
"""The columns that may be inserted, no others: a job is asked for and not forged."""

ENQUEUE = "connectors.enqueue_connector_job"
CALLED_BY_THE_APPLICATION = {
    ENQUEUE,
    "connectors.claim_connector_job",
    "connectors.held_connector_jobs",
    "connectors.waiting_connector_jobs",
    "connectors.renew_connector_job",
    "connectors.complete_connector_job",
    "connectors.fail_connector_job",
    "connectors.list_instances",
    "connectors.define_connectors",
}
"""Open to the service role; ENQUEUE also to signed-in users."""

SCHEMAS = "('public', 'connectors')"


@dataclass
class Supabase:
    server: PostgresServer
    database: str

    def ask(
        self, role: str, sql: str, user: str | None = None, **more: object
    ) -> list[tuple[Any, ...]]:
        """As PostgREST asks: a transaction, a role, the claims of the token. Rolled back."""
        with closing(self.server.connect(self.database)) as connection:
            connection.autocommit = False
            cursor = connection.cursor()
            cursor.execute(f"set local role {role}")
            if role != "anon":
                told = {"sub": user, "role": role} if user else {"role": role}
                claims = json.dumps({**told, **more})
                cursor.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
            cursor.execute(sql)
            rows = cursor.fetchall() if cursor.description else [(cursor.rowcount,)]
            connection.rollback()
            return rows

    def tables(self) -> list[str]:
        """Tables and views, in full."""
        found = self.server.execute(
            "select table_schema || '.' || table_name from information_schema.tables "
            f"where table_schema in {SCHEMAS} order by 1",
            self.database,
        )
        return [name for (name,) in found]

    def functions(self) -> list[tuple[str, str]]:
        """Every function: its name in full, and a call of it that means nothing."""
        found = self.server.execute(
            "select pronamespace::regnamespace || '.' || proname, "
            "proargtypes::regtype[]::text[] from pg_proc "
            f"where pronamespace::regnamespace::text in {SCHEMAS}",
            self.database,
        )
        return [
            (name, f"select {name}({', '.join(f'null::{kind}' for kind in types)})")
            for name, types in found
        ]


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
        identity = an_identity(f"of-{user}", user_id=user, project_id=f"site of {user}")
        writer = Writer(store, identity, f"run-{user}")
        writer.commit(a_file("f1"), a_file("f2"))
        writer.commit(gone=[Gone("f2", GoneReason.DELETED)])
        store.finish_run(writer.run_id, Outcome.COMPLETE, "", 0, 0)
        store.note_success(writer.identity, NOON)
        postgres_server.execute(
            "insert into connectors.instances (id, name, endpoint_type, project_id, user_id) "
            f"values ('in_table_{user[0]}', 'Plans', 'google_drive', 'p', '{user}'); "
            f"select connectors.enqueue_connector_job('of-{user}')",
            name,
        )
    control = SqlControlPlane(store)
    definition = {"title": "T", "details_schema": {}, "streams": [], "minimum_interval_minutes": 1}
    control.define([{"type": "google_drive", **definition}])
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
        f"select count(*) from files where user_id = '{ANA}' having count(*) > 0",
        f"select 1 / (length(title) - length(title)) from files where user_id = '{ANA}'",
        "select 1 from files where user_id <> 'user_2ben' and 1 / (change_seq - change_seq) = 1",
        f"select 1 from files tablesample system (100) where user_id = '{ANA}'",
        "select 1 from files where ctid = '(0,1)' and user_id <> 'user_2ben'",
        "select most_common_vals from pg_stats where tablename = 'files'",
        f"select 1 from connectors.jobs where instance_id = 'of-{ANA}'",
        f"select 1 from connectors.instances where id = 'in_table_{ANA[0]}'",
    ],
)
def test_no_question_tells_of_others(supabase: Supabase, sql: str) -> None:
    """Neither by its answer nor by an error that only their rows would cause."""
    supabase.server.execute("analyze files", supabase.database)
    assert supabase.ask("authenticated", sql, BEN) == []


def owners(supabase: Supabase, user: str | None, **claims: object) -> list[str]:
    """Whose rows of ``files`` a token may read."""
    found = supabase.ask("authenticated", "select distinct user_id from files", user, **claims)
    return sorted(owner for (owner,) in found)


def test_a_project_member_reads_the_projects_rows(supabase: Supabase) -> None:
    def member(*projects: str) -> dict[str, object]:
        return {"app_metadata": {"provider": "email", "project_ids": list(projects)}}

    assert owners(supabase, "carl", **member(f"site of {ANA}")) == [ANA]
    assert owners(supabase, "carl", **member("x", f"site of {BEN}", f"site of {ANA}")) == [ANA, BEN]
    assert owners(supabase, ANA, **member(f"site of {BEN}")) == [ANA, BEN]
    assert owners(supabase, None, **member(f"site of {BEN}")) == [BEN]
    assert owners(supabase, ANA, **member()) == [ANA]
    assert supabase.ask("authenticated", "select * from connectors.jobs", "carl") == []
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        supabase.ask("authenticated", "update files set title = ''", "carl", **member("site"))


@pytest.mark.parametrize(
    "claims",
    [
        {"app_metadata": {"project_ids": f"site of {ANA}"}},
        {"app_metadata": {"project_ids": {f"site of {ANA}": True}}},
        {"app_metadata": {"project_ids": [[f"site of {ANA}"], None, 7, {"a": f"site of {ANA}"}]}},
        {"app_metadata": {"project_ids": None}},
        {"app_metadata": {"project_id": f"site of {ANA}"}},
        {"app_metadata": [f"site of {ANA}"]},
        {"app_metadata": None},
        {"user_metadata": {"project_ids": [f"site of {ANA}"]}},
        {"project_ids": [f"site of {ANA}"]},
        {"app_metadata": {"project_ids": ["%", "*", "", f"SITE OF {ANA}"]}},
    ],
)
def test_no_other_claim_makes_a_member(supabase: Supabase, claims: dict[str, object]) -> None:
    """Above all not ``user_metadata``, which users write themselves."""
    assert owners(supabase, "carl", **claims) == []
    assert owners(supabase, BEN, **claims) == [BEN]


def test_both_ways_to_a_row_use_an_index(supabase: Supabase) -> None:
    with closing(supabase.server.connect(supabase.database)) as connection:
        connection.autocommit = False
        cursor = connection.cursor()
        cursor.execute("set local enable_seqscan = off; set local role authenticated")
        cursor.execute("explain select * from files")
        plan = str(cursor.fetchall())
    assert "files_user_project_idx" in plan
    assert "files_project_idx" in plan


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
        f"select oid::regclass from pg_class where relnamespace::regnamespace::text in {SCHEMAS} "
        "and (relkind in ('r', 'p') and not relrowsecurity "
        "or relkind in ('v', 'm') and not reloptions @> array['security_invoker=true'])",
        supabase.database,
    )
    assert unguarded == []
    granted = supabase.server.execute(
        "select grantee, table_schema || '.' || table_name, privilege_type "
        "from information_schema.table_privileges "
        f"where table_schema in {SCHEMAS} and grantee in {(*ROLES, 'PUBLIC')!r}",
        supabase.database,
    )
    wanted = {
        (role, table, privilege)
        for role, tables in OPEN_TO.items()
        for table, privileges in tables.items()
        for privilege in privileges
    }
    assert set(granted) == wanted
    columns = supabase.server.execute(
        "select grantee, table_schema || '.' || table_name, column_name "
        "from information_schema.column_privileges c "
        f"where table_schema in {SCHEMAS} and grantee in {(*ROLES, 'PUBLIC')!r} "
        "and not exists (select from information_schema.table_privileges t where "
        "(t.grantee, t.table_schema, t.table_name, t.privilege_type) "
        "= (c.grantee, c.table_schema, c.table_name, c.privilege_type))",
        supabase.database,
    )
    assert set(columns) == ASKING


def test_every_other_table_is_closed(supabase: Supabase) -> None:
    tables = supabase.tables()
    assert len([t for t in tables if t.startswith("public.")]) > 10
    assert len([t for t in tables if t.startswith("connectors.")]) >= 6
    for role in ROLES:
        for table in tables:
            if table in OPEN_TO[role]:
                assert len(supabase.ask(role, f"select * from {table}", ANA)) > 0, (role, table)
                continue
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                supabase.ask(role, f"select * from {table}", ANA)


def test_the_policies_are_these(supabase: Supabase) -> None:
    found = supabase.server.execute(
        "select schemaname || '.' || tablename, policyname, cmd from pg_policies "
        f"where schemaname in {SCHEMAS} order by 1, 2",
        supabase.database,
    )
    assert found == [
        ("connectors.definitions", "definitions_all_read", "SELECT"),
        ("connectors.instances", "instances_owner_reads", "SELECT"),
        ("connectors.jobs", "jobs_owner_asks", "INSERT"),
        ("connectors.jobs", "jobs_owner_reads", "SELECT"),
        ("public.files", "files_members_read", "SELECT"),
        ("public.files", "files_owner_reads", "SELECT"),
    ]


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_users_call_no_function_but_one(supabase: Supabase, role: str) -> None:
    functions = supabase.functions()
    assert len(functions) > 45
    for name, call in functions:
        if role == "authenticated" and name == ENQUEUE:
            continue
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="permission denied"):
            supabase.ask(role, call, ANA)


def test_the_application_calls_these_functions_of_the_control_plane(supabase: Supabase) -> None:
    found = supabase.server.execute(
        "select pronamespace::regnamespace || '.' || proname from pg_proc "
        "where pronamespace = 'connectors'::regnamespace "
        "and has_function_privilege('service_role', oid, 'execute')",
        supabase.database,
    )
    assert {name for (name,) in found} == CALLED_BY_THE_APPLICATION


def test_a_user_sees_own_instances_and_jobs_only(supabase: Supabase) -> None:
    for user in (ANA, BEN):
        for table in ("instances", "jobs"):
            rows = supabase.ask("authenticated", f"select user_id from connectors.{table}", user)
            assert rows == [(user,)]
    for nobody in (None, "", "nobody"):
        assert supabase.ask("authenticated", "select * from connectors.instances", nobody) == []
        assert supabase.ask("authenticated", "select * from connectors.jobs", nobody) == []


def test_a_user_asks_for_own_instances_only(supabase: Supabase) -> None:
    """Of an endpoint that runs and of an instance not loaded yet; unknown ids look like others'."""
    for instance in (f"of-{ANA}", f"in_table_{ANA[0]}"):
        ask = f"select {ENQUEUE}('{instance}', 'sweep') > 0"
        assert supabase.ask("authenticated", ask, ANA) == [(True,)]
        assert supabase.ask("service_role", ask) == [(True,)]
        for user in (BEN, "nobody", None):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                supabase.ask("authenticated", ask, user)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            supabase.ask("anon", ask)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        supabase.ask("authenticated", f"select {ENQUEUE}('unknown')", ANA)


def test_a_user_asks_twice_and_gets_the_same_job(supabase: Supabase) -> None:
    rows = supabase.ask(
        "authenticated", f"select {ENQUEUE}('of-{ANA}') from (values (1), (2)) n", ANA
    )
    assert rows[0] == rows[1]
    assert rows[0] in supabase.ask("authenticated", "select id from connectors.jobs", ANA)


@pytest.mark.parametrize(
    "sql",
    [
        "insert into connectors.instances (name) values ('x')",
        "update connectors.instances set credentials = 'vault:of_ben'",
        "delete from connectors.instances",
        "update connectors.jobs set status = 'completed', finished_at = now()",
        "delete from connectors.jobs",
        f"insert into connectors.jobs (instance_id, user_id) values ('of-{BEN}', '{ANA}')",
        f"insert into connectors.jobs (instance_id, status) values ('of-{ANA}', 'completed')",
        f"insert into connectors.jobs (instance_id) values ('of-{BEN}')",
        "insert into connectors.definitions values ('x', 'x', '{}', '{}', 1)",
    ],
)
@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_users_change_nothing_of_the_control_plane(supabase: Supabase, role: str, sql: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        supabase.ask(role, sql, ANA)


def test_an_owner_who_asks_is_stamped_by_the_database(supabase: Supabase) -> None:
    sql = f"insert into connectors.jobs (instance_id, kind) values ('of-{ANA}', 'sweep')"
    assert supabase.ask("authenticated", f"{sql} returning user_id", ANA) == [(ANA,)]


def test_the_application_writes_with_the_service_role(supabase: Supabase) -> None:
    assert supabase.ask("service_role", "select count(*) from files") == [(4,)]
    assert supabase.ask("service_role", "update files set title = title") == [(4,)]
    assert supabase.ask("service_role", "delete from endpoints") == [(2,)]


@pytest.mark.parametrize("table", ["files", "connectors.instances", "connectors.jobs"])
def test_the_policy_is_evaluated_once_per_statement(supabase: Supabase, table: str) -> None:
    plan = supabase.ask("authenticated", f"explain select * from {table}", ANA)
    assert "InitPlan" in str(plan)
