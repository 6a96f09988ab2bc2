"""A real transaction pooler in front of the test Postgres: PgBouncer, where it is installed.

Supabase's poolers behave like it: every transaction may get another session, prepared statements
and session settings are not kept, and unknown start-up options are refused.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
from sqlalchemy import make_url

from file_connector_tests.postgres import PostgresServer, free_port, unprivileged

START_SECONDS = 30.0
SESSIONS = 4
"""Fewer than a store may open, so that sessions do change hands."""


def find_pgbouncer() -> str | None:
    """The path of the program, or None. Debian puts it where a user's PATH does not lead."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


class Pooler:
    """A pooler that can be stopped and started again on its port."""

    def __init__(self, program: str, home: Path, server: PostgresServer) -> None:
        self._server = make_url(server.url("postgres"))
        self._account = unprivileged(home)
        self._command = [
            *(["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []),
            program,
            str(home / "pgbouncer.ini"),
        ]
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def url(self, database: str) -> str:
        url = self._server.set(host="127.0.0.1", port=self.port, database=database)
        return url.render_as_string(hide_password=False)

    def start(self) -> None:
        """Start, on the port it had before; returns when it answers."""
        for _ in range(5):
            self.port = self.port or free_port()
            self._configure()
            with (self._home / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    self._command,
                    cwd=self._home,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    **self._account,
                )
            deadline = time.monotonic() + START_SECONDS
            while self._process.poll() is None and time.monotonic() < deadline:
                with suppress(psycopg2.OperationalError):
                    psycopg2.connect(self.url("postgres"), connect_timeout=5).close()
                    return
                time.sleep(0.02)
            self.stop()
            self.port = 0
        raise RuntimeError(f"PgBouncer did not start:\n{(self._home / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _configure(self) -> None:
        users = self._home / "users.txt"
        users.write_text(f'"{self._server.username}" "{self._server.password}"\n')
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": users,
            "pool_mode": "transaction",
            "default_pool_size": SESSIONS,
            "max_client_conn": 200,
        }
        (self._home / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={self._server.host} port={self._server.port}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in settings.items())
        )
        for path in self._home.iterdir():
            path.chmod(0o644)


@contextmanager
def running_pooler(program: str, server: PostgresServer) -> Iterator[Pooler]:
    with tempfile.TemporaryDirectory(prefix="fc-pooler-") as name:
        pooler = Pooler(program, Path(name), server)
        try:
            pooler.start()
            yield pooler
        finally:
            pooler.stop()
