"""The HTTP server in front of both worlds, and ``Sandbox``, the one object tests hold."""

# ruff: noqa: A002, ARG001 -- handlers share one signature, whatever they need of it

from __future__ import annotations

import gzip
import socket
import struct
import threading
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from file_connector.sandbox.aps_api import ApsApi
from file_connector.sandbox.aps_world import CLIENT_ID, USER, ApsWorld
from file_connector.sandbox.drive_api import METADATA_SCOPES, DriveApi
from file_connector.sandbox.drive_world import DriveWorld
from file_connector.sandbox.faults import Fault, Faults, Struck
from file_connector.sandbox.tokens import private_key_pem
from file_connector.sandbox.wire import Request, RequestLog, Response
from file_connector.sandbox.world import Clock

ACCOUNT = "connector@sandbox-project.iam.gserviceaccount.com"
"""The service account ``google_credentials`` speaks for unless told otherwise."""
SERVICE_ACCOUNT = "SSA1SANDBOX00"
"""The secure service account of ``aps_credentials("ssa")``."""


class Sandbox:
    """Both providers on one free loopback port.

    Attributes:
        drive, aps: the worlds; change them as you like while the server runs.
        clock: their common time.
        gzip: compress answers for clients that accept it.
        faults, log: what goes wrong, and what was asked.
        drive_api, aps_api: the APIs themselves: token lifetimes, rate limits, dead keys.
    """

    def __init__(
        self,
        *,
        now: datetime | None = None,
        live: bool = False,
        step: timedelta = timedelta(seconds=1),
        port: int = 0,
        clock: Clock | None = None,
        gzip: bool = False,
    ) -> None:
        self.gzip = gzip
        self.clock = clock or Clock(now, step=step, live=live)
        self.drive = DriveWorld(self.clock)
        self.aps = ApsWorld(self.clock)
        self.drive_api = DriveApi(self.drive)
        self.aps_api = ApsApi(self.aps)
        self.faults = Faults()
        self.log = RequestLog()
        self.before_request: Any = None
        """Called with no arguments before each request (the living world moves on here)."""
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._secrets: list[str] = []

    # -- life ------------------------------------------------------------------------------------
    def start(self) -> Sandbox:
        """Begin to serve, in a daemon thread."""
        if self._server is None:
            self._closing.clear()
            self._server = _Server(("127.0.0.1", self._port), self)
            self.aps_api.origin = self.url
            self._thread = threading.Thread(
                target=self._serve, args=(self._server,), name="sandbox", daemon=True
            )
            self._thread.start()
        return self

    def close(self) -> None:
        """Stop serving; open connections are closed, hanging requests end."""
        server, self._server = self._server, None
        if server is None:
            return
        self._closing.set()
        socket.create_connection(("127.0.0.1", server.server_address[1])).close()
        if self._thread:
            self._thread.join(5)
        server.server_close()
        server.hang_up()

    def _serve(self, server: _Server) -> None:
        """Wait for connections without polling; ``close`` wakes us with one."""
        while not self._closing.is_set():
            server.handle_request()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- addresses and credentials ---------------------------------------------------------------
    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None:
            raise RuntimeError("the sandbox is not running: use it as a context manager")
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def drive_api_endpoint(self) -> str:
        """Value for GOOGLE_DRIVE_API_ENDPOINT."""
        return f"{self.url}/drive/v3/"

    @property
    def aps_base_url(self) -> str:
        """Value for APS_BASE_URL."""
        return self.url

    @property
    def token_uri(self) -> str:
        """Where Google tokens come from."""
        return f"{self.url}/token"

    @property
    def environ(self) -> dict[str, str]:
        """The two addresses as environment variables."""
        return {
            "GOOGLE_DRIVE_API_ENDPOINT": self.drive_api_endpoint,
            "APS_BASE_URL": self.aps_base_url,
        }

    def google_credentials(
        self, account: str = ACCOUNT, subject: str | None = None
    ) -> dict[str, Any]:
        """A service-account key file as a dict, with a real RSA key and our token_uri.

        ``subject`` adds the key "subject": the user to impersonate.
        """
        self.drive.add_user(account)
        if subject:
            self.drive.add_user(subject)
        self.drive_api.accounts.add(account)
        name = account.partition("@")[0]
        info: dict[str, Any] = {
            "type": "service_account",
            "project_id": "sandbox-project",
            "private_key_id": f"key-of-{name}",
            "private_key": private_key_pem(),
            "client_email": account,
            "client_id": "100000000000000000001",
            "auth_uri": f"{self.url}/o/oauth2/auth",
            "token_uri": self.token_uri,
            "universe_domain": "googleapis.com",
        }
        return info | ({"subject": subject} if subject else {})

    def authorized_user_credentials(
        self,
        account: str = "user@example.com",
        scopes: Iterable[str] = METADATA_SCOPES,
        *,
        client_id: str = "sandbox-oauth-client.apps.googleusercontent.com",
        client_secret: str = "sandbox-oauth-secret",
    ) -> dict[str, Any]:
        """An ``authorized_user`` file as a dict, with a fresh refresh token."""
        self.drive.add_user(account)
        token = f"1//sandbox-{self.drive.new_id(40)}"
        self.drive_api.refresh_tokens[token] = (
            account,
            frozenset(scopes),
            client_id,
            client_secret,
        )
        self._secrets += [token, client_secret]
        return {
            "type": "authorized_user",
            "client_id": client_id,
            "client_secret": client_secret,
            "refresh_token": token,
            "token_uri": self.token_uri,
            "universe_domain": "googleapis.com",
        }

    def revoke_google(self, account: str) -> None:
        """End a grant: refresh tokens and access tokens of the account die, its key too."""
        for token, (owner, *_) in list(self.drive_api.refresh_tokens.items()):
            if owner == account:
                del self.drive_api.refresh_tokens[token]
        self.drive_api.dead_keys.add(account)
        self.drive_api.tokens.expire(account)

    def reinstate_google(self, account: str) -> None:
        """The account's key is good again; new tokens may be fetched."""
        self.drive_api.dead_keys.discard(account)

    def aps_credentials(
        self,
        kind: str = "two_legged",
        *,
        client_id: str = CLIENT_ID,
        user: str | None = None,
        x_user_id: str | None = None,
    ) -> dict[str, Any]:
        """A credential set: ``two_legged``, ``three_legged`` (with a fresh refresh token of
        ``user``) or ``ssa`` (a secure service account)."""
        client = self.aps.clients[client_id]
        info: dict[str, Any] = {"client_id": client.id, "client_secret": client.secret}
        if kind == "two_legged":
            return info | ({"x_user_id": x_user_id} if x_user_id else {})
        if kind == "three_legged":
            user = user or USER
            self.aps.users.setdefault(user, user.title())
            token = self.aps_api.issue_refresh_token(user, client.id)
            self._secrets.append(token)
            return info | {"refresh_token": token}
        if kind == "ssa":
            user = user or SERVICE_ACCOUNT
            self.aps.users.setdefault(user, "File Connector robot")
            key_id = f"key-of-{user}"
            self.aps_api.service_accounts[user] = (client.id, key_id)
            return info | {
                "service_account_id": user,
                "key_id": key_id,
                "private_key": private_key_pem(),
            }
        raise ValueError(f"kind must be two_legged, three_legged or ssa, not {kind!r}")

    @property
    def secrets(self) -> list[str]:
        """Every secret given out so far: keys, client secrets, refresh and access tokens."""
        key_lines = [line for line in private_key_pem().splitlines() if "-----" not in line]
        return [
            *self._secrets,
            *(client.secret for client in self.aps.clients.values()),
            *self.drive_api.refresh_tokens,
            *self.aps_api.refresh_tokens,
            *self.aps_api.used_refresh_tokens,
            *self.drive_api.tokens.known(),
            *self.aps_api.tokens.known(),
            *key_lines,
        ]

    # -- answering -------------------------------------------------------------------------------
    def answer(self, request: Request) -> tuple[Response, Struck]:
        """The response to one request, faults included."""
        if self.before_request:
            self.before_request()
        route = self.drive_api.route(request)
        if route is not None:
            request.provider = "drive"
            if request.kind != "drive.token":
                self.drive_api.identify(request)
        else:
            route = self.aps_api.route(request) or _nothing_here
            request.provider = "aps"
            if request.kind != "aps.token":
                self.aps_api.identify(request)
        struck = Struck(self.faults.strike(request))
        return struck.answer(request, route), struck

    def wait(self, seconds: float) -> None:
        """Sleep, but wake up when the sandbox closes."""
        self._closing.wait(None if seconds == float("inf") else seconds)

    @property
    def closing(self) -> bool:
        """Whether ``close`` was called."""
        return self._closing.is_set()


def _nothing_here(request: Request) -> Response:
    return Response(404, text="Not Found", content_type="text/html; charset=UTF-8")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Close every open connection, so that handler threads end."""
        with self._lock:
            open_now = list(self._open)
        for connection in open_now:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the game."""
        import sys

        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sandbox"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        return None

    def _serve(self) -> None:
        sandbox = self.server.sandbox
        n, at = sandbox.log.arrive(), time.monotonic()
        request = self._read()
        response, struck = sandbox.answer(request)
        cut = struck.cut
        silent = struck.wait_seconds == float("inf") or (
            cut is not None and cut.cut == "reset" and cut.keep == 0
        )
        sandbox.log.record(n, request, 0 if silent else response.status, struck.names, at)
        if struck.wait_seconds:
            self.wfile.flush()
            sandbox.wait(struck.wait_seconds)
            if sandbox.closing:
                self.close_connection = True
                return
        self._send(request, response, cut)

    def _read(self) -> Request:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        method = self.command
        override = headers.get("x-http-method-override", "").upper()
        if method == "POST" and override == "GET":
            method = "GET"
            query = "&".join(part for part in (query, body.decode("ascii", "replace")) if part)
        return Request(method, path, query, headers, body)

    def _send(self, request: Request, response: Response, cut: Fault | None) -> None:
        body = response.encoded()
        packed = (
            self.server.sandbox.gzip
            and len(body) > 200
            and "gzip" in request.headers.get("accept-encoding", "")
        )
        if packed:
            body = gzip.compress(body, compresslevel=1)
        kept = body if cut is None else body[: int(len(body) * cut.keep)]
        promised = len(kept) if cut is not None and cut.cut == "truncate" else len(body)
        if cut is not None and cut.cut == "reset" and cut.keep == 0:
            self._reset()
            return
        self.send_response(response.status)
        if body or response.status not in (204, 304):
            self.send_header("Content-Type", response.content_type)
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(promised))
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if request.method != "HEAD":
            self.wfile.write(kept)
        self.wfile.flush()
        if cut is not None and cut.cut == "reset":
            self._reset()
        elif cut is not None and cut.cut == "close":
            self.close_connection = True

    def _reset(self) -> None:
        """Close with RST instead of FIN."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
