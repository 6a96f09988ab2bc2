"""Autodesk Platform Services as requests experiences them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from file_connector.sandbox import CLIENT_ID, CLIENT_SECRET, SERVICE_ACCOUNT, Sandbox, faults
from file_connector_tests.sandbox.conftest import TIMEOUT_SECONDS, Aps

BASIC = (CLIENT_ID, CLIENT_SECRET)


@pytest.fixture
def project(sandbox: Sandbox) -> str:
    return sandbox.aps.add_project("Tower 42")


@pytest.fixture
def top(sandbox: Sandbox, project: str) -> str:
    return sandbox.aps.project_files(project)


def entry(entries: list[dict[str, Any]], entry_id: str) -> dict[str, Any]:
    return next(one for one in entries if one["id"] == entry_id)


def rollup(sandbox: Sandbox, folder: str) -> object:
    return sandbox.aps.folder(folder).rollup


# -- tokens --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "auth", "status", "error"),
    [
        ({"grant_type": "client_credentials", "scope": "data:read"}, BASIC, 200, ""),
        (
            {
                "grant_type": "client_credentials",
                "scope": "data:read",
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
            },
            None,
            200,
            "",
        ),
        (
            {"grant_type": "client_credentials", "scope": "data:read", "client_id": CLIENT_ID},
            BASIC,
            400,
            "invalid_request",
        ),
        ({"grant_type": "client_credentials"}, BASIC, 400, "invalid_request"),
        (
            {"grant_type": "client_credentials", "scope": "data:everything"},
            BASIC,
            400,
            "invalid_scope",
        ),
        ({"grant_type": "password"}, BASIC, 400, "unsupported_grant_type"),
        ({"scope": "data:read"}, BASIC, 400, "unsupported_grant_type"),
        (
            {"grant_type": "client_credentials", "scope": "data:read"},
            (CLIENT_ID, "wrong"),
            401,
            "invalid_client",
        ),
        ({"grant_type": "refresh_token", "refresh_token": "no"}, BASIC, 400, "invalid_grant"),
    ],
)
def test_token_requests(
    aps: Aps, data: dict[str, str], auth: tuple[str, str] | None, status: int, error: str
) -> None:
    del aps.session.headers["Authorization"]
    answer = aps.token(data, auth)
    assert answer.status_code == status
    if error:
        assert answer.json()["error"] == error
    else:
        assert set(answer.json()) == {"access_token", "token_type", "expires_in"}


def test_s34_a_refresh_token_is_good_for_one_use(sandbox: Sandbox, aps: Aps, project: str) -> None:
    credentials = sandbox.aps_credentials("three_legged")
    form = {"grant_type": "refresh_token", "refresh_token": credentials["refresh_token"]}
    first = aps.token(form, BASIC).json()
    assert first["refresh_token"] != credentials["refresh_token"]
    again = aps.token(form, BASIC)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert again.json()["error_description"] == "The refresh token is invalid or expired."
    aps.session.headers["Authorization"] = f"Bearer {first['access_token']}"
    assert aps.get("/project/v1/hubs").status_code == 200
    narrow = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    assert aps.token({**narrow, "scope": "data:write"}, BASIC).json()["error"] == "invalid_scope"
    third = aps.token({**narrow, "scope": "data:read"}, BASIC).json()
    sandbox.clock.advance(days=16)
    late = {"grant_type": "refresh_token", "refresh_token": third["refresh_token"]}
    assert aps.token(late, BASIC).json()["error"] == "invalid_grant"
    assert [call.status for call in sandbox.log.calls("aps.token") if call.grant == "refresh_token"]


def test_a_revoked_refresh_token_is_dead(sandbox: Sandbox, aps: Aps) -> None:
    token = sandbox.aps_credentials("three_legged", user="U1")["refresh_token"]
    assert sandbox.aps_api.revoke_refresh_tokens("U1") == 1
    form = {"grant_type": "refresh_token", "refresh_token": token}
    assert aps.token(form, BASIC).status_code == 400


def assertion(credentials: dict[str, Any], **changes: Any) -> str:
    def part(value: Any) -> str:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    claims = {
        "iss": credentials["client_id"],
        "sub": credentials["service_account_id"],
        "aud": "https://developer.api.autodesk.com/authentication/v2/token",
        "exp": int(time.time()) + 300,
        "scope": ["data:read"],
        **changes,
    }
    head = {"alg": "RS256", "kid": credentials["key_id"]}
    signed = f"{part(head)}.{part(claims)}"
    key = serialization.load_pem_private_key(credentials["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{part(signature)}"


def test_a_secure_service_account(sandbox: Sandbox, aps: Aps, project: str) -> None:
    credentials = sandbox.aps_credentials("ssa")

    def ask(text: str) -> requests.Response:
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": text}
        return aps.token(form, BASIC)

    good = ask(assertion(credentials))
    aps.session.headers["Authorization"] = f"Bearer {good.json()['access_token']}"
    assert aps.json("/project/v1/hubs")["data"]
    assert sandbox.log.calls("aps.hubs")[-1].account == SERVICE_ACCOUNT
    head, claims, _ = assertion(credentials).split(".")
    for bad in (
        assertion(credentials, exp=int(time.time()) - 1),
        assertion(credentials, iss="another"),
        assertion(credentials, aud="https://elsewhere"),
        assertion({**credentials, "key_id": "other"}),
        f"{head}.{claims}.AAAA",
        "nonsense",
    ):
        assert ask(bad).json()["error"] == "invalid_grant"
    assert ask(assertion(credentials, scope="data:read")).json()["error"] == "invalid_scope"
    sandbox.aps_api.dead_service_accounts.add(SERVICE_ACCOUNT)
    assert ask(assertion(credentials)).status_code == 400


# -- refusals ------------------------------------------------------------------------------------
def test_s33_the_refusals_differ(sandbox: Sandbox, aps: Aps, project: str, top: str) -> None:
    world = sandbox.aps
    contents = f"/data/v1/projects/{project}/folders/{top}/contents"
    (hub,) = world.hubs

    world.set_provisioned(CLIENT_ID, [])
    hubs = aps.json("/project/v1/hubs")
    assert hubs["data"] == []
    assert hubs["meta"]["warnings"][0]["ErrorCode"] == "BIM360DM_ERROR"
    assert aps.get(contents).status_code == 403
    world.set_provisioned(CLIENT_ID, None)

    world.refuse(top)
    refused = aps.get(contents)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (403, "BIM360DM_ERROR")
    world.unrefuse(top)

    world.exclude(project, "U1")
    narrowed = {"x-user-id": "U1"}
    assert "not a member" in aps.get(contents, headers=narrowed).text
    assert aps.get(contents).status_code == 200
    assert sandbox.log.calls("aps.contents")[-2].user_id == "U1"

    world.set_status(project, "suspended")
    assert "Project is not active" in aps.get(contents).text
    assert aps.json(f"/project/v1/hubs/{hub}/projects")["data"] == []
    world.set_status(project, "active")

    assert aps.get(f"/data/v1/projects/{project}/folders/urn:none/contents").status_code == 404
    bare = project.removeprefix("b.")
    assert aps.get(f"/data/v1/projects/{bare}/folders/{top}/contents").status_code == 400

    sandbox.aps_api.tokens.expire()
    expired = aps.get(contents)
    assert (expired.status_code, expired.json()["errorCode"]) == (401, "AUTH-006")

    aps.login(sandbox.aps_credentials(), "data:create")
    assert aps.get(contents).json()["errorCode"] == "AUTH-010"
    world.clients[CLIENT_ID].api_enabled = False
    assert aps.get(contents).json()["errorCode"] == "AUTH-001"


def test_s35_regions_known_and_unknown_and_harmless_warnings(sandbox: Sandbox, aps: Aps) -> None:
    sandbox.aps.add_hub("one", region="EMEA")
    sandbox.aps.add_hub("two", region="MOON")
    sandbox.aps.harmless_warnings = ["AUS"]
    answer = aps.json("/project/v1/hubs")
    assert [hub["attributes"]["region"] for hub in answer["data"]] == ["EMEA", "MOON"]
    assert "AUS" in answer["meta"]["warnings"][0]["Title"]
    named = aps.json("/project/v1/hubs", params={"filter[name]": "two"})
    assert [hub["attributes"]["name"] for hub in named["data"]] == ["two"]


def test_rate_limits_are_per_client_and_class(
    sandbox: Sandbox, aps: Aps, project: str, top: str
) -> None:
    limits = sandbox.aps_api.limits
    limits.enabled, limits.scale = True, 120  # a minute is half a second
    limits.per_minute["aps.contents"] = 3
    contents = f"/data/v1/projects/{project}/folders/{top}/contents"
    answers = [aps.get(contents) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[3].headers["Retry-After"] == "1"
    assert aps.get(f"/data/v1/projects/{project}/folders/{top}").status_code == 200


# -- projects and top folders --------------------------------------------------------------------
def test_from_hub_to_top_folders(sandbox: Sandbox, aps: Aps, project: str, top: str) -> None:
    (hub,) = aps.json("/project/v1/hubs")["data"]
    assert hub["attributes"]["extension"]["type"] == "hubs:autodesk.bim360:Account"
    (found,) = aps.json(hub["relationships"]["projects"]["links"]["related"]["href"])["data"]
    assert found["id"] == project
    assert found["relationships"]["rootFolder"]["data"]["id"]
    assert aps.json(found["links"]["self"]["href"])["data"] == found
    folders = aps.json(found["relationships"]["topFolders"]["links"]["related"]["href"])["data"]
    assert {folder["attributes"]["name"] for folder in folders} == {
        "Project Files",
        "Photos",
        "ProjectTb",
    }
    assert entry(folders, top)["attributes"]["lastModifiedTimeRollup"].endswith(".0000000Z")


def test_s29_top_folders_include_deleted_ones(
    sandbox: Sandbox, aps: Aps, project: str, top: str
) -> None:
    gone = sandbox.aps.add_folder("Old files", project)
    sandbox.aps.delete(gone)
    (hub,) = sandbox.aps.hubs
    path = f"/project/v1/hubs/{hub}/projects/{project}/topFolders"
    assert entry(aps.json(path)["data"], gone)["attributes"]["hidden"] is True
    asked = {"params": {"excludeDeleted": "true"}}
    assert gone in [folder["id"] for folder in aps.json(path, **asked)["data"]]
    user = {"headers": {"x-user-id": "U1"}}
    assert gone not in [folder["id"] for folder in aps.json(path, **asked, **user)["data"]]
    only = aps.json(path, params={"projectFilesOnly": "true"}, **user)["data"]
    assert [folder["id"] for folder in only] == [top]


def test_rights_decide_the_top_folders(sandbox: Sandbox, aps: Aps, project: str, top: str) -> None:
    world = sandbox.aps
    closed = world.add_folder("closed", top)
    open_ = world.add_folder("open", closed)
    item = world.add_item("f.pdf", open_)
    secret = world.add_item("s.pdf", closed)
    world.deny(top, "U1")
    world.grant(open_, "U1")
    (hub,) = world.hubs
    user = {"headers": {"x-user-id": "U1"}}
    seen = aps.json(f"/project/v1/hubs/{hub}/projects/{project}/topFolders", **user)["data"]
    assert open_ in [folder["id"] for folder in seen]
    assert top not in [folder["id"] for folder in seen]
    assert set(world.truth(project, "U1")) == {item}
    assert set(world.truth(project)) == {item, secret}
    items = f"/data/v1/projects/{project}/items"
    assert aps.get(f"{items}/{secret}", **user).status_code == 403
    assert aps.get(f"{items}/{item}", **user).status_code == 200
    world.deny(closed)
    assert aps.json(f"/data/v1/projects/{project}/folders/{top}/contents")["data"] == []


# -- contents ------------------------------------------------------------------------------------
def test_pages_of_contents(sandbox: Sandbox, aps: Aps, project: str, top: str) -> None:
    sandbox.aps.add_items(401, top)
    sandbox.aps.add_folder("sub", top)
    data, included = aps.contents(project, top)
    assert [one["type"] for one in data[:2]] == ["folders", "items"]
    assert (len(data), len(included)) == (402, 401)
    assert sandbox.log.count("aps.contents") == 3
    small, _ = aps.contents(project, top, **{"page[limit]": "50"})
    assert [one["id"] for one in small] == [one["id"] for one in data]
    sandbox.aps.hrefs = "relative"
    path = f"/data/v1/projects/{project}/folders/{top}/contents"
    page = aps.json(path)
    assert page["links"]["next"]["href"].startswith("/data/v1/")
    assert "prev" not in page["links"]
    assert len(aps.contents(project, top)[0]) == 402
    for limit in ("1000", "0"):
        answer = aps.get(path, params={"page[limit]": limit})
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["code"] == "BAD_INPUT"


def test_an_empty_folder_has_no_included(aps: Aps, project: str, top: str) -> None:
    page = aps.json(f"/data/v1/projects/{project}/folders/{top}/contents")
    assert page["data"] == []
    assert "included" not in page
    assert "next" not in page["links"]


def test_an_item_and_its_tip(sandbox: Sandbox, aps: Aps, project: str, top: str) -> None:
    item = sandbox.aps.add_item("S-101 Slab.pdf", top, size=135654)
    sandbox.aps.upload(item)
    data, included = aps.contents(project, top)
    (found,) = data
    tip = included[found["relationships"]["tip"]["data"]["id"]]
    assert found["attributes"]["displayName"] == "S-101 Slab.pdf"
    assert tip["attributes"]["versionNumber"] == 2
    assert tip["attributes"]["fileType"] == "pdf"
    assert tip["attributes"]["storageSize"] == 135664
    assert tip["attributes"]["createTime"] > found["attributes"]["createTime"]
    assert tip["links"]["webView"]["href"].startswith("https://acc.autodesk.com/docs/files/")
    assert quote(tip["id"], safe="") in tip["links"]["webView"]["href"]
    assert "%3Fversion=2" in tip["links"]["self"]["href"]
    assert found["relationships"]["parent"]["data"]["id"] == top
    assert aps.json(tip["links"]["self"]["href"])["data"] == tip
    assert aps.json(f"/data/v1/projects/{project}/versions/{quote(tip['id'], safe='')}")
    back = aps.json(tip["relationships"]["item"]["links"]["related"]["href"])
    assert back["data"] == found
    single = aps.json(found["links"]["self"]["href"], params={"includePathInProject": "true"})
    assert single["included"] == [tip]
    assert single["data"]["attributes"]["pathInProject"] == "/Project Files"
    assert aps.json(found["relationships"]["tip"]["links"]["related"]["href"])["data"] == tip
    versions = aps.json(found["relationships"]["versions"]["links"]["related"]["href"])["data"]
    assert [version["attributes"]["versionNumber"] for version in versions] == [2, 1]
    parent = aps.json(found["relationships"]["parent"]["links"]["related"]["href"])
    assert parent["data"]["id"] == top


def test_s29_a_deleted_file_hides_behind_a_guid(
    sandbox: Sandbox, aps: Aps, project: str, top: str
) -> None:
    world = sandbox.aps
    item, _stays = world.add_item("plan.pdf", top), world.add_item("other.pdf", top)
    before = rollup(sandbox, top)
    world.delete(item)
    assert rollup(sandbox, top) != before
    assert item not in [one["id"] for one in aps.contents(project, top)[0]]
    data, included = aps.contents(project, top, includeHidden="true")
    found = entry(data, item)
    tip = included[found["relationships"]["tip"]["data"]["id"]]
    assert found["attributes"]["hidden"] is True
    assert found["attributes"]["extension"]["type"] == "items:autodesk.bim360:File"
    assert tip["attributes"]["name"].count("-") == 4
    assert tip["attributes"]["extension"]["type"] == "versions:autodesk.core:Deleted"
    assert tip["attributes"]["extension"]["data"]["originalName"] == "plan.pdf"
    assert tip["attributes"]["createUserId"] == ""
    assert not {"storageSize", "fileType"} & set(tip["attributes"])
    hidden, _ = aps.contents(project, top, **{"filter[hidden]": "true"})
    assert [one["id"] for one in hidden] == [item]
    assert aps.json(f"/data/v1/projects/{project}/items/{item}")["data"]["attributes"]["hidden"]
    assert item not in world.truth(project)

    world.restore(item)
    restored = world.item(item)
    assert (restored.tip.number, restored.tip.name, restored.hidden) == (3, "plan.pdf", False)
    assert item in world.truth(project)


def test_s29_a_deleted_folder_keeps_its_living_children(
    sandbox: Sandbox, aps: Aps, project: str, top: str
) -> None:
    world = sandbox.aps
    folder = world.add_folder("sub", top)
    item = world.add_item("f.pdf", folder)
    world.delete(folder)
    assert aps.contents(project, top)[0] == []
    assert world.truth(project) == {}
    child = aps.json(f"/data/v1/projects/{project}/items/{item}")["data"]
    assert child["attributes"]["hidden"] is False
    world.restore(folder)
    assert set(world.truth(project)) == {item}


def test_hidden_entries_leave_holes_in_pages(
    sandbox: Sandbox, aps: Aps, project: str, top: str
) -> None:
    for item in sandbox.aps.add_items(400, top)[:200]:
        sandbox.aps.delete(item)
    page = aps.json(f"/data/v1/projects/{project}/folders/{top}/contents")
    assert page["data"] == []
    assert "included" not in page
    assert len(aps.json(page["links"]["next"]["href"])["data"]) == 200


def test_s28_pages_drift_over_a_living_folder(
    sandbox: Sandbox, aps: Aps, project: str, top: str
) -> None:
    ids = sandbox.aps.add_items(401, top)
    sandbox.faults.add(
        faults.before(lambda: sandbox.aps.delete(ids[0])), kind="aps.contents", nth=2
    )
    moved_away = sandbox.aps.add_folder("elsewhere", top)
    sandbox.faults.add(
        faults.before(lambda: sandbox.aps.move(ids[1], moved_away)), kind="aps.contents", nth=2
    )
    data, _ = aps.contents(project, top)
    seen = [one["id"] for one in data]
    assert ids[199] not in seen  # it slipped back over the border between pages
    assert set(sandbox.aps.truth(project)) == set(ids) - {ids[0]}
    sandbox.faults.add(
        faults.before(lambda: sandbox.aps.add_item("a first", top)), kind="aps.contents", nth=2
    )
    data, _ = aps.contents(project, top)
    seen = [one["id"] for one in data]
    assert len(seen) == len(set(seen)) + 1  # and one came twice


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"filter[type]": "folders"}, ["sub"]),
        ({"filter[type]": "items", "filter[displayName]-ends": ".pdf"}, ["b.pdf"]),
        ({"filter[displayName]": "a.rvt,b.pdf"}, ["a.rvt", "b.pdf"]),
        ({"filter[displayName]-contains": "u"}, ["sub"]),
        ({"filter[createTime]-lt": "2020"}, ["a.rvt"]),
        ({"filter[attributes.createTime]-ge": "2020"}, ["sub", "b.pdf"]),
        ({"filter[extension.type]": "items:autodesk.bim360:File"}, ["a.rvt", "b.pdf"]),
        ({"filter[lastModifiedTimeRollup]-ge": "2020-01-01T00:00:00"}, ["sub"]),
    ],
)
def test_filters(
    sandbox: Sandbox, aps: Aps, project: str, top: str, params: dict[str, str], names: list[str]
) -> None:
    sandbox.aps.add_item("a.rvt", top, created="2019-01-01")
    sandbox.aps.add_item("b.pdf", top)
    sandbox.aps.add_folder("sub", top)
    data, _ = aps.contents(project, top, **params)
    assert [one["attributes"]["displayName"] for one in data] == names


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("7Z", "2026-01-02T03:04:05.0000000Z"),
        ("4Z", "2026-01-02T03:04:05.0000Z"),
        ("3Z", "2026-01-02T03:04:05.000Z"),
        ("0Z", "2026-01-02T03:04:05Z"),
        ("colon", "2026-01-02T03:04:05+00:00"),
        ("plain", "2026-01-02T03:04:05+0000"),
        ("3plain", "2026-01-02T03:04:05.000+0000"),
    ],
)
def test_s31_time_styles(
    sandbox: Sandbox, aps: Aps, project: str, top: str, style: str, text: str
) -> None:
    item = sandbox.aps.add_item("a", top, created="2026-01-02T03:04:05Z")
    sandbox.aps.override(item, time_style=style)
    (found,), _ = aps.contents(project, top)
    assert found["attributes"]["createTime"] == text
    sandbox.aps.time_style = "mixed"
    sandbox.aps.add_items(10, top)
    data, _ = aps.contents(project, top)
    assert len({len(one["attributes"]["createTime"]) for one in data}) > 3


def test_s30_odd_items(sandbox: Sandbox, aps: Aps, project: str, top: str) -> None:
    world = sandbox.aps
    world.empty_users = True
    lonely = world.add_item("no tip", top, tip_included=False)
    bare = world.add_item("bare.rvt", top, storage=False, state="PROCESSING", web_view=False)
    data, included = aps.contents(project, top)
    assert len(included) == 1
    assert entry(data, lonely)["attributes"]["createUserName"] == ""
    (tip,) = included.values()
    assert tip["relationships"]["item"]["data"]["id"] == bare
    assert not {"storageSize", "fileType"} & set(tip["attributes"])
    assert tip["attributes"]["extension"]["data"]["processState"] == "PROCESSING"
    assert "storage" not in tip["relationships"]
    assert "webView" not in tip["links"]
    before = tip["attributes"]["lastModifiedTime"]
    world.process(bare)
    (tip,) = aps.contents(project, top)[1].values()
    assert tip["attributes"]["versionNumber"] == 1
    assert tip["attributes"]["lastModifiedTime"] > before
    assert "storageSize" in tip["attributes"]
    world.override(bare, version=True, name=None)
    (tip,) = aps.contents(project, top)[1].values()
    assert "name" not in tip["attributes"]


def test_names_may_be_anything(sandbox: Sandbox, aps: Aps, project: str, top: str) -> None:
    names = ["100% # & + ?.pdf", "e\u0301.dwg", "\U0001f3d7.rvt", "n" * 255, "no ending"]
    for name in names:
        sandbox.aps.add_item(name, top)
    _, included = aps.contents(project, top)
    assert {v["attributes"]["name"] for v in included.values()} == set(names)


# -- rollups -------------------------------------------------------------------------------------
def test_s27_a_change_moves_the_rollups_above_it_and_no_others(
    sandbox: Sandbox, project: str, top: str
) -> None:
    world = sandbox.aps
    left, right = world.add_folder("left", top), world.add_folder("right", top)
    deep = world.add_folder("deep", left)
    item = world.add_item("f", deep)
    doings: list[Callable[[], object]] = [
        lambda: world.upload(item),
        lambda: world.rename(item, "g"),
        lambda: world.delete(item),
        lambda: world.restore(item),
        lambda: world.add_item("h", deep),
        lambda: world.rename(deep, "deeper"),
        lambda: world.delete(deep),
        lambda: world.restore(deep),
    ]
    for doing in doings:
        before = {folder: rollup(sandbox, folder) for folder in (top, left, deep, right)}
        doing()
        moved = {folder for folder, then in before.items() if rollup(sandbox, folder) != then}
        assert moved == {top, left, deep}
    before = {folder: rollup(sandbox, folder) for folder in (top, left, deep, right)}
    world.move(item, right)
    assert all(rollup(sandbox, folder) != then for folder, then in before.items())


def test_s27b_some_changes_move_no_rollup(sandbox: Sandbox, project: str, top: str) -> None:
    world = sandbox.aps
    item = world.add_item("f", top)
    before = rollup(sandbox, top)
    with world.silent():
        world.rename(item, "g")
        world.add_item("old", top, created="2019-01-01")
    world.deny(world.add_folder("sub", top))
    assert world.bubble
    assert rollup(sandbox, top) != before  # the folder
    before = rollup(sandbox, top)
    world.bubble = False
    world.upload(item)
    world.backdate(item, modified="2001-01-01T00:00:00Z")
    assert rollup(sandbox, top) == before


def test_a_folder_can_be_asked_if_modified(
    sandbox: Sandbox, aps: Aps, project: str, top: str
) -> None:
    path = f"/data/v1/projects/{project}/folders/{top}"
    first = aps.get(path)
    stamp = {"If-Modified-Since": first.headers["Last-Modified"]}
    assert aps.get(path, headers=stamp).status_code == 304
    sandbox.aps.add_item("f", top)
    assert aps.get(path, headers=stamp).status_code == 200


# -- search --------------------------------------------------------------------------------------
def test_search_is_bounded_and_blind_to_the_deleted(
    sandbox: Sandbox, aps: Aps, project: str, top: str
) -> None:
    world = sandbox.aps
    sub = world.add_folder("sub", top)
    kept, gone = world.add_item("kept.rvt", sub), world.add_item("gone.rvt", sub)
    world.delete(gone)
    path = f"/data/v1/projects/{project}/folders/{top}/search"
    page = aps.json(path, params={"filter[fileType]": "rvt"})
    assert [item["id"] for item in page["included"]] == [kept]
    assert page["data"][0]["type"] == "versions"
    assert aps.get(path, params={"page[number]": "50"}).status_code == 400


def test_paths_that_do_not_exist(sandbox: Sandbox, aps: Aps, top: str) -> None:
    answer = aps.session.get(f"{aps.base}/nothing/here", timeout=TIMEOUT_SECONDS)
    assert answer.status_code == 404
    assert sandbox.log.calls()[-1].kind == "unknown"
    assert aps.get("/authentication/v1/authenticate").json()["errorCode"] == "AUTH-666"
