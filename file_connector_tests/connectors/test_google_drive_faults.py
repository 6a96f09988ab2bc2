"""Google Drive when things go wrong: throttling, sick answers, refusals, dead credentials. The real
client library talks to a server that misbehaves."""

from __future__ import annotations

import json
import logging
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from file_connector.connectors.base import Credentials, Toolbox
from file_connector.connectors.google_drive.answers import PageRefusedError, error_of
from file_connector.connectors.google_drive.auth import Account
from file_connector.connectors.google_drive.client import DriveClient, Wires
from file_connector.errors import (
    BugError,
    ConfigurationError,
    CursorRejectedError,
    FileConnectorError,
    ForbiddenError,
    NotFoundError,
    ReconnectError,
    ThrottledError,
    TransientError,
)
from file_connector.sandbox import ACCOUNT, faults
from file_connector_tests.connectors.gdrive import NOW, Desk, a_desk, drip
from file_connector_tests.connectors.memory import Sync

BACKOFF_BELOW = 33.0


@pytest.fixture
def desk() -> Iterator[Desk]:
    with a_desk() as desk:
        yield desk


@pytest.fixture
def synced(desk: Desk) -> Sync:
    desk.drive.add_file("a.pdf", desk.drive.add_folder("A", desk.root))
    desk.drive.add_file("b.pdf", desk.root)
    sync = desk.sync()
    sync.tick()
    desk.assert_true(sync)
    return sync


# -- what an answer means --------------------------------------------------------------------------
def body(code: int, reason: str, **more: Any) -> bytes:
    error = {"code": code, "message": "…", "errors": [{"reason": reason, **more}]}
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (403, body(403, "userRateLimitExceeded"), ThrottledError),
        (403, body(403, "rateLimitExceeded"), ThrottledError),
        (403, body(403, "dailyLimitExceeded"), ThrottledError),
        (403, b'{"error": {"code": 403, "status": "RESOURCE_EXHAUSTED"}}', ThrottledError),
        (429, body(429, "rateLimitExceeded"), ThrottledError),
        (429, b"slow down", ThrottledError),
        (403, body(403, "insufficientFilePermissions"), ForbiddenError),
        (403, body(403, "appNotAuthorizedToFile"), ForbiddenError),
        (403, body(403, "teamDriveMembershipRequired"), ForbiddenError),
        (403, body(403, "somethingNew"), ForbiddenError),
        (403, body(403, "domainPolicy"), ConfigurationError),
        (403, body(403, "accessNotConfigured"), ConfigurationError),
        (403, body(403, "insufficientPermissions"), ReconnectError),
        (403, body(403, "pageTokenExpired"), PageRefusedError),
        (403, body(403, "supportsTeamDrivesRequired"), BugError),
        (403, b"<html>blocked</html>", TransientError),
        (401, body(401, "authError"), ReconnectError),
        (401, b"", ReconnectError),
        (400, body(400, "invalid", location="pageToken"), PageRefusedError),
        (400, body(400, "invalid", location="q"), BugError),
        (410, body(410, "deleted"), PageRefusedError),
        (404, body(404, "notFound"), NotFoundError),
        (404, b"<html>no such page</html>", TransientError),
        (302, b"", TransientError),
        (500, body(500, "backendError"), TransientError),
        (502, b"<html>Bad Gateway</html>", TransientError),
        (503, b"", TransientError),
        (408, b"", TransientError),
        (403, b"[]", TransientError),
        (403, b'{"error": "odd"}', TransientError),
        (403, b'{"error": {"errors": "odd", "details": 7}}', ForbiddenError),
        (404, b"\xff\xfe", TransientError),
    ],
)
def test_error_matrix(status: int, content: bytes, kind: type[FileConnectorError]) -> None:
    error = error_of(status, {}, content, account="somebody", now=NOW)
    assert isinstance(error, kind)
    assert isinstance(error, ThrottledError) == (kind is ThrottledError)
    assert str(status) in str(error)


def test_api_not_enabled_is_told_by_its_details() -> None:
    detail = {"reason": "SERVICE_DISABLED"}
    content = json.dumps({"error": {"code": 403, "details": [detail]}}).encode()
    error = error_of(403, {}, content, account="somebody", now=NOW)
    assert isinstance(error, ConfigurationError)
    assert "Enable the Google Drive API" in error.remedy


# -- throttling ------------------------------------------------------------------------------------
IN_HALF_A_MINUTE = "an HTTP date"
"""By the clock of the server's ``Date`` header, which is the machine's."""


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        (None, (0.0, BACKOFF_BELOW)),
        ("7", (7.0, 7.5)),
        ("0", (0.0, BACKOFF_BELOW)),
        ("-5", (0.0, BACKOFF_BELOW)),
        (IN_HALF_A_MINUTE, (20.0, 31.0)),
        ("soon", (0.0, BACKOFF_BELOW)),
    ],
)
@pytest.mark.parametrize(
    ("code", "reason"),
    [(403, "userRateLimitExceeded"), (403, "rateLimitExceeded"), (429, "rateLimitExceeded")],
)
def test_s21_throttled_waits_what_was_asked_and_goes_on(
    desk: Desk, code: int, reason: str, asked: str | None, waited: tuple[float, float]
) -> None:
    if asked == IN_HALF_A_MINUTE:
        asked = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    desk.drive.page_cap = 10
    desk.drive.add_files(25, desk.root)
    desk.sandbox.faults.add(
        faults.drive_throttle(code, reason, asked), kind="drive.files.list", nth=2
    )
    sync = desk.sync()
    sync.tick()
    desk.assert_true(sync)
    assert len(desk.naps.seconds) == 1
    assert waited[0] <= desk.naps.seconds[0] <= waited[1]
    lists = desk.sandbox.log.calls("drive.files.list")
    assert len(lists) == 4
    assert lists[1].get("pageToken") == lists[2].get("pageToken"), "the same page again"


def test_s21_a_wait_beyond_the_budget_ends_the_run_with_a_valid_cursor(
    desk: Desk, synced: Sync
) -> None:
    cursor = synced.cursor
    desk.drive.add_file("c.pdf", desk.root)
    desk.sandbox.faults.add(
        faults.drive_throttle(429, "rateLimitExceeded", 86400), path="/drive/v3/", times=None
    )
    with pytest.raises(ThrottledError):
        synced.tick()
    assert desk.naps.seconds == []
    assert synced.cursor == cursor
    desk.sandbox.faults.clear()
    synced.tick()
    desk.assert_true(synced)


def test_s21_endless_throttling_stays_within_the_budget(desk: Desk) -> None:
    desk.sandbox.faults.add(faults.drive_throttle(), path="/drive/v3/", times=None)
    with pytest.raises(ThrottledError, match="userRateLimitExceeded"):
        desk.sync().tick()
    assert sum(desk.naps.seconds) <= 200.0


def test_s21_a_daily_limit_is_not_waited_for(desk: Desk) -> None:
    desk.sandbox.faults.add(
        faults.google_error(403, "dailyLimitExceeded", domain="usageLimits"), path="/drive/v3/"
    )
    with pytest.raises(ThrottledError, match="daily limit"):
        desk.sync().tick()
    assert desk.naps.seconds == []


# -- sick answers ----------------------------------------------------------------------------------
SICK: Mapping[str, Callable[[], faults.Fault]] = {
    "503": lambda: faults.status(503),
    "500 envelope": lambda: faults.google_error(500, "backendError"),
    "html 502": lambda: faults.html(502),
    "html 200": lambda: faults.html(200),
    "html 404": lambda: faults.html(404),
    "empty 200": lambda: faults.status(200, ""),
    "no object": lambda: faults.status(200, [1]),
    "error in 200": faults.error_in_200,
    "error beside lists": lambda: faults.error_in_200(
        {"error": {"code": 500}, "files": [], "changes": [], "newStartPageToken": "1"}
    ),
    "no list": lambda: faults.status(200, {"kind": "drive#fileList"}),
    "null list": lambda: faults.status(200, {"files": None, "changes": None}),
    "odd rows": lambda: faults.status(
        200, {"files": [7], "changes": [7], "newStartPageToken": "1"}
    ),
    "no ids": lambda: faults.status(
        200, {"files": [{}], "changes": [{}], "newStartPageToken": "1"}
    ),
    "latin-1": lambda: faults.status(200, b'{"files": ["\xe9"]}'),
    "truncated": faults.truncate,
    "truncated at once": lambda: faults.truncate(0.01),
    "reset": faults.reset,
    "reset before": lambda: faults.reset(0),
    "closed early": faults.close_early,
    "closed at once": lambda: faults.close_early(0),
}


@pytest.mark.parametrize("name", SICK)
@pytest.mark.parametrize(
    "kind",
    [
        "drive.files.get",
        "drive.files.list",
        "drive.changes.getStartPageToken",
        "drive.changes.list",
    ],
)
def test_s22_sick_answers_are_repeated(desk: Desk, name: str, kind: str) -> None:
    """Twice in a row each. Nothing sick is ever read as an empty folder or an empty feed."""
    desk.drive.add_file("a.pdf", desk.drive.add_folder("A", desk.root))
    rule = desk.sandbox.faults.add(SICK[name](), kind=kind, times=2)
    sync = desk.sync()
    sync.tick()
    assert rule.hits == 2
    desk.assert_true(sync)
    desk.drive.add_file("b.pdf", desk.root)
    sync.tick()
    desk.assert_true(sync)


@pytest.mark.parametrize("name", SICK)
def test_s22_sick_for_ever_is_a_typed_failure(desk: Desk, synced: Sync, name: str) -> None:
    desk.drive.add_file("c.pdf", desk.root)
    desk.sandbox.faults.add(SICK[name](), kind="drive.changes.list", times=None)
    cursor = synced.cursor
    with pytest.raises(TransientError):
        synced.tick()
    with pytest.raises(TransientError):
        desk.probe(synced)
    assert synced.cursor == cursor
    assert sum(desk.naps.seconds) <= 210.0


def test_s22_many_resets_in_one_run(desk: Desk) -> None:
    desk.drive.page_cap = 5
    desk.drive.add_files(60, desk.root)
    for nth in (2, 5, 9):
        desk.sandbox.faults.add(faults.reset(), kind="drive.files.list", nth=nth)
    sync = desk.sync()
    sync.tick()
    desk.assert_true(sync)
    assert len(desk.naps.seconds) == 3, "a broken connection costs one attempt, not two"


def test_s22_a_hanging_server(desk: Desk) -> None:
    desk.drive.add_file("a.pdf", desk.root)
    desk.sandbox.faults.add(faults.hang(), kind="drive.files.list")
    sync = Sync(desk.connector(toolbox=desk.toolbox(timeout=1)))
    sync.tick()
    desk.assert_true(sync)


class Known(Account):
    """Its token is known, and handed out after so many seconds."""

    seconds = 0.0

    def token(self, http: Any) -> str:
        time.sleep(self.seconds)
        return "a-token"


def dripped_on(desk: Desk, *, timeout: float, budget: float, seconds: float = 0.0) -> float:
    """How long a question to a server that drips takes, in seconds."""
    credentials = Credentials("test", "a test", desk.sandbox.google_credentials(ACCOUNT))
    account = Known(credentials, time.monotonic)
    account.seconds = seconds
    with drip() as endpoint:
        environ = {"GOOGLE_DRIVE_API_ENDPOINT": endpoint}
        toolbox = desk.toolbox(timeout=timeout, budget=budget, environ=environ)
        with closing(Wires(account, toolbox)) as wires:
            began = time.monotonic()
            with pytest.raises(TransientError, match="no answer from Drive"):
                DriveClient(wires, toolbox).user_email()
            return time.monotonic() - began


@pytest.mark.parametrize("seconds", [0.0, 0.4], ids=["while it drips", "before it is asked"])
def test_s22_a_dripping_server_is_cut_off(desk: Desk, seconds: float) -> None:
    """Each read is in time, the whole answer never; also if the time is over too early to cut."""
    assert dripped_on(desk, seconds=seconds, timeout=0.2, budget=0) < 5


def test_s21_what_a_dripping_server_takes_counts_as_waiting(desk: Desk) -> None:
    assert dripped_on(desk, timeout=1, budget=1) < 3.5, "1 s, not four times that"


def test_s22_gzip() -> None:
    with a_desk(gzip=True) as desk:
        desk.drive.add_files(50, desk.root)
        sync = desk.sync()
        sync.tick()
        desk.assert_true(sync)


def test_a_dead_host_is_one_clear_sentence(desk: Desk) -> None:
    environ = {"GOOGLE_DRIVE_API_ENDPOINT": "http://127.0.0.1:9/drive/v3/"}
    connector = desk.connector(toolbox=desk.toolbox(budget=0, environ=environ))
    with pytest.raises(TransientError, match="no answer from Drive: ConnectionRefusedError"):
        connector.check()


def test_a_bare_host_gets_drives_path(desk: Desk) -> None:
    environ = {"GOOGLE_DRIVE_API_ENDPOINT": desk.sandbox.url}
    assert desk.connector(toolbox=desk.toolbox(environ=environ)).check()


def test_a_wrong_path_is_not_read_as_a_missing_file(desk: Desk) -> None:
    environ = {"GOOGLE_DRIVE_API_ENDPOINT": f"{desk.sandbox.url}/elsewhere/"}
    connector = desk.connector(toolbox=desk.toolbox(budget=0, environ=environ))
    with pytest.raises(TransientError, match="GOOGLE_DRIVE_API_ENDPOINT"):
        connector.check()


# -- credentials -----------------------------------------------------------------------------------
def failing_check(desk: Desk, **credentials: Any) -> FileConnectorError:
    with pytest.raises(FileConnectorError) as caught:
        desk.connector(credentials=credentials or None).check()
    for secret in desk.sandbox.secrets:
        assert secret not in str(caught.value)
    return caught.value


def test_check_names_what_it_sees(desk: Desk) -> None:
    told = desk.connector().check()
    assert told[0] == f"service account {ACCOUNT} sees folder 'Watched' ({desk.root})"
    drive = desk.drive.add_drive("Archive", members=[ACCOUNT])
    folder = desk.drive.add_folder("Plans", drive)
    assert f"in shared drive {drive}" in desk.connector({"folder_id": folder}).check()[0]
    assert f"shared drive 'Archive' ({drive})" in desk.connector({"drive_id": drive}).check()[0]
    user = desk.sandbox.authorized_user_credentials("ana@example.com")
    desk.drive.share(desk.root, "ana@example.com")
    assert "Google user ana@example.com sees" in desk.connector(credentials=user).check()[0]


def test_check_counts_its_calls(desk: Desk) -> None:
    connector = desk.connector()
    connector.check()
    assert connector.api_calls == desk.calls()


def test_folder_not_shared_names_whom_to_share_with(desk: Desk) -> None:
    private = desk.drive.add_folder("Private")
    with pytest.raises(ConfigurationError) as caught:
        desk.connector({"folder_id": private}).check()
    assert caught.value.remedy == f"Share it with {ACCOUNT}, or correct folder_id."


def test_a_drive_without_membership(desk: Desk) -> None:
    drive = desk.drive.add_drive("Theirs")
    with pytest.raises(ConfigurationError, match=r"Make .* a member"):
        desk.connector({"drive_id": drive}).check()


def test_a_file_is_no_folder(desk: Desk) -> None:
    file = desk.drive.add_file("a.pdf", desk.root)
    with pytest.raises(ConfigurationError, match="application/pdf, not a folder"):
        desk.connector({"folder_id": file}).check()


def test_s44_revoked_user_grant(desk: Desk) -> None:
    user = desk.sandbox.authorized_user_credentials("ana@example.com")
    desk.sandbox.revoke_google("ana@example.com")
    error = failing_check(desk, **user)
    assert isinstance(error, ReconnectError)
    assert "Token has been expired or revoked" in error.message
    assert "connect the account again" in error.remedy


def test_s44_revoked_between_two_runs(desk: Desk, synced: Sync) -> None:
    desk.sandbox.revoke_google(ACCOUNT)
    live = set(synced.memory.live)
    with pytest.raises(ReconnectError):
        synced.tick()
    with pytest.raises(ReconnectError):
        desk.probe(synced)
    assert synced.memory.live == live
    desk.sandbox.reinstate_google(ACCOUNT)
    synced.tick()


def test_s44_deleted_key(desk: Desk) -> None:
    credentials = desk.sandbox.google_credentials(ACCOUNT)
    desk.sandbox.drive_api.dead_keys.add(ACCOUNT)
    error = failing_check(desk, **credentials)
    assert isinstance(error, ReconnectError)
    assert "create a new key" in error.remedy


def test_subject_not_delegated(desk: Desk) -> None:
    credentials = desk.sandbox.google_credentials(ACCOUNT, subject="ana@example.com")
    desk.sandbox.drive_api.undelegated.add(ACCOUNT)
    error = failing_check(desk, **credentials)
    assert isinstance(error, ConfigurationError)
    assert "domain-wide delegation" in error.remedy
    assert credentials["client_id"] in error.remedy


def test_subject_does_not_exist(desk: Desk) -> None:
    credentials = {**desk.sandbox.google_credentials(ACCOUNT), "subject": "nobody@example.com"}
    error = failing_check(desk, **credentials)
    assert isinstance(error, ConfigurationError)
    assert "nobody@example.com" in error.remedy


def test_scope_refused_by_the_administrators(desk: Desk) -> None:
    desk.sandbox.drive_api.denied_scopes.add(
        "https://www.googleapis.com/auth/drive.metadata.readonly"
    )
    assert isinstance(failing_check(desk), ConfigurationError)


def test_token_without_the_scope(desk: Desk) -> None:
    user = desk.sandbox.authorized_user_credentials(
        "ana@example.com", scopes=["https://www.googleapis.com/auth/drive.file"]
    )
    error = failing_check(desk, **user)
    assert isinstance(error, ReconnectError)
    assert "drive.metadata.readonly" in error.remedy


def test_wrong_client_secret(desk: Desk) -> None:
    user = desk.sandbox.authorized_user_credentials("ana@example.com")
    error = failing_check(desk, **{**user, "client_secret": "another-one"})
    assert isinstance(error, ConfigurationError)
    assert "client_secret" in error.remedy


@pytest.mark.parametrize(
    ("told", "kind", "remedy"),
    [
        (
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in time",
            ConfigurationError,
            "clock",
        ),
        ("Invalid JWT Signature.", ReconnectError, "create a new key"),
        ("Invalid grant: account not found", ReconnectError, "does not exist any more"),
        ("Invalid JWT: something new", ReconnectError, "disabled or deleted"),
        ("Invalid email or User ID", ReconnectError, "disabled or deleted"),  # and no `subject`
    ],
)
def test_each_refusal_of_a_service_account_has_its_own_remedy(
    desk: Desk, told: str, kind: type[FileConnectorError], remedy: str
) -> None:
    desk.sandbox.faults.add(
        faults.status(400, {"error": "invalid_grant", "error_description": told}),
        kind="drive.token",
    )
    error = failing_check(desk)
    assert isinstance(error, kind)
    assert remedy in error.remedy
    assert ".." not in str(error)


def test_api_not_enabled(desk: Desk) -> None:
    desk.sandbox.faults.add(faults.google_error(403, "accessNotConfigured"), path="/drive/v3/")
    error = failing_check(desk)
    assert isinstance(error, ConfigurationError)
    assert "Enable the Google Drive API" in error.remedy


@pytest.mark.parametrize(
    ("credentials", "seen"),
    [
        ({}, "type 'None'"),
        ({"type": "external_account"}, "'external_account'"),
        ({"installed": {"client_id": "x"}}, "authorized_user"),
        ({"type": "service_account", "client_email": "a@b"}, "lacks private_key"),
        ({"type": "authorized_user", "client_id": "a"}, "lacks client_secret, refresh_token"),
        (
            {
                "type": "authorized_user",
                "client_id": "a",
                "client_secret": "secret-1",
                "refresh_token": "secret-2",
                "token_uri": "oauth2.googleapis.com/token",
            },
            "the token_uri in",
        ),
    ],
)
def test_credentials_of_another_shape(
    desk: Desk, credentials: Mapping[str, Any], seen: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        desk.connector(credentials=credentials)
    assert seen in str(caught.value)


def test_unreadable_private_key(desk: Desk) -> None:
    credentials = {**desk.sandbox.google_credentials(), "private_key": "hunter2-not-a-key"}
    with pytest.raises(ConfigurationError, match="private_key") as caught:
        desk.connector(credentials=credentials).check()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(503),
        faults.status(500, {"error": "internal_failure"}),
        faults.status(400, {"error": "temporarily_unavailable"}),
        faults.html(502),
        faults.html(200),
        faults.status(200, {"token_type": "Bearer"}),
        faults.status(200, "[]"),
        faults.reset(),
        faults.close_early(),
        faults.truncate(),
    ],
    ids=lambda fault: fault.name,
)
def test_s22_a_sick_token_endpoint(desk: Desk, fault: faults.Fault) -> None:
    desk.drive.add_file("a.pdf", desk.root)
    desk.sandbox.faults.add(fault, kind="drive.token", times=2)
    sync = desk.sync()
    began = time.monotonic()
    sync.tick()
    desk.assert_true(sync)
    assert len(desk.naps.seconds) == 2, "we wait, google-auth does not"
    assert time.monotonic() - began < 10


def test_s21_a_throttled_token_endpoint_is_given_the_time_it_asks_for(desk: Desk) -> None:
    desk.sandbox.faults.add(
        faults.status(429, {"error": "rate_limit"}, {"Retry-After": "9"}), kind="drive.token"
    )
    desk.sync().tick()
    assert len(desk.naps.seconds) == 1
    assert 9 <= desk.naps.seconds[0] < 10


def test_an_expired_token_is_renewed_in_the_middle(desk: Desk, synced: Sync) -> None:
    desk.sandbox.drive_api.tokens.expire()
    desk.drive.add_file("c.pdf", desk.root)
    synced.tick()
    desk.assert_true(synced)
    assert desk.naps.seconds == []


@pytest.mark.parametrize("challenge", ["Bearer", "Negotiate", "", "Basic realm=x, Bearer", "=,="])
def test_a_refused_token_is_told_by_the_status_alone(
    desk: Desk, synced: Sync, challenge: str
) -> None:
    refused = faults.status(401, {"error": {"code": 401}}, {"WWW-Authenticate": challenge})
    desk.sandbox.faults.add(refused, kind="drive.changes.list")
    desk.drive.add_file("c.pdf", desk.root)
    synced.tick()
    desk.assert_true(synced)
    assert desk.naps.seconds == []
    desk.sandbox.faults.add(refused, kind="drive.changes.list", times=None)
    with pytest.raises(ReconnectError):
        synced.tick()


class Tunnel(BaseHTTPRequestHandler):
    """A forward proxy: CONNECT, then bytes in both directions."""

    def do_CONNECT(self) -> None:
        host, port = self.path.rsplit(":", 1)
        self.server.reached.append(self.path)  # type: ignore[attr-defined]
        with socket.create_connection((host, int(port)), timeout=10) as far:
            self.send_response_only(200)
            self.end_headers()
            ends = {self.connection: far, far: self.connection}
            while True:
                for end in select.select(list(ends), [], [], 10)[0]:
                    if not (data := end.recv(65536)):
                        return
                    ends[end].sendall(data)


def test_the_way_out_may_lead_through_a_proxy(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Tunnel) as proxy:
        proxy.reached = []  # type: ignore[attr-defined]
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        for variable in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        for variable in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.server_port}")
        sync = desk.sync()
        sync.tick()
        sync.connector.close()
        proxy.shutdown()
    assert proxy.reached  # type: ignore[attr-defined]
    desk.assert_true(sync)


def test_an_api_endpoint_may_be_spelled_in_capitals(desk: Desk) -> None:
    host = desk.sandbox.environ["GOOGLE_DRIVE_API_ENDPOINT"].replace("http:", "HTTP:")
    toolbox = desk.toolbox(environ={"GOOGLE_DRIVE_API_ENDPOINT": host})
    desk.connector(toolbox=toolbox).check()


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "ftp://drive/", "localhost/drive/v3/"])
def test_an_api_endpoint_that_is_no_web_address_is_a_mistake(desk: Desk, host: str) -> None:
    toolbox = Toolbox(environ={"GOOGLE_DRIVE_API_ENDPOINT": host})
    with pytest.raises(ConfigurationError, match="is not a web address"):
        Wires(desk.connector()._account, toolbox)


@pytest.mark.parametrize("field", ["id", "mimeType"])
def test_one_item_that_stays_odd_does_not_stop_the_others(desk: Desk, field: str) -> None:
    folder = desk.drive.add_folder("Odd", desk.root)
    odd = desk.drive.add_file("odd.pdf", folder)
    desk.drive.add_file("good.pdf", folder)

    def drop(answer: Any) -> Any:
        for item in answer.get("files", []):
            if item.get("id") == odd:
                del item[field]
        return answer

    rule = desk.sandbox.faults.add(faults.mangle(drop), kind="drive.files.list", times=None)
    sync = desk.sync()
    told = sync.tick()
    assert [b.name for b in told.blind] == ["Odd"]
    assert "good.pdf" in sync.memory.titles
    assert "odd.pdf" not in sync.memory.titles
    desk.sandbox.faults.remove(rule)
    sync.tick()
    desk.assert_true(sync)


@pytest.mark.parametrize("field", ["fileId", "mimeType"])
def test_s22_a_change_that_stays_odd_is_left_behind_by_listing_everything(
    desk: Desk, synced: Sync, field: str
) -> None:
    odd = desk.drive.add_file("odd.pdf", desk.root)
    desk.drive.add_file("good.pdf", desk.root)

    def drop(answer: Any) -> Any:
        for item in [answer, *answer.get("changes", [])]:
            if item.get("fileId") == odd or item.get("id") == odd:
                item.pop(field, None)
                item.get("file", {}).pop(field, None)
        return answer

    for kind in ("drive.changes.list", "drive.files.get"):
        desk.sandbox.faults.add(faults.mangle(drop), kind=kind, times=None)
    told = synced.tick()
    assert any("re-baselined" in note for note in told.notes)
    desk.assert_true(synced)
    desk.drive.add_file("next.pdf", desk.root)
    told = synced.tick()
    assert list(told.notes) == []
    desk.assert_true(synced)


def test_a_short_lived_token_is_used_more_than_once(desk: Desk) -> None:
    desk.sandbox.drive_api.tokens.lifetime_seconds = 120
    sync = desk.sync()
    sync.tick()
    sync.sweep()
    assert desk.sandbox.log.count("drive.token") == 1


def test_many_threads_fetch_one_token(desk: Desk) -> None:
    connector = desk.connector()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: connector._client.file(desk.root)["id"], range(32)))
    assert set(answers) == {desk.root}
    assert desk.sandbox.log.count("drive.token") == 1


def test_connectors_of_one_credential_set_share_a_token(desk: Desk) -> None:
    """A tick opens a connector of its own: its one question is then its one request."""
    for _ in range(3):
        desk.connector().check()
    assert desk.sandbox.log.count("drive.token") == 1
    other = desk.sandbox.google_credentials(ACCOUNT, subject="boss@example.com")
    with pytest.raises(FileConnectorError):
        desk.connector(credentials=other).check()
    assert desk.sandbox.log.count("drive.token") == 2


def test_tokens_go_nowhere_else(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """google-auth's before_request would look up a regional boundary at iamcredentials."""
    from google.auth.credentials import CredentialsWithRegionalAccessBoundary

    looked: list[str] = []
    monkeypatch.setattr(
        CredentialsWithRegionalAccessBoundary,
        "_maybe_start_regional_access_boundary_refresh",
        lambda *args: looked.append("up"),
    )
    desk.connector().check()
    assert not looked


# -- safety ----------------------------------------------------------------------------------------
def test_s48_no_secret_in_messages_logs_or_tracebacks(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when the provider repeats our token and key back at us."""
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    desk.drive.add_file("a.pdf", desk.root)

    def echo(code: int, json_body: bool) -> faults.Fault:
        def replace(request: Any) -> Any:
            text = f"refused: {request.headers.get('authorization')} {request.bearer}"
            value: Any = {"error": {"code": code, "message": text, "errors": []}}
            return faults.status(code, value if json_body else text).replace(request)  # type: ignore[misc]

        return faults.Fault("echo", replace=replace)

    user = desk.sandbox.authorized_user_credentials("ana@example.com")
    for credentials in (desk.sandbox.google_credentials(), user):
        for code in (400, 401, 403, 404, 410, 429, 500):
            for json_body in (True, False):
                desk.sandbox.faults.clear()
                desk.sandbox.faults.add(echo(code, json_body), path="/drive/v3/", times=None)
                connector = desk.connector(credentials=credentials, toolbox=desk.toolbox(budget=0))
                for act in (
                    connector.check,
                    lambda c=connector: list(c.sweep(Sync(c).memory, None, 1)),
                ):
                    with pytest.raises(FileConnectorError) as caught:
                        act()
                    seen.append("".join(traceback.format_exception(caught.value)))
                    seen.append(f"{caught.value.message} {caught.value.remedy}")
                seen.append(repr(connector.__dict__["_account"]))
    everything = "\n".join([*seen, caplog.text])
    for secret in desk.sandbox.secrets:
        assert secret not in everything


def test_s52_many_endpoints_at_once_never_mix(desk: Desk) -> None:
    roots = []
    for n in range(12):
        root = desk.drive.add_folder(f"R{n}", shared_with=[ACCOUNT])
        desk.drive.add_files(40 + n, desk.drive.add_folder("below", root), name=f"{n}-{{n}}.pdf")
        roots.append(root)

    def run(root: str) -> Sync:
        sync = desk.sync(folder_id=root)
        for _ in range(3):
            sync.sweep()
        return sync

    with ThreadPoolExecutor(12) as pool:
        for root, sync in zip(roots, pool.map(run, roots), strict=True):
            desk.assert_true(sync, root)


def test_a_connector_can_be_closed_in_the_middle_and_twice(desk: Desk) -> None:
    desk.drive.add_files(2500, desk.root)
    connector = desk.connector()
    batches = connector.sweep(Sync(connector).memory, None, 1)
    next(batches)
    next(batches)
    connector.close()
    assert isinstance(batches, Generator)
    batches.close()
    connector.close()


def test_listings_share_the_accounts_budget(desk: Desk) -> None:
    asked: list[tuple[str, int]] = []

    class Counting:
        def acquire(self, key: str, per_minute: int) -> None:
            asked.append((key, per_minute))

    sync = Sync(desk.connector(toolbox=desk.toolbox(limiter=Counting())))
    sync.tick()
    assert len(asked) == desk.calls("drive.files.list") + desk.calls("drive.changes.list")
    assert {key for key, _ in asked} == {f"google_drive:{ACCOUNT}"}


def test_a_refused_change_token_without_a_location(desk: Desk, synced: Sync) -> None:
    for code, reason in ((400, "invalid"), (404, "notFound"), (403, "forbidden")):
        desk.sandbox.faults.add(faults.google_error(code, reason), kind="drive.changes.list")
        with pytest.raises(CursorRejectedError):
            list(synced.connector.changes(synced.cursor, synced.memory))


def test_a_cursor_of_another_kind(desk: Desk, synced: Sync) -> None:
    for odd in ({"v": 99}, "text", {"v": 1, "token": "x"}, {}):
        assert synced.connector.probe(odd, synced.memory).changed
        with pytest.raises(CursorRejectedError):
            list(synced.connector.changes(odd, synced.memory))
