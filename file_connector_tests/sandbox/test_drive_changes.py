"""The change logs: one live entry per item, current state, one log per user and per drive."""

from __future__ import annotations

from typing import Any

import pytest
from googleapiclient.errors import HttpError

from file_connector.sandbox import ACCOUNT, OWNER, Sandbox
from file_connector_tests.sandbox.conftest import ConnectDrive, Drive


@pytest.fixture
def root(sandbox: Sandbox) -> str:
    return sandbox.drive.add_folder("Watched", shared_with=[ACCOUNT])


def ids(changes: list[dict[str, Any]]) -> list[str]:
    return [change["fileId"] for change in changes]


def test_one_live_entry_per_item_oldest_first(sandbox: Sandbox, drive: Drive, root: str) -> None:
    world, start = sandbox.drive, drive.start()
    a, b = world.add_file("a", root), world.add_file("b", root)
    world.rename(a, "a2")
    world.edit(a)
    changes, token = drive.changes(start)
    assert ids(changes) == [b, a]
    assert changes[1]["file"]["name"] == "a2"
    assert changes[1]["changeType"] == "file"
    assert changes[1]["removed"] is False
    assert changes[1]["file"]["version"] == "3"
    assert drive.changes(token) == ([], token)
    assert ids(drive.changes(start)[0]) == [b, a]  # an old token stays good


def test_pages_end_with_the_new_start_token_only_on_the_last(
    sandbox: Sandbox, drive: Drive, root: str
) -> None:
    start = drive.start()
    made = sandbox.drive.add_files(250, root)
    pages, token, found = 0, start, []
    while True:
        page = drive.service.changes().list(pageToken=token).execute()
        pages += 1
        found += ids(page["changes"])
        assert ("nextPageToken" in page) != ("newStartPageToken" in page)
        token = page.get("nextPageToken")
        if not token:
            break
    assert (pages, found) == (3, made)


def test_without_fields_a_change_says_little_about_its_file(
    sandbox: Sandbox, drive: Drive, root: str
) -> None:
    start = drive.start()
    sandbox.drive.add_file("a", root)
    (change,) = drive.service.changes().list(pageToken=start).execute()["changes"]
    assert set(change["file"]) == {"kind", "id", "name", "mimeType"}
    mask = "newStartPageToken,changes(removed,fileId,time,file(id,parents))"
    page = drive.service.changes().list(pageToken=start, fields=mask).execute()
    assert set(page["changes"][0]) == {"removed", "fileId", "time", "file"}
    assert page["changes"][0]["file"]["parents"] == [root]


@pytest.mark.parametrize("doing", ["trash", "delete", "unshare", "move out"])
def test_how_leaving_looks(sandbox: Sandbox, drive: Drive, root: str, doing: str) -> None:
    world = sandbox.drive
    file, start = world.add_file("f", root), drive.start()
    start = drive.start()
    if doing == "trash":
        world.trash(file)
    elif doing == "delete":
        world.delete(file)
    elif doing == "unshare":
        world.share(file, ACCOUNT)
        start = drive.start()
        world.move(file, world.roots[OWNER])
        world.unshare(file, ACCOUNT)
    else:
        world.move(file, world.roots[OWNER])
    ((change,), _) = drive.changes(start)
    assert change["fileId"] == file
    if doing == "trash":
        assert change["removed"] is False
        assert change["file"]["trashed"] is True
    else:
        assert change["removed"] is True
        assert "file" not in change
        assert drive.changes(start, includeRemoved=False)[0] == []


@pytest.mark.parametrize("doing", ["move", "trash", "restore", "share", "unshare", "delete"])
def test_s02b_a_folder_is_logged_alone(
    sandbox: Sandbox, drive: Drive, root: str, doing: str
) -> None:
    world = sandbox.drive
    folder = world.add_folder("sub", root if doing not in ("move", "share") else None)
    world.add_files(5, folder)
    if doing == "restore":
        world.trash(folder)
    if doing == "unshare":
        world.share(folder, ACCOUNT)
        world.move(folder, world.roots[OWNER])
    start = drive.start()
    {
        "move": lambda: world.move(folder, root),
        "trash": lambda: world.trash(folder),
        "restore": lambda: world.restore(folder),
        "share": lambda: world.share(folder, ACCOUNT),
        "unshare": lambda: world.unshare(folder, ACCOUNT),
        "delete": lambda: world.delete(folder),
    }[doing]()
    changes, _ = drive.changes(start)
    assert ids(changes) == [folder]
    assert changes[0]["removed"] is (doing in ("unshare", "delete"))
    assert len(world.truth(folder, ACCOUNT)) == (5 if doing in ("move", "restore", "share") else 0)


def test_descendants_are_logged_on_request(sandbox: Sandbox, drive: Drive, root: str) -> None:
    world = sandbox.drive
    world.log_descendants = True
    folder = world.add_folder("sub")
    files = world.add_files(3, folder)
    start = drive.start()
    world.move(folder, root)
    assert set(ids(drive.changes(start)[0])) == {folder, *files}


def test_s26_a_view_is_logged_though_nothing_changed(
    sandbox: Sandbox, drive: Drive, root: str
) -> None:
    file = sandbox.drive.add_file("f", root)
    before, start = drive.get(file), drive.start()
    sandbox.drive.view(file)
    assert ids(drive.changes(start)[0]) == [file]
    assert drive.get(file) == before
    sandbox.drive.view(file, bump_version=True)
    after = drive.get(file)
    assert int(after.pop("version")) == int(before.pop("version")) + 1
    assert after == before


def test_unlogged_changes_show_only_in_listings(sandbox: Sandbox, drive: Drive, root: str) -> None:
    start = drive.start()
    with sandbox.drive.unlogged():
        sandbox.drive.add_file("quiet", root)
    assert drive.changes(start)[0] == []
    assert drive.names(f"'{root}' in parents") == ["quiet"]


def test_logs_are_personal(
    sandbox: Sandbox, drive: Drive, connect: ConnectDrive, root: str
) -> None:
    other = connect("second@sandbox-project.iam.gserviceaccount.com")
    mine, theirs = drive.start(), other.start()
    file = sandbox.drive.add_file("f", root)
    assert ids(drive.changes(mine)[0]) == [file]
    assert other.changes(theirs)[0] == []
    for token in (theirs, "nonsense", "101"):
        with pytest.raises(HttpError) as error:
            drive.changes(token)
        assert error.value.status_code == 400
        assert error.value.error_details[0]["location"] == "pageToken"


def test_a_token_is_required(drive: Drive) -> None:
    answer, body = drive.http.request(f"{drive.service._baseUrl}changes")
    assert answer.status == 400
    assert b'"Required parameter: pageToken"' in body
    assert b'"reason":"required"' in body


# -- shared drives -------------------------------------------------------------------------------
def in_drive(drive_id: str) -> dict[str, Any]:
    return {"driveId": drive_id, "includeItemsFromAllDrives": True, "supportsAllDrives": True}


BOTH: dict[str, Any] = {"includeItemsFromAllDrives": True, "supportsAllDrives": True}


def test_a_shared_drive_has_its_own_log(sandbox: Sandbox, drive: Drive) -> None:
    world = sandbox.drive
    shared = world.add_drive("Projects", members=[ACCOUNT])
    user_start = drive.start()
    drive_start = drive.start(driveId=shared, supportsAllDrives=True)
    file = world.add_file("f", shared)
    assert drive.changes(user_start, **BOTH)[0] == []
    changes, _ = drive.changes(drive_start, **in_drive(shared))
    assert ids(changes) == [file]
    assert changes[0]["driveId"] == shared
    with pytest.raises(HttpError) as error:
        drive.changes(user_start, **in_drive(shared))
    assert error.value.status_code == 400
    with pytest.raises(HttpError) as error:
        drive.start(driveId=shared)
    assert error.value.status_code == 403


def test_membership_is_one_entry_for_the_drive_and_none_for_its_files(
    sandbox: Sandbox, drive: Drive
) -> None:
    world = sandbox.drive
    shared = world.add_drive("Projects")
    world.add_files(3, shared)
    start = drive.start()
    world.add_member(shared, ACCOUNT)
    ((change,), token) = drive.changes(start, **BOTH)
    assert (change["changeType"], change["driveId"], change["removed"]) == ("drive", shared, False)
    assert change["drive"]["name"] == "Projects"
    assert drive.changes(start)[0] == []
    world.remove_member(shared, ACCOUNT)
    ((change,), _) = drive.changes(token, **BOTH)
    assert change["removed"] is True
    assert "drive" not in change
    with pytest.raises(HttpError) as error:
        drive.start(driveId=shared, supportsAllDrives=True)
    assert error.value.status_code == 404


def test_moving_into_a_shared_drive_leaves_the_users_log(
    sandbox: Sandbox, drive: Drive, root: str
) -> None:
    world = sandbox.drive
    shared = world.add_drive("Projects", members=[ACCOUNT])
    file, user_start = world.add_file("f", root), ""
    user_start = drive.start()
    drive_start = drive.start(driveId=shared, supportsAllDrives=True)
    world.move(file, shared)
    ((left,), _) = drive.changes(user_start, **BOTH)
    assert (left["fileId"], left["removed"]) == (file, True)
    ((moved,), _) = drive.changes(user_start, includeCorpusRemovals=True, **BOTH)
    assert moved["file"]["driveId"] == shared
    ((came,), _) = drive.changes(drive_start, **in_drive(shared))
    assert (came["fileId"], came["removed"]) == (file, False)
    world.move(file, root)
    ((left,), _) = drive.changes(drive_start, **in_drive(shared))
    assert left["removed"] is True
    assert world.get(file).drive is None


def test_a_deleted_drive_is_gone(sandbox: Sandbox, drive: Drive) -> None:
    shared = sandbox.drive.add_drive("Projects", members=[ACCOUNT])
    file, start = sandbox.drive.add_file("f", shared), drive.start()
    sandbox.drive.delete_drive(shared)
    ((change,), _) = drive.changes(start, **BOTH)
    assert (change["driveId"], change["removed"]) == (shared, True)
    with pytest.raises(HttpError):
        drive.get(file, supportsAllDrives=True)


def test_the_log_stays_small(sandbox: Sandbox, root: str) -> None:
    file = sandbox.drive.add_file("f", root)
    for _ in range(1000):
        sandbox.drive.view(file)
    log = sandbox.drive.log(f"user:{ACCOUNT}")
    assert len(log._lines) < 100
    assert [entry.key for entry in log.after(0)] == [root, file]
