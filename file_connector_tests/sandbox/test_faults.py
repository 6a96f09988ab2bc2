"""Each fault does to the real clients what is known to happen to them out there."""

from __future__ import annotations

import http.client
import threading
import time
from typing import Any

import httplib2
import pytest
import requests
from googleapiclient.errors import HttpError

from file_connector.sandbox import ACCOUNT, Sandbox, faults
from file_connector_tests.sandbox.conftest import Aps, ConnectDrive, Drive


@pytest.fixture
def root(sandbox: Sandbox) -> str:
    root = sandbox.drive.add_folder("Watched", shared_with=[ACCOUNT])
    sandbox.drive.add_files(30, root)
    return root


LIST = "drive.files.list"


def status_of(drive: Drive, **more: Any) -> int:
    try:
        drive.page(**more)
    except HttpError as error:
        return int(error.status_code)
    return 200


# -- which request -------------------------------------------------------------------------------
def test_nth_and_times(sandbox: Sandbox, drive: Drive) -> None:
    rule = sandbox.faults.add(faults.status(503), kind=LIST, nth=2, times=2)
    assert [status_of(drive) for _ in range(5)] == [200, 503, 503, 200, 200]
    assert (rule.seen, rule.hits) == (5, 2)
    sandbox.faults.add(faults.status(500), times=None)
    assert [status_of(drive) for _ in range(3)] == [500, 500, 500]
    sandbox.faults.clear()
    assert status_of(drive) == 200
    log = sandbox.log.calls(LIST)
    assert [call.fault for call in log][:3] == ["", "status 503", "status 503"]


def test_matching_by_path_account_and_condition(
    sandbox: Sandbox, drive: Drive, connect: ConnectDrive, root: str
) -> None:
    other = connect("second@sandbox-project.iam.gserviceaccount.com")
    sandbox.faults.add(faults.status(500), path=rf"q='{root}' in parents", times=None)
    sandbox.faults.add(faults.status(501), account=other_account(sandbox, other), times=None)
    sandbox.faults.add(faults.status(502), when=lambda r: r.get("pageSize") == "7", times=None)
    assert status_of(drive) == 200
    assert status_of(drive, q=f"'{root}' in parents") == 500
    assert status_of(other) == 501
    assert status_of(drive, pageSize=7) == 502


def other_account(sandbox: Sandbox, client: Drive) -> str:
    return str(client.credentials.service_account_email)


def test_token_requests_are_left_alone_unless_named(sandbox: Sandbox, drive: Drive) -> None:
    sandbox.faults.add(faults.status(500), times=None)
    assert status_of(drive) == 500
    assert sandbox.log.calls("drive.token")[0].status == 200


# -- Drive: section by section what the client experiences ---------------------------------------
@pytest.mark.parametrize(
    ("fault", "tries", "ends_well"),
    [
        (faults.drive_throttle(403, "userRateLimitExceeded", 7), 2, True),
        (faults.drive_throttle(403, "rateLimitExceeded"), 2, True),
        (faults.drive_throttle(429, "rateLimitExceeded", "garbage"), 2, True),
        (faults.status(503), 2, True),
        (faults.html(502), 2, True),
        (faults.google_error(403, "dailyLimitExceeded", domain="usageLimits"), 1, False),
        (faults.google_error(403, "insufficientFilePermissions"), 1, False),
        (faults.google_error(404, "notFound"), 1, False),
        (faults.google_error(410, "deleted"), 1, False),
    ],
)
def test_s21_what_num_retries_covers(
    sandbox: Sandbox, drive: Drive, fault: faults.Fault, tries: int, ends_well: bool
) -> None:
    sandbox.faults.add(fault, kind=LIST)
    request = drive.service.files().list()
    request._sleep = lambda seconds: None
    if ends_well:
        assert request.execute(num_retries=1)["files"] == []
    else:
        with pytest.raises(HttpError):
            request.execute(num_retries=1)
    assert sandbox.log.count(LIST) == tries


@pytest.mark.parametrize("value", [7, 0, -1, 86400, "garbage", "Fri, 20 Nov 2026 13:20:00 GMT"])
def test_s21_any_retry_after(sandbox: Sandbox, drive: Drive, value: str | int) -> None:
    sandbox.faults.add(faults.drive_throttle(429, "rateLimitExceeded", value), kind=LIST)
    with pytest.raises(HttpError) as error:
        drive.page()
    assert error.value.resp["retry-after"] == str(value)
    assert error.value.error_details[0]["domain"] == "usageLimits"


def test_s22_truncated_json_does_not_raise(sandbox: Sandbox, drive: Drive, root: str) -> None:
    sandbox.faults.add(faults.truncate(0.7), kind=LIST)
    answer = drive.service.files().list(fields="*").execute()
    assert isinstance(answer, str)


def test_s22_an_error_body_with_status_200_is_a_dict_without_files(
    sandbox: Sandbox, drive: Drive
) -> None:
    sandbox.faults.add(faults.error_in_200(), kind=LIST)
    answer = drive.service.files().list().execute()
    assert isinstance(answer, dict)
    assert "files" not in answer


def test_s22_an_early_close_is_an_incomplete_read(
    sandbox: Sandbox, drive: Drive, root: str
) -> None:
    sandbox.faults.add(faults.close_early(0.5), kind=LIST)
    with pytest.raises(http.client.IncompleteRead):
        drive.service.files().list(fields="*").execute(num_retries=3)
    assert sandbox.log.count(LIST) == 1


def test_s22_a_reset_in_the_body_costs_two_tries(sandbox: Sandbox, drive: Drive, root: str) -> None:
    drive.page()
    sandbox.faults.add(faults.reset(0.5), kind=LIST)
    request = drive.service.files().list(fields="*")
    request._sleep = lambda seconds: None
    with pytest.raises(OSError, match=r"(?i)broken pipe|reset|not connected|bad file"):
        request.execute(num_retries=1)
    drive.http.close()
    sandbox.faults.add(faults.reset(0.5), kind=LIST)
    again = drive.service.files().list(fields="*")
    again._sleep = lambda seconds: None
    assert again.execute(num_retries=2)["files"]


def test_s22_a_reset_before_any_answer(sandbox: Sandbox, drive: Drive) -> None:
    sandbox.faults.add(faults.reset(0), kind=LIST, times=None)
    with pytest.raises(OSError, match=r"(?i)reset|remote end closed|closed"):
        drive.page()
    assert {call.status for call in sandbox.log.calls(LIST)} == {0}


def test_a_hang_ends_with_the_clients_timeout(sandbox: Sandbox, connect: ConnectDrive) -> None:
    client = connect(timeout=0.3)
    sandbox.faults.add(faults.hang(), kind=LIST)
    with pytest.raises(TimeoutError):
        client.page()
    client.http.close()
    assert status_of(client) == 200


def test_closing_ends_hanging_requests() -> None:
    with Sandbox() as sandbox:
        sandbox.faults.add(faults.hang(), times=None)
        caught: list[BaseException] = []

        def ask() -> None:
            bare = httplib2.Http(timeout=30)
            try:
                bare.request(f"{sandbox.drive_api_endpoint}files")
            except Exception as error:  # noqa: BLE001 - whatever the client makes of it
                caught.append(error)
            finally:
                bare.close()

        thread = threading.Thread(target=ask)
        thread.start()
        while not sandbox.log.count(LIST):
            time.sleep(0.01)
    thread.join(30)
    assert not thread.is_alive()
    assert caught


def test_a_delay(sandbox: Sandbox, drive: Drive) -> None:
    drive.page()
    sandbox.faults.add(faults.delay(0.2), kind=LIST)
    began = time.monotonic()
    assert drive.page()["files"] == []
    assert time.monotonic() - began >= 0.2


def test_s14_a_flaky_listing_drops_rows(sandbox: Sandbox, drive: Drive, root: str) -> None:
    q = f"'{root}' in parents"
    sandbox.faults.add(faults.drop(every=3), kind=LIST, nth=2)
    assert [len(drive.page(q)["files"]) for _ in range(3)] == [30, 20, 30]
    gone = drive.page(q)["files"][0]["id"]
    sandbox.faults.add(faults.drop({gone}), kind=LIST)
    assert gone not in {file["id"] for file in drive.page(q)["files"]}
    sandbox.faults.add(faults.drop(keep=4), kind=LIST)
    assert len(drive.page(q)["files"]) == 4
    sandbox.faults.add(faults.repeat(2), kind=LIST)
    assert len(drive.page(q)["files"]) == 32


def test_s15_multi_parent_queries_wrongly_empty(sandbox: Sandbox, drive: Drive, root: str) -> None:
    sub = sandbox.drive.add_folder("sub", root)
    everywhere = sandbox.faults.add(faults.empty_multi_parent(), times=None)
    both = f"('{root}' in parents or '{sub}' in parents)"
    assert drive.page(both, fields="files(id)")["files"] == []
    assert len(drive.page(f"'{root}' in parents")["files"]) == 31
    assert everywhere.hits == 1
    sandbox.faults.remove(everywhere)
    inside = sandbox.drive.add_file("inside", sub)
    sandbox.faults.add(faults.empty_multi_parent([root]))
    assert [file["id"] for file in drive.page(both)["files"]] == [inside]


def test_s13_incomplete_search(sandbox: Sandbox, drive: Drive, root: str) -> None:
    sandbox.faults.add(faults.incomplete_search(), kind=LIST, nth=2)
    assert [drive.page()["incompleteSearch"] for _ in range(3)] == [False, True, False]


def test_s23_empty_world_and_empty_page(sandbox: Sandbox, drive: Drive, root: str) -> None:
    q = f"'{root}' in parents"
    sandbox.faults.add(faults.empty_world(), kind=LIST)
    page = drive.page(q, pageSize=10)
    assert (page["files"], "nextPageToken" in page) == ([], False)
    sandbox.faults.add(faults.empty_page(), kind=LIST)
    page = drive.page(q, pageSize=10)
    assert (page["files"], "nextPageToken" in page) == ([], True)


def test_s19_a_list_page_token_rejected(sandbox: Sandbox, drive: Drive, root: str) -> None:
    rule = sandbox.faults.add(faults.reject_page_token(), kind=LIST, nth=2)
    with pytest.raises(HttpError) as error:
        drive.walk(f"'{root}' in parents", pageSize=5)
    assert error.value.error_details[0]["location"] == "pageToken"
    assert sandbox.log.count(LIST) == 3
    assert rule.hits == 1


@pytest.mark.parametrize("code", [400, 404, 410])
def test_s18_a_change_token_rejected(sandbox: Sandbox, drive: Drive, code: int) -> None:
    sandbox.faults.add(faults.reject_change_token(code), kind="drive.changes.*", times=None)
    start = drive.start()
    with pytest.raises(HttpError) as error:
        drive.changes(start)
    assert error.value.status_code == code


def test_s24_stale_changes(sandbox: Sandbox, drive: Drive, root: str) -> None:
    start = drive.start()
    file = sandbox.drive.add_file("f", root)
    sandbox.faults.add(faults.stale_changes(), kind="drive.changes.list")
    assert drive.changes(start) == ([], start)
    assert [change["fileId"] for change in drive.changes(start)[0]] == [file]


def test_s16_edits_between_pages(sandbox: Sandbox, drive: Drive, root: str) -> None:
    q = f"'{root}' in parents"
    made: list[str] = []
    sandbox.faults.add(
        faults.before(lambda: made.append(sandbox.drive.add_file("late", root))), kind=LIST, nth=2
    )
    assert "late" not in drive.names(q, pageSize=10)  # page one was taken before
    assert len(made) == 1
    sandbox.faults.add(faults.after(lambda: sandbox.drive.delete(made[0])), kind=LIST)
    assert "late" in drive.names(q)
    assert "late" not in drive.names(q)


def test_s17_a_kill_at_request_k(sandbox: Sandbox, drive: Drive) -> None:
    struck: list[int] = []
    sandbox.faults.add(faults.before(lambda: struck.append(sandbox.log.count())), nth=3)
    for _ in range(4):
        drive.page()
    assert struck == [2]


# -- APS -----------------------------------------------------------------------------------------
@pytest.fixture
def contents(sandbox: Sandbox) -> str:
    project = sandbox.aps.add_project()
    top = sandbox.aps.project_files(project)
    sandbox.aps.add_items(3, top)
    return f"/data/v1/projects/{project}/folders/{top}/contents"


def test_aps_throttling_with_and_without_retry_after(
    sandbox: Sandbox, aps: Aps, contents: str
) -> None:
    sandbox.faults.add(faults.aps_throttle(25), kind="aps.contents")
    sandbox.faults.add(faults.aps_throttle(None), kind="aps.contents", nth=2)
    first, second = aps.get(contents), aps.get(contents)
    assert (first.status_code, first.headers["Retry-After"]) == (429, "25")
    assert first.json() == {"developerMessage": "Quota limit exceeded."}
    assert (second.status_code, "Retry-After" in second.headers) == (429, False)


def test_s22_sick_aps_answers(sandbox: Sandbox, aps: Aps, contents: str) -> None:
    sandbox.faults.add(faults.html(502), kind="aps.*")
    assert aps.get(contents).text.startswith("<html>")
    sandbox.faults.add(faults.truncate(), kind="aps.*")
    with pytest.raises(requests.JSONDecodeError):
        aps.get(contents).json()
    sandbox.faults.add(faults.error_in_200({"developerMessage": "no"}), kind="aps.*")
    assert "data" not in aps.get(contents).json()
    sandbox.faults.add(faults.close_early(), kind="aps.*")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        aps.get(contents)
    sandbox.faults.add(faults.reset(), kind="aps.*")
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="reset"):
        aps.get(contents)
    sandbox.faults.add(faults.reset(0), kind="aps.*")
    with pytest.raises(requests.ConnectionError):
        aps.get(contents)
    sandbox.faults.add(faults.expired_token("aps"), kind="aps.*")
    assert aps.get(contents).json()["errorCode"] == "AUTH-006"
    sandbox.faults.add(faults.aps_error(404, "NOT_FOUND", "no such"), kind="aps.*")
    assert aps.get(contents).json()["errors"][0]["detail"] == "no such"
    assert len(aps.json(contents)["data"]) == 3


def test_s30_included_missing(sandbox: Sandbox, aps: Aps, contents: str) -> None:
    sandbox.faults.add(faults.without_included(), kind="aps.contents")
    assert "included" not in aps.json(contents)
    sandbox.faults.add(faults.drop(every=2), kind="aps.contents")
    page = aps.json(contents)
    assert (len(page["data"]), len(page["included"])) == (2, 2)
    sandbox.faults.add(faults.empty_world(), kind="aps.contents")
    assert aps.json(contents)["data"] == []


def test_answers_can_be_compressed() -> None:
    with Sandbox(gzip=True) as sandbox, requests.Session() as session:
        aps = Aps(sandbox, session).login(sandbox.aps_credentials())
        project = sandbox.aps.add_project()
        top = sandbox.aps.project_files(project)
        sandbox.aps.add_items(30, top)
        answer = aps.get(f"/data/v1/projects/{project}/folders/{top}/contents")
        assert answer.headers["Content-Encoding"] == "gzip"
        assert len(answer.json()["data"]) == 30
