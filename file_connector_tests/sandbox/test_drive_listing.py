"""files.list and files.get as google-api-python-client experiences them."""

from __future__ import annotations

from typing import Any

import pytest
from googleapiclient.errors import HttpError

from file_connector.sandbox import ACCOUNT, DOCUMENT, FOLDER, OWNER, SHORTCUT, Sandbox
from file_connector_tests.sandbox.conftest import ConnectDrive, Drive


@pytest.fixture
def root(sandbox: Sandbox) -> str:
    return sandbox.drive.add_folder("Watched", shared_with=[ACCOUNT])


def reason(error: pytest.ExceptionInfo[HttpError]) -> tuple[int, str, str]:
    detail = error.value.error_details[0]
    return error.value.status_code, detail["reason"], detail.get("location", "")


# -- paging --------------------------------------------------------------------------------------
def test_pages_add_up(sandbox: Sandbox, drive: Drive, root: str) -> None:
    ids = sandbox.drive.add_files(2500, root)
    found = drive.walk(f"'{root}' in parents", pageSize=1000)
    assert sorted(file["id"] for file in found) == sorted(ids)
    assert sandbox.log.count("drive.files.list") == 3


def test_paging_ends_silently_when_the_mask_lacks_the_token(
    sandbox: Sandbox, drive: Drive, root: str
) -> None:
    sandbox.drive.add_files(150, root)
    page = drive.page(f"'{root}' in parents", "files(id)")
    assert set(page) == {"files"}
    assert len(page["files"]) == 100


@pytest.mark.parametrize("size", [0, 1001])
def test_page_size_has_bounds(drive: Drive, size: int) -> None:
    with pytest.raises(HttpError) as error:
        drive.page(pageSize=size)
    assert reason(error) == (400, "invalid", "pageSize")


def test_a_page_token_belongs_to_its_question(sandbox: Sandbox, drive: Drive, root: str) -> None:
    sandbox.drive.add_files(30, root)
    q = f"'{root}' in parents"
    token = drive.page(q, pageSize=10)["nextPageToken"]
    assert len(drive.page(q, pageSize=20, pageToken=token)["files"]) == 20
    for question in ({"q": "trashed = false"}, {"q": q, "orderBy": "name"}):
        with pytest.raises(HttpError) as error:
            drive.page(pageToken=token, **question)
        assert reason(error) == (400, "invalid", "pageToken")
    with pytest.raises(HttpError):
        drive.page(q, pageToken="made up")
    assert len(drive.page(q, pageToken="")["files"]) == 30


def test_page_tokens_can_be_forgotten(sandbox: Sandbox, drive: Drive, root: str) -> None:
    sandbox.drive.add_files(30, root)
    q = f"'{root}' in parents"
    token = drive.page(q, pageSize=10)["nextPageToken"]
    sandbox.drive_api.forget_pages()
    with pytest.raises(HttpError) as error:
        drive.page(q, pageSize=10, pageToken=token)
    assert reason(error) == (400, "invalid", "pageToken")


def test_a_page_may_be_short_or_empty_and_not_the_last(
    sandbox: Sandbox, drive: Drive, root: str
) -> None:
    ids = sandbox.drive.add_files(30, root)
    q = f"'{root}' in parents and trashed = false"
    first = drive.page(q, pageSize=10)
    for file_id in ids:
        if file_id not in {file["id"] for file in first["files"]}:
            sandbox.drive.delete(file_id)
    second = drive.page(q, pageSize=10, pageToken=first["nextPageToken"])
    assert second["files"] == []
    assert "nextPageToken" in second


def test_live_paging_repeats_and_skips(sandbox: Sandbox, drive: Drive, root: str) -> None:
    sandbox.drive.paging = "live"
    ids = sandbox.drive.add_files(20, root)
    q, order = f"'{root}' in parents", "name"
    first = drive.page(q, pageSize=10, orderBy=order)
    sandbox.drive.delete(ids[0])
    second = drive.page(q, pageSize=10, orderBy=order, pageToken=first["nextPageToken"])
    seen = {file["id"] for file in first["files"] + second["files"]}
    assert ids[10] not in seen  # slipped to page one after page one was read


def test_page_cap(sandbox: Sandbox, drive: Drive, root: str) -> None:
    sandbox.drive.page_cap = 46
    sandbox.drive.add_files(100, root)
    assert len(drive.page(f"'{root}' in parents", pageSize=1000)["files"]) == 46
    assert len(drive.walk(f"'{root}' in parents", pageSize=1000)) == 100


def test_order(sandbox: Sandbox, drive: Drive, root: str) -> None:
    sandbox.drive.add_file("b", root, modified="2020-01-01T00:00:00Z")
    sandbox.drive.add_file("A", root, modified="2021-01-01T00:00:00Z")
    sandbox.drive.add_folder("c", root, modified="2019-01-01T00:00:00Z")
    q = f"'{root}' in parents"

    def names(**order: str) -> list[str]:
        return [file["name"] for file in drive.page(q, **order)["files"]]

    assert names() == ["A", "b", "c"]
    assert names(orderBy="name desc") == ["c", "b", "A"]
    assert names(orderBy="folder,modifiedTime") == ["c", "b", "A"]
    for order, code in (("size", 400), ("name,name desc", 403)):
        with pytest.raises(HttpError) as error:
            drive.page(q, orderBy=order)
        assert error.value.status_code == code


def test_a_long_query_arrives_as_post(sandbox: Sandbox, drive: Drive, root: str) -> None:
    folders = [sandbox.drive.add_folder(str(n), root) for n in range(60)]
    for folder in folders:
        sandbox.drive.add_file("f", folder)
    any_parent = " or ".join(f"'{folder}' in parents" for folder in folders)
    assert len(drive.walk(f"({any_parent}) and trashed = false")) == 60
    assert sandbox.log.calls("drive.files.list")[-1].get("q").count("in parents") == 60


# -- q -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("name = 'hello world.pdf'", ["Hello World.pdf"]),
        ("name != 'hello world.pdf' and mimeType != '{folder}'", ["Quinn's \\ paper", "doc"]),
        ("name contains 'hel'", ["Hello World.pdf"]),
        ("name contains 'Wor'", ["Hello World.pdf"]),
        ("name contains 'orld'", []),
        ("name = 'Quinn\\'s \\\\ paper'", ["Quinn's \\ paper"]),
        ("mimeType = '{folder}'", ["sub"]),
        ("mimeType contains 'application/vnd.google-apps'", ["doc", "sub"]),
        ("not mimeType = '{folder}'", ["Hello World.pdf", "Quinn's \\ paper", "doc"]),
        ("modifiedTime > '2020-01-01T00:00:00'", ["doc", "sub"]),
        ("modifiedTime >= '2020-01-01T00:00:00Z'", ["Quinn's \\ paper", "doc", "sub"]),
        ("modifiedTime <= '2020-01-01T01:00:00+01:00'", ["Hello World.pdf", "Quinn's \\ paper"]),
        ("createdTime < '2019-06-01'", ["Hello World.pdf"]),
        ("trashed = true", []),
        ("'{root}' in parents and (name = 'doc' or name = 'sub')", ["doc", "sub"]),
        ("name = 'doc' or name = 'sub' and trashed = true", []),  # from left to right
        ("'owner@example.com' in owners and name = 'doc'", ["doc"]),
        ("'me' in owners", []),
        ("appProperties has {{ key='k' and value='v' }}", ["doc"]),
    ],
)
def test_query(sandbox: Sandbox, drive: Drive, root: str, q: str, found: list[str]) -> None:
    world = sandbox.drive
    world.add_file("Hello World.pdf", root, created="2019-01-01", modified="2019-01-01")
    world.add_file("Quinn's \\ paper", root, modified="2020-01-01T00:00:00Z")
    doc = world.add_file("doc", root, mime_type=DOCUMENT)
    world.override(doc, appProperties={"k": "v"})
    world.add_folder("sub", root)
    query = q.format(folder=FOLDER, root=root)
    assert drive.names(f"({query}) and name != 'Watched'") == found


@pytest.mark.parametrize(
    "q",
    [
        "name",
        "name ~ 'x'",
        "name = x",
        "name = 'x",
        "modifiedTime > 'yesterday'",
        "trashed = 'false'",
        "sharedWithMe = false",
        "size > 5",
        "'x' in ancestors",
        "(name = 'x'",
        "name = 'x' name = 'y'",
        "md5Checksum = 'x'",
        "name = 'it's'",
    ],
)
def test_an_unusable_query_is_refused(drive: Drive, q: str) -> None:
    with pytest.raises(HttpError) as error:
        drive.page(q)
    assert reason(error) == (400, "invalid", "q")


def test_shared_with_me(sandbox: Sandbox, drive: Drive, root: str) -> None:
    sandbox.drive.add_file("inside", root)
    assert drive.names("sharedWithMe = true") == ["Watched"]


@pytest.mark.parametrize("gone", ["unknown", "unshared", "a file"])
def test_listing_what_is_not_a_visible_folder_is_404(
    sandbox: Sandbox, drive: Drive, root: str, gone: str
) -> None:
    parent = "no-such-id"
    if gone == "unshared":
        parent = root
        sandbox.drive.unshare(root, ACCOUNT)
    if gone == "a file":
        parent = sandbox.drive.add_file("f", root)
    with pytest.raises(HttpError) as error:
        drive.page(f"'{parent}' in parents")
    assert reason(error) == (404, "notFound", "fileId")


def test_a_forbidden_folder_is_seen_but_not_listed(
    sandbox: Sandbox, drive: Drive, root: str
) -> None:
    closed = sandbox.drive.add_folder("closed", root)
    sandbox.drive.forbid(closed, ACCOUNT)
    assert drive.names(f"'{root}' in parents") == ["closed"]
    with pytest.raises(HttpError) as error:
        drive.page(f"'{closed}' in parents")
    assert reason(error)[:2] == (403, "insufficientFilePermissions")
    assert drive.get(closed)["capabilities"]["canListChildren"] is False


# -- fields --------------------------------------------------------------------------------------
def test_without_fields_only_the_least(sandbox: Sandbox, drive: Drive, root: str) -> None:
    file = sandbox.drive.add_file("f.pdf", root)
    least = {"kind", "id", "name", "mimeType"}
    assert set(drive.service.files().get(fileId=file).execute()) == least
    page = drive.service.files().list(q=f"'{root}' in parents").execute()
    assert set(page) == {"kind", "incompleteSearch", "files"}
    assert set(page["files"][0]) == least


def test_masks_of_both_spellings(sandbox: Sandbox, drive: Drive, root: str) -> None:
    file = sandbox.drive.add_file("f.pdf", root)
    owner = {"owners": [{"emailAddress": OWNER}]}
    assert drive.get(file, "owners/emailAddress") == owner
    assert drive.get(file, "owners(emailAddress)") == owner
    assert drive.get(file, "id,owners/*")["owners"][0]["displayName"] == "Olive Owner"
    page = drive.page(f"'{root}' in parents", "files/id, files/name")
    assert page == {"files": [{"id": file, "name": "f.pdf"}]}


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        ("id,nonsense", "nonsense"),
        ("files(id)", "files"),
        ("owners(nonsense)", "nonsense"),
        ("id,", ""),
        ("owners(id", ""),
    ],
)
def test_a_wrong_mask_is_refused(
    sandbox: Sandbox, drive: Drive, root: str, mask: str, named: str
) -> None:
    with pytest.raises(HttpError, match=f"Invalid field selection {named}") as error:
        drive.get(root, mask)
    assert error.value.status_code == 400


def test_a_files_resource(sandbox: Sandbox, drive: Drive, root: str) -> None:
    file = sandbox.drive.add_file(
        "plan.pdf", root, size=5, created="2026-01-05T00:00:00.1234Z", modified="2025-01-01"
    )
    found = drive.get(file)
    assert found["size"] == "5"
    assert found["version"] == "1"
    assert found["createdTime"] == "2026-01-05T00:00:00.123Z"
    assert found["modifiedTime"] == "2025-01-01T00:00:00.000Z"
    assert found["parents"] == [root]
    assert found["webViewLink"].startswith("https://drive.google.com/file/d/")
    assert found["fileExtension"] == "pdf"
    assert not {"driveId", "shortcutDetails"} & set(found)
    assert "size" not in drive.get(root)
    assert "md5Checksum" not in drive.get(sandbox.drive.add_file("d", root, mime_type=DOCUMENT))


def test_new_content_changes_the_checksum_and_a_new_name_does_not(
    sandbox: Sandbox, drive: Drive, root: str
) -> None:
    file = sandbox.drive.add_file("a.pdf", root)
    first = drive.get(file)
    sandbox.drive.rename(file, "b.pdf")
    renamed = drive.get(file)
    assert renamed["md5Checksum"] == first["md5Checksum"]
    assert renamed["modifiedTime"] == first["modifiedTime"]
    assert int(renamed["version"]) > int(first["version"])
    sandbox.drive.edit(file, modified="2001-01-01T00:00:00Z")
    edited = drive.get(file)
    assert edited["md5Checksum"] != first["md5Checksum"]
    assert edited["modifiedTime"] < first["modifiedTime"]
    assert int(edited["version"]) > int(renamed["version"])


def test_parents_are_absent_when_the_parent_is_not_visible(
    sandbox: Sandbox, drive: Drive, root: str
) -> None:
    assert "parents" not in drive.get(root)


def test_overrides_win(sandbox: Sandbox, drive: Drive, root: str) -> None:
    file = sandbox.drive.add_file("f", root)
    sandbox.drive.override(file, webViewLink="javascript:alert(1)", createdTime=None)
    found = drive.get(file)
    assert found["webViewLink"] == "javascript:alert(1)"
    assert "createdTime" not in found


# -- who sees what -------------------------------------------------------------------------------
def test_an_account_sees_what_is_shared_with_it_and_below(
    sandbox: Sandbox, drive: Drive, connect: ConnectDrive, root: str
) -> None:
    deep = sandbox.drive.add_folder("deep", sandbox.drive.add_folder("sub", root))
    inside = sandbox.drive.add_file("inside", deep)
    outside = sandbox.drive.add_file("outside")
    assert drive.names() == ["Watched", "deep", "inside", "sub"]
    assert drive.get(inside)["name"] == "inside"
    with pytest.raises(HttpError, match="File not found"):
        drive.get(outside)
    assert connect("stranger@example.com").names() == []


def test_trash_shows_to_its_owner_only(
    sandbox: Sandbox, drive: Drive, connect: ConnectDrive, root: str
) -> None:
    sub = sandbox.drive.add_folder("sub", root)
    file = sandbox.drive.add_file("f", sub)
    sandbox.drive.trash(sub)
    assert drive.names(f"'{sub}' in parents") == []
    assert drive.names("trashed = true") == []
    found = drive.get(file)
    assert (found["trashed"], found["explicitlyTrashed"]) == (True, False)
    owner = connect(OWNER, authorized_user=True)
    assert owner.names("trashed = true") == ["f", "sub"]
    assert owner.names(f"'{sub}' in parents and trashed = false") == []
    sandbox.drive.restore(sub)
    assert drive.names(f"'{sub}' in parents") == ["f"]


def test_shortcuts_are_files_of_their_own(sandbox: Sandbox, drive: Drive, root: str) -> None:
    sub = sandbox.drive.add_folder("sub", root)
    up = sandbox.drive.add_shortcut("up", root, sub)
    lost = sandbox.drive.add_shortcut("lost", "no-such-file", sub)
    assert drive.get(up)["mimeType"] == SHORTCUT
    assert drive.get(up)["shortcutDetails"] == {"targetId": root, "targetMimeType": FOLDER}
    assert drive.get(lost)["shortcutDetails"]["targetId"] == "no-such-file"
    assert drive.names(f"'{sub}' in parents") == ["lost", "up"]


def test_listings_lag_while_held(sandbox: Sandbox, drive: Drive, root: str) -> None:
    old = sandbox.drive.add_file("old", root)
    gone = sandbox.drive.add_file("gone", root)
    q, start = f"'{root}' in parents", drive.start()
    sandbox.drive.hold()
    new = sandbox.drive.add_file("new", root)
    sandbox.drive.rename(old, "renamed")
    sandbox.drive.delete(gone)
    assert drive.names(q) == ["gone", "old"]
    assert drive.changes(start) == ([], start)
    assert drive.get(new)["name"] == "new"
    sandbox.drive.release()
    assert drive.names(q) == ["new", "renamed"]
    assert {c["fileId"] for c in drive.changes(start)[0]} == {old, new, gone}


# -- shared drives -------------------------------------------------------------------------------
def everything(drive_id: str) -> dict[str, Any]:
    return {
        "corpora": "drive",
        "driveId": drive_id,
        "includeItemsFromAllDrives": True,
        "supportsAllDrives": True,
    }


def test_s12_a_shared_drive_is_the_sum_of_its_folders(sandbox: Sandbox, drive: Drive) -> None:
    shared = sandbox.drive.add_drive("Projects", members=[ACCOUNT])
    total = 0
    for n in range(5):
        folder = sandbox.drive.add_folder(f"folder {n}", shared)
        sandbox.drive.add_files(300 + n, folder)
        total += len(drive.walk(f"'{folder}' in parents", pageSize=1000, **everything(shared)))
    assert total == 1510
    files = drive.walk(f"mimeType != '{FOLDER}'", pageSize=1000, **everything(shared))
    assert len(files) == total
    assert files[0]["driveId"] == shared
    assert not {"owners", "ownedByMe", "shared", "permissions"} & set(files[0])


def test_shared_drive_flags(sandbox: Sandbox, drive: Drive) -> None:
    shared = sandbox.drive.add_drive("Projects", members=[ACCOUNT])
    file = sandbox.drive.add_file("f", shared)
    with pytest.raises(HttpError) as error:
        drive.get(file)
    assert reason(error)[:2] == (404, "notFound")
    assert drive.get(file, supportsAllDrives=True)["name"] == "f"
    assert drive.names() == []
    both: dict[str, Any] = {"includeItemsFromAllDrives": True, "supportsAllDrives": True}
    assert drive.names(**both) == []  # corpora=user: only what was accessed
    sandbox.drive.view(file, by=ACCOUNT)
    assert drive.names(**both) == ["f"]
    assert drive.names(corpora="allDrives", **both) == ["f"]
    with pytest.raises(HttpError) as error:
        drive.page(includeItemsFromAllDrives=True)
    assert reason(error)[:2] == (403, "supportsTeamDrivesRequired")
    with pytest.raises(HttpError) as error:
        drive.page(**everything("0Aunknown"))
    assert reason(error)[:2] == (404, "notFound")
    assert "Shared drive not found" in error.value.reason


def test_drives_and_their_scope(sandbox: Sandbox, drive: Drive, connect: ConnectDrive) -> None:
    ids = [sandbox.drive.add_drive(f"d{n}", members=[ACCOUNT]) for n in range(12)]
    sandbox.drive.add_drive("somebody else's")
    with pytest.raises(HttpError) as error:
        drive.service.drives().list().execute()
    assert error.value.status_code == 403
    assert error.value.error_details[0]["reason"] == "ACCESS_TOKEN_SCOPE_INSUFFICIENT"
    reader = connect(scopes=("https://www.googleapis.com/auth/drive.readonly",)).service.drives()
    request, found = reader.list(), []
    while request is not None:
        page = request.execute()
        found += [one["id"] for one in page["drives"]]
        request = reader.list_next(request, page)
    assert found == ids
    assert sandbox.log.count("drive.drives.list") == 3
    assert reader.get(driveId=ids[0]).execute()["name"] == "d0"


def test_about_needs_fields(drive: Drive) -> None:
    with pytest.raises(HttpError) as error:
        drive.service.about().get().execute()
    assert error.value.status_code == 400
    about = drive.service.about().get(fields="user(emailAddress)").execute()
    assert about == {"user": {"emailAddress": ACCOUNT}}


# -- truth ---------------------------------------------------------------------------------------
def test_truth_is_what_a_complete_walk_finds(sandbox: Sandbox, drive: Drive, root: str) -> None:
    world = sandbox.drive
    sub = world.add_folder("sub", root)
    world.add_files(7, sub)
    bin_ = world.add_folder("bin", root)
    world.add_file("in the bin", bin_)
    world.trash(bin_)
    world.add_shortcut("s", root, sub)
    walked: dict[str, dict[str, object]] = {}
    waiting = [root]
    for folder in waiting:
        for file in drive.walk(f"'{folder}' in parents and trashed = false"):
            if file["mimeType"] == FOLDER:
                waiting.append(file["id"])
            else:
                walked[file["id"]] = file
    assert walked == world.truth(root, ACCOUNT)
    assert len(walked) == 8
    world.unshare(root, ACCOUNT)
    assert world.truth(root, ACCOUNT) == {}
