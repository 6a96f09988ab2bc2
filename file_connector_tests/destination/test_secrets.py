"""``credentials: vault:NAME``: from Supabase's Vault where there is one, else from our sealed
table; and nowhere in what anybody can read."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet
from sqlalchemy import make_url

from file_connector import errors
from file_connector.cli import main as cli
from file_connector.connectors.base import Credentials, Toolbox
from file_connector.deployment import Deployment
from file_connector.destination.open import open_store
from file_connector.destination.postgres import PostgresStore
from file_connector.destination.rest import RestStore
from file_connector.destination.secrets import SealedTable, Vault, secret_store
from file_connector.endpoints.loader import load_instances
from file_connector.errors import ConfigurationError, redact
from file_connector_tests.destination.rest import KEY as REST_KEY
from file_connector_tests.endpoints.fakes import SPEC, Only, an_entry, load
from file_connector_tests.postgres import PostgresServer

KEY = Fernet.generate_key().decode()
CANARY = "canary-5fd2c1b7-of-acme"
ACME = json.dumps({"token": CANARY})

VAULT = """
create schema vault;
create table vault.secrets (id uuid primary key default gen_random_uuid(), name text unique,
    description text not null default '', secret text not null);
create view vault.decrypted_secrets as
    select id, name, description, secret, convert_from(decode(secret, 'base64'), 'UTF8') as
        decrypted_secret from vault.secrets;
"""
"""What of Supabase's Vault its documentation promises; the encryption is make-believe."""


class Bank:
    """A database with secrets, and a deployment on it."""

    def __init__(self, server: PostgresServer, url: str, folder: Path) -> None:
        self.server = server
        self.url = url
        self.folder = folder
        self.environ = {"SUPABASE_DB_URL": url, "FILE_CONNECTOR_ENCRYPTION_KEY": KEY}
        self.opened_with: list[Credentials] = []

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        return self.server.execute(sql, make_url(self.url).database)

    def store(self) -> PostgresStore:
        return PostgresStore(self.url)

    def put_into_vault(self, name: str, secret: str) -> None:
        self.ask(
            "insert into vault.secrets (name, secret) "
            f"values ('{name}', encode(convert_to('{secret}', 'UTF8'), 'base64'))"
        )

    def deployment(self, **environ: str) -> Deployment:
        def note(details: Any, credentials: Credentials, toolbox: Toolbox) -> Any:
            self.opened_with.append(credentials)
            return "a connector"

        registry = Only(replace(SPEC, open=note))
        return Deployment.from_environ({**self.environ, **environ}, self.folder, registry)

    def open(self, name: str, **environ: str) -> Credentials:
        """What a connector of an endpoint with ``credentials: vault:<name>`` is opened with."""
        deployment = self.deployment(**environ)
        row = an_entry(credentials=f"vault:{name}")
        [endpoint] = load_instances([row], deployment.registry, deployment.environ).endpoints
        with deployment.open_store() as store:
            deployment.open_connector(endpoint, store)
        return self.opened_with.pop()

    def cli(self, *arguments: str, stdin: str = "", **environ: str) -> Result:
        return CliRunner().invoke(
            cli, ["secret", *arguments], input=stdin, obj=self.deployment(**environ)
        )


@pytest.fixture
def bank(postgres_server: PostgresServer, postgres_url: str, tmp_path: Path) -> Iterator[Bank]:
    factory = logging.getLogRecordFactory()
    yield Bank(postgres_server, postgres_url, tmp_path)
    logging.setLogRecordFactory(factory)


@pytest.fixture
def vaulted(postgres_server: PostgresServer, own_postgres_url: str, tmp_path: Path) -> Bank:
    bank = Bank(postgres_server, own_postgres_url, tmp_path)
    bank.ask(VAULT)
    return bank


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has been told of no secret yet, so that only silence keeps one."""
    monkeypatch.setattr(errors, "_remembered", frozenset())


def refused(work: Callable[[], object]) -> str:
    """The message of the ConfigurationError; its traceback, too, knows no secret."""
    with pytest.raises(ConfigurationError) as caught:
        work()
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert KEY not in str(caught.value)
    return str(caught.value)


# -- on plain Postgres -----------------------------------------------------------------------------


def test_a_secret_from_stdin_opens_a_connector(bank: Bank) -> None:
    done = bank.cli("acme", stdin=ACME)
    assert (done.exit_code, done.stdout) == (0, "acme: saved.\n")
    credentials = bank.open("acme")
    assert credentials == Credentials("vault:acme", "the secret 'acme'", {"token": CANARY})
    assert redact(f"say {CANARY}") == "say [redacted]"
    assert CANARY not in repr(credentials)
    assert bank.cli("acme", stdin='{"token": "another"}').exit_code == 0
    assert bank.open("acme").data == {"token": "another"}, "the next opening sees a new secret"


def test_it_rests_encrypted(bank: Bank) -> None:
    bank.cli("acme", stdin=ACME)
    [(name, sealed)] = bank.ask("select name, sealed from connectors.secrets")
    assert name == "acme"
    assert CANARY not in sealed
    assert json.loads(Fernet(KEY).decrypt(sealed.encode())) == {"name": "acme", "secret": ACME}


def test_a_row_moved_to_another_name_is_worth_nothing(bank: Bank) -> None:
    """Who can write the table, but has no key, cannot give one tenant another's credentials."""
    bank.cli("acme", stdin=ACME)
    bank.ask("update connectors.secrets set name = 'evil'")
    assert "encrypted with another key, or as another secret" in refused(lambda: bank.open("evil"))


def test_names_are_listed_and_removed(bank: Bank) -> None:
    assert json.loads(bank.cli("--json").stdout) == []
    for name in ("zeta", "acme"):
        bank.cli(name, stdin=ACME)
    assert [row["name"] for row in json.loads(bank.cli("--json").stdout)] == ["acme", "zeta"]
    assert "NAME" in bank.cli().stdout
    assert json.loads(bank.cli("zeta", "--remove", "--json").stdout)["message"] == "removed"
    gone = bank.cli("zeta", "--remove")
    assert (gone.exit_code, gone.stderr) == (1, "Error: there is no secret 'zeta'.\n")


@pytest.mark.parametrize(
    ("stdin", "told"),
    [("", "not valid JSON"), (CANARY, "not valid JSON"), (f'["{CANARY}"]', "JSON list")],
)
def test_what_is_no_credential_is_not_saved_and_not_shown(
    bank: Bank, stdin: str, told: str
) -> None:
    done = bank.cli("acme", stdin=stdin)
    assert done.exit_code == 1
    assert told in done.stderr
    assert CANARY not in done.output
    assert bank.ask("select * from connectors.secrets") == []


@pytest.mark.parametrize("name", ["", "-acme", "a b", "a/b", "vault:acme", "a" * 128])
def test_a_name_that_is_none_is_refused(bank: Bank, name: str) -> None:
    assert bank.cli("--", name, stdin=ACME).exit_code == 2


def test_keys_are_asked_for_by_name(bank: Bank) -> None:
    bank.cli("acme", stdin=ACME)
    told = refused(lambda: bank.open("acme", FILE_CONNECTOR_ENCRYPTION_KEY=""))
    assert "FILE_CONNECTOR_ENCRYPTION_KEY, which is not set" in told
    other = Fernet.generate_key().decode()
    told = refused(lambda: bank.open("acme", FILE_CONNECTOR_ENCRYPTION_KEY=other))
    assert "encrypted with another key" in told
    assert "file-connector secret acme" in told
    told = refused(lambda: bank.open("acme", FILE_CONNECTOR_ENCRYPTION_KEY="short"))
    assert "ENCRYPTION_KEY is not a Fernet key" in told
    done = bank.cli("acme", stdin=ACME, FILE_CONNECTOR_ENCRYPTION_KEY="")
    assert done.exit_code == 1
    assert CANARY not in done.output


def test_s48_a_secret_that_is_missing_or_sick_is_told_without_it(bank: Bank) -> None:
    assert "endpoint 'tower_42': " in refused(lambda: bank.open("acme"))
    assert "'acme', which is not there" in refused(lambda: bank.open("acme"))
    key_like = "AIzaSyCanary4711"
    assert key_like not in refused(lambda: bank.open(key_like))
    with closing(bank.store()) as store:
        SealedTable(store, KEY).put("acme", CANARY)
    assert "the secret 'acme' is not valid JSON" in refused(lambda: bank.open("acme"))


# -- with Supabase's Vault -------------------------------------------------------------------------


def test_vault_is_asked_where_there_is_one(vaulted: Bank) -> None:
    vaulted.put_into_vault("acme", ACME)
    with closing(vaulted.store()) as store:
        SealedTable(store, KEY).put("of_the_table", ACME)
    assert vaulted.open("acme").data == {"token": CANARY}
    assert vaulted.open("acme", FILE_CONNECTOR_ENCRYPTION_KEY="").data == {"token": CANARY}
    assert "which is not there" in refused(lambda: vaulted.open("of_the_table"))


def test_vault_keeps_its_secrets_itself(vaulted: Bank) -> None:
    """Through a statement of ours they would come into the server's log."""
    for arguments in (["acme"], ["acme", "--remove"], []):
        done = vaulted.cli(*arguments, stdin=ACME)
        assert done.exit_code == 1
        assert "vault.create_secret" in done.stderr
        assert CANARY not in done.output
    assert vaulted.ask("select * from vault.secrets") == []
    assert vaulted.ask("select * from connectors.secrets") == []


def test_a_login_without_rights_on_vault_is_told(vaulted: Bank) -> None:
    vaulted.put_into_vault("acme", ACME)
    vaulted.ask(
        "drop role if exists fc_reader; create role fc_reader login password 'pw'; "
        "grant usage on schema connectors to fc_reader; "
        "grant select on all tables in schema public, connectors to fc_reader; "
        "alter role fc_reader bypassrls"
    )
    login = make_url(vaulted.url).set(username="fc_reader", password="pw")
    try:
        vaulted.environ["SUPABASE_DB_URL"] = login.render_as_string(hide_password=False)
        assert "may select from vault.decrypted_secrets" in refused(lambda: vaulted.open("acme"))
    finally:
        vaulted.ask("drop owned by fc_reader; drop role fc_reader")


# -- where there are none --------------------------------------------------------------------------


def test_secrets_need_a_direct_connection(tmp_path: Path) -> None:
    for store in (
        open_store(None, tmp_path),
        RestStore("https://abcdef.supabase.co/rest/v1", REST_KEY),
    ):
        with closing(store):
            assert "Set SUPABASE_DB_URL" in refused(lambda s=store: secret_store(s, KEY))  # type: ignore[misc]


def test_validating_asks_nobody(tmp_path: Path) -> None:
    text = (
        "endpoints:\n  - {name: Plans, endpoint_type: fake, project_id: p, user_id: u, "
        "endpoint_details: {folder_id: x}, credentials: vault:acme-2.prod}\n"
    )
    catalog = load(tmp_path, text, environ={})
    assert catalog.problems == ()
    assert catalog.endpoints[0].credentials == "vault:acme-2.prod"


@pytest.mark.parametrize("name", ["vault:", "vault: acme", "vault:a/b", "Vault:acme", "vault:a:b"])
def test_names_are_checked_like_others(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str, name: str
) -> None:
    """In the file, in rows, and by the table itself."""
    row = an_entry(credentials=name)
    catalog = load_instances([row], Only(SPEC), {})
    assert "must be the name of a credential set" in catalog.problems[0].message
    with pytest.raises(psycopg2.errors.CheckViolation):
        postgres_server.execute(
            "insert into connectors.instances (name, endpoint_type, project_id, user_id, "
            f"credentials) values ('x', 'fake', 'p', 'u', '{name}')",
            make_url(postgres_url).database,
        )


def test_which_store_it_is(bank: Bank) -> None:
    with closing(bank.store()) as store:
        assert isinstance(secret_store(store, KEY), SealedTable)
        bank.ask("create schema vault")
        try:
            assert isinstance(secret_store(store, KEY), SealedTable)
            bank.ask("create view vault.decrypted_secrets as select 1 as id")
            assert isinstance(secret_store(store, KEY), Vault)
        finally:
            bank.ask("drop schema vault cascade")
