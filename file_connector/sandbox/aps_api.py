"""Autodesk Platform Services over an ApsWorld: tokens, hubs, projects, folders, items, versions."""

# ruff: noqa: A002, ARG005 -- handlers share one signature, whatever they need of it

from __future__ import annotations

import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import quote, urlencode
from zlib import crc32

from file_connector.sandbox.aps_world import (
    ApsItem,
    ApsWorld,
    Client,
    Folder,
    Hub,
    Project,
    Version,
    aps_time,
)
from file_connector.sandbox.tokens import JWT_BEARER, TokenStore, read_assertion
from file_connector.sandbox.wire import Request, Response
from file_connector.sandbox.world import real_seconds

TOKEN_AUDIENCE = "https://developer.api.autodesk.com/authentication/v2/token"
ACCOUNT_TYPE = "hubs:autodesk.bim360:Account"
JSON_API = {"version": "1.0"}
REFRESH_LIFETIME = timedelta(days=15)
PER_MINUTE = {
    "aps.token": 500,
    "aps.hubs": 50,
    "aps.hub": 50,
    "aps.projects": 50,
    "aps.project": 50,
    "aps.topFolders": 300,
    "aps.folder": 300,
    "aps.contents": 300,
    "aps.search": 300,
    "aps.parent": 50,
    "aps.item": 300,
    "aps.tip": 50,
    "aps.versions": 800,
    "aps.version": 300,
}
"""Documented requests per minute, per client id and endpoint."""

T = TypeVar("T")

_PLAIN = re.compile(r"^[A-Za-z0-9/:=._-]*$")
_FILTER = re.compile(r"^filter\[([^\]]+)\](?:-(lt|le|eq|ge|gt|starts|ends|contains))?$")
_TESTS: dict[str, Callable[[str, str], bool]] = {
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ge": lambda a, b: a >= b,
    "gt": lambda a, b: a > b,
    "starts": lambda a, b: a.startswith(b),
    "ends": lambda a, b: a.endswith(b),
    "contains": lambda a, b: b in a,
}


class ApsError(Exception):
    """An error answer of APS."""

    def __init__(self, response: Response) -> None:
        super().__init__(str(response.status))
        self.response = response


def jsonapi_error(status: int, code: str, title: str, detail: str) -> ApsError:
    """An error in JSON:API form."""
    error = {
        "id": secrets.token_hex(16),
        "status": str(status),
        "code": code,
        "title": title,
        "detail": detail,
    }
    return ApsError(Response(status, {"jsonapi": JSON_API, "errors": [error]}))


def gateway_error(status: int, code: str, message: str) -> ApsError:
    """An error of the gateway in front of all APIs."""
    body = {
        "developerMessage": message,
        "moreInfo": "https://forge.autodesk.com/en/docs/oauth/v2/developers_guide/error_handling/",
        "errorCode": code,
    }
    return ApsError(Response(status, body))


def bad_input(detail: str) -> ApsError:
    """400 BAD_INPUT."""
    title = "One or more input values in the request were bad"
    return jsonapi_error(400, "BAD_INPUT", title, detail)


def forbidden(detail: str) -> ApsError:
    """403 BIM360DM_ERROR."""
    return jsonapi_error(403, "BIM360DM_ERROR", "Forbidden", detail)


@dataclass
class RefreshToken:
    """A rotating token: good for one use."""

    user: str
    client: str
    scopes: frozenset[str]
    expires: datetime


class RateLimits:
    """The documented limits per client id and class of call; off until ``enabled``.

    ``scale`` is how many times faster than real time the minute passes (60: a minute is a second);
    ``per_minute`` may be changed. Retry-After is in real seconds of the caller, rounded up.
    """

    def __init__(self) -> None:
        self.enabled = False
        self.scale = 1.0
        self.per_minute = dict(PER_MINUTE)
        self._calls: dict[tuple[str, str], deque[float]] = {}

    def wait(self, client: str, kind: str) -> float | None:
        """Seconds to wait, or None if the call may pass (it is counted then)."""
        limit = self.per_minute.get(kind)
        if not self.enabled or limit is None:
            return None
        now, window = time.monotonic(), 60.0 / self.scale
        calls = self._calls.setdefault((client, kind), deque())
        while calls and calls[0] <= now - window:
            calls.popleft()
        if len(calls) < limit:
            calls.append(now)
            return None
        return calls[0] + window - now


@dataclass(frozen=True)
class Caller:
    """Who asks: the app, and the user whose rights count (None: a 2-legged call for itself)."""

    client: Client
    user: str | None

    @property
    def who(self) -> str:
        return self.user or self.client.id


Answer = Callable[[Request, Caller], Response]


class ApsApi:
    """Answers requests under ``/authentication``, ``/project/v1`` and ``/data/v1``."""

    def __init__(self, world: ApsWorld) -> None:
        self.world = world
        self.tokens = TokenStore(world.clock, "aps.sandbox.")
        self.limits = RateLimits()
        self.refresh_tokens: dict[str, RefreshToken] = {}
        self.used_refresh_tokens: list[str] = []
        self.service_accounts: dict[str, tuple[str, str]] = {}
        """Service account id -> its client id and key id."""
        self.dead_service_accounts: set[str] = set()
        self.origin = ""
        """Scheme, host and port for absolute links; the server sets it."""

    # -- routing ---------------------------------------------------------------------------------
    def route(self, request: Request) -> Callable[[Request], Response] | None:
        """Name the kind of call and give what answers it; None if it is not ours."""
        segments = request.segments
        if segments == ["authentication", "v2", "token"]:
            request.kind = "aps.token"
            return self._token
        if segments[:2] == ["authentication", "v1"]:
            return lambda request: (
                gateway_error(410, "AUTH-666", "Authentication v1 is no longer available.").response
            )
        found = self._find(segments)
        if found is None:
            return None
        request.kind, answer = found

        def guarded(request: Request) -> Response:
            try:
                if request.method != "GET":
                    raise bad_input(f"The method {request.method} is not offered here.")
                caller = self._authenticate(request)
                wait = self.limits.wait(caller.client.id, request.kind)
                if wait is not None:
                    return Response(
                        429,
                        {"developerMessage": "Quota limit exceeded."},
                        headers={"Retry-After": str(int(wait) + 1)},
                    )
                with self.world.lock:
                    response = answer(request, caller)
            except ApsError as error:
                response = error.response
            response.content_type = "application/vnd.api+json"
            return response

        return guarded

    def _find(self, segments: list[str]) -> tuple[str, Answer] | None:
        match segments:
            case ["project", "v1", "hubs"]:
                return "aps.hubs", self._hubs
            case ["project", "v1", "hubs", _]:
                return "aps.hub", self._hub
            case ["project", "v1", "hubs", _, "projects"]:
                return "aps.projects", self._projects
            case ["project", "v1", "hubs", _, "projects", _]:
                return "aps.project", self._project
            case ["project", "v1", "hubs", _, "projects", _, "hub"]:
                return "aps.hub", self._hub
            case ["project", "v1", "hubs", _, "projects", _, "topFolders"]:
                return "aps.topFolders", self._top_folders
            case ["data", "v1", "projects", _, "folders", _]:
                return "aps.folder", self._folder
            case ["data", "v1", "projects", _, "folders", _, "contents"]:
                return "aps.contents", self._contents
            case ["data", "v1", "projects", _, "folders", _, "parent"]:
                return "aps.parent", self._parent
            case ["data", "v1", "projects", _, "folders", _, "search"]:
                return "aps.search", self._search
            case ["data", "v1", "projects", _, "items", _]:
                return "aps.item", self._item
            case ["data", "v1", "projects", _, "items", _, "tip"]:
                return "aps.tip", self._tip
            case ["data", "v1", "projects", _, "items", _, "parent"]:
                return "aps.parent", self._parent
            case ["data", "v1", "projects", _, "items", _, "versions"]:
                return "aps.versions", self._versions
            case ["data", "v1", "projects", _, "versions", _]:
                return "aps.version", self._version
            case ["data", "v1", "projects", _, "versions", _, "item"]:
                return "aps.version", self._version_item
        return None

    def identify(self, request: Request) -> None:
        """Put the caller on the request, if its token is known."""
        grant = self.tokens.find(request.bearer)
        if grant:
            request.client = grant.client
            request.account = grant.user or request.headers.get("x-user-id") or grant.client

    def _authenticate(self, request: Request) -> Caller:
        if request.bearer is None:
            raise gateway_error(401, "AUTH-012", "No authorization header was sent.")
        grant = self.tokens.find(request.bearer)
        client = self.world.clients.get(grant.client or "") if grant else None
        if grant is None or client is None:
            raise gateway_error(401, "AUTH-006", "Access token provided is invalid or expired.")
        if not client.api_enabled:
            raise gateway_error(
                403,
                "AUTH-001",
                "The client_id specified does not have access to the api product",
            )
        wanted = {"data:read"} | ({"data:search"} if request.kind == "aps.search" else set())
        if not wanted <= grant.scopes:
            raise gateway_error(
                403, "AUTH-010", "Token does not have the privilege for this request."
            )
        return Caller(client, grant.user or request.headers.get("x-user-id"))

    # -- hubs and projects -----------------------------------------------------------------------
    def _hubs(self, request: Request, caller: Caller) -> Response:
        mine = [hub for hub in self.world.hubs.values() if self._provisioned(hub, caller)]
        warned = list(self.world.harmless_warnings)
        if not mine:
            warned = warned or ["US", "EMEA"]
        data = [self._hub_json(hub) for hub in mine]
        data = [hub for hub in data if _passes(hub, _filters(request))]
        body: dict[str, Any] = {
            "jsonapi": JSON_API,
            "links": {"self": self._href("/project/v1/hubs")},
            "data": data,
        }
        if warned:
            body["meta"] = {"warnings": [_region_warning(region) for region in warned]}
        return Response(payload=body)

    def _hub(self, request: Request, caller: Caller) -> Response:
        hub = self._open_hub(request, caller)
        return Response(payload={"jsonapi": JSON_API, "data": self._hub_json(hub)})

    def _projects(self, request: Request, caller: Caller) -> Response:
        hub = self._open_hub(request, caller)
        active = [
            project
            for project in (self.world.projects[one] for one in hub.projects)
            if project.status == "active" and caller.user not in project.excluded
        ]
        path = f"/project/v1/hubs/{hub.id}/projects"
        page, links = self._page(request, path, active)
        data = [self._project_json(project) for project in page]
        data = [one for one in data if _passes(one, _filters(request))]
        return Response(payload={"jsonapi": JSON_API, "links": links, "data": data})

    def _project(self, request: Request, caller: Caller) -> Response:
        self._open_hub(request, caller)
        project = self._open_project(request.segments[5], caller)
        return Response(payload={"jsonapi": JSON_API, "data": self._project_json(project)})

    def _top_folders(self, request: Request, caller: Caller) -> Response:
        self._open_hub(request, caller)
        project = self._open_project(request.segments[5], caller)
        folders = [self.world.folders[f] for f in self.world.top_folders(project.id, caller.who)]
        if caller.user and request.flag("excludeDeleted"):
            folders = [folder for folder in folders if not folder.hidden]
        if caller.user and request.flag("projectFilesOnly"):
            folders = [folder for folder in folders if folder.name == "Project Files"]
        return Response(
            payload={
                "jsonapi": JSON_API,
                "links": {"self": self._href(request.path)},
                "data": [self._folder_json(folder) for folder in folders],
            }
        )

    # -- folders ---------------------------------------------------------------------------------
    def _folder(self, request: Request, caller: Caller) -> Response:
        folder = self._open_folder(request, caller)
        changed = max(folder.modified, folder.rollup).replace(microsecond=0)
        headers = {"Last-Modified": format_datetime(changed.astimezone(timezone.utc), usegmt=True)}
        since = request.headers.get("if-modified-since")
        if since:
            try:
                if changed <= parsedate_to_datetime(since):
                    return Response(304, headers=headers)
            except (TypeError, ValueError):
                pass
        body = {"jsonapi": JSON_API, "data": self._folder_json(folder)}
        return Response(payload=body, headers=headers)

    def _parent(self, request: Request, caller: Caller) -> Response:
        if request.segments[4] == "items":
            parent: str | None = self._open_item(request, caller).parent
        else:
            parent = self._open_folder(request, caller).parent
        if parent is None:
            raise _not_found("The root folder has no parent.")
        body = {"jsonapi": JSON_API, "data": self._folder_json(self.world.folders[parent])}
        return Response(payload=body)

    def _contents(self, request: Request, caller: Caller) -> Response:
        folder = self._open_folder(request, caller)
        path = f"/data/v1/projects/{folder.project}/folders/{folder.id}/contents"
        page, links = self._page(request, path, self.world.entries(folder.id))
        filters = _filters(request)
        asks_hidden = any(name == "hidden" for name, _, _ in filters)
        show_hidden = request.flag("includeHidden") or asks_hidden
        data: list[dict[str, Any]] = []
        included: list[dict[str, Any]] = []
        for entry in page:
            if entry in self.world.folders:
                child = self.world.folders[entry]
                if child.hidden and not show_hidden:
                    continue
                if not self._reaches(entry, caller):
                    continue
                resource = self._folder_json(child)
            else:
                item = self.world.items[entry]
                if item.hidden and not show_hidden:
                    continue
                resource = self._item_json(item)
            if not _passes(resource, filters):
                continue
            data.append(resource)
            if entry in self.world.items and self.world.items[entry].tip_included:
                item = self.world.items[entry]
                included.append(self._version_json(item, item.tip))
        body: dict[str, Any] = {"jsonapi": JSON_API, "links": links, "data": data}
        if included:
            body["included"] = included
        return Response(payload=body)

    def _reaches(self, folder: str, caller: Caller) -> bool:
        """Visible itself, or on the way to something visible."""
        world = self.world
        return world.may_see(folder, caller.who) or any(
            world.may_see(one, caller.who) for one in world.below(folder) if one in world.folders
        )

    def _search(self, request: Request, caller: Caller) -> Response:
        folder = self._open_folder(request, caller)
        number, limit = _page_of(request)
        if number > 49:
            raise bad_input("The page number must be between 0 and 49; search an inner folder.")
        found = list(self.world.truth(folder.id, caller.who).values())
        found.sort(key=lambda item: item.id)
        filters = _filters(request)
        data, included = [], []
        for item in found[number * limit : (number + 1) * limit]:
            version = self._version_json(item, item.tip)
            if _passes(version, filters):
                data.append(version)
                included.append(self._item_json(item))
        path = f"/data/v1/projects/{folder.project}/folders/{folder.id}/search"
        links = self._links(request, path, number, (number + 1) * limit < len(found))
        body: dict[str, Any] = {"jsonapi": JSON_API, "links": links, "data": data}
        if included:
            body["included"] = included
        return Response(payload=body)

    # -- items and versions ----------------------------------------------------------------------
    def _item(self, request: Request, caller: Caller) -> Response:
        item = self._open_item(request, caller)
        data = self._item_json(item)
        if request.flag("includePathInProject"):
            data["attributes"]["pathInProject"] = self.world.path(item.id)
        included = [self._version_json(item, item.tip)]
        return Response(payload={"jsonapi": JSON_API, "data": data, "included": included})

    def _tip(self, request: Request, caller: Caller) -> Response:
        item = self._open_item(request, caller)
        return Response(payload={"jsonapi": JSON_API, "data": self._version_json(item, item.tip)})

    def _versions(self, request: Request, caller: Caller) -> Response:
        item = self._open_item(request, caller)
        path = f"/data/v1/projects/{item.project}/items/{item.id}/versions"
        page, links = self._page(request, path, list(reversed(item.versions)))
        data = [self._version_json(item, version) for version in page]
        data = [one for one in data if _passes(one, _filters(request))]
        return Response(payload={"jsonapi": JSON_API, "links": links, "data": data})

    def _version(self, request: Request, caller: Caller) -> Response:
        item, version = self._open_version(request, caller)
        return Response(payload={"jsonapi": JSON_API, "data": self._version_json(item, version)})

    def _version_item(self, request: Request, caller: Caller) -> Response:
        item, version = self._open_version(request, caller)
        included = [self._version_json(item, version)]
        return Response(
            payload={"jsonapi": JSON_API, "data": self._item_json(item), "included": included}
        )

    # -- opening what a path names ---------------------------------------------------------------
    def _provisioned(self, hub: Hub, caller: Caller) -> bool:
        return caller.client.hubs is None or hub.id in caller.client.hubs

    def _open_hub(self, request: Request, caller: Caller) -> Hub:
        hub = self.world.hubs.get(request.segments[3])
        if hub is None:
            hint = self.world.hints.get("hub", "")
            raise _not_found(f"The requested hub does not exist. {hint}".strip())
        if not self._provisioned(hub, caller):
            raise forbidden("You don't have permission to access this API")
        return hub

    def _open_project(self, project_id: str, caller: Caller) -> Project:
        if not re.match(r"^[ab]\.", project_id):
            raise bad_input(f"The project id is not valid: {project_id}")
        project = self.world.projects.get(project_id)
        if project is None:
            hint = self.world.hints.get("project", "")
            raise _not_found(f"The requested project does not exist. {hint}".strip())
        if not self._provisioned(self.world.hubs[project.hub], caller):
            raise forbidden("You don't have permission to access this API")
        if project.status != "active":
            raise forbidden(f"Project is not active: {project.id.removeprefix('b.')}")
        if caller.user is not None and caller.user in project.excluded:
            raise forbidden("User is not a member of the project")
        return project

    def _open_folder(self, request: Request, caller: Caller) -> Folder:
        project = self._open_project(request.segments[3], caller)
        folder = self.world.folders.get(request.segments[5])
        if folder is None or folder.project != project.id:
            raise _not_found(
                "The requested folder does not exist. " + self.world.hints.get("aps_folder", "")
            )
        if self.world.refused(folder.id, caller.who) or not self._reaches(folder.id, caller):
            raise forbidden("You don't have permission to view this folder")
        return folder

    def _open_item(self, request: Request, caller: Caller, id: str | None = None) -> ApsItem:
        project = self._open_project(request.segments[3], caller)
        item = self.world.items.get(id or request.segments[5])
        if item is None or item.project != project.id:
            raise _not_found("The requested item does not exist.")
        if self.world.refused(item.parent, caller.who) or not self.world.may_see(
            item.parent, caller.who
        ):
            raise forbidden("You don't have permission to view this item")
        return item

    def _open_version(self, request: Request, caller: Caller) -> tuple[ApsItem, Version]:
        lineage, _, number = request.segments[5].partition("?version=")
        item_id = lineage.replace("fs.file:vf.", "dm.lineage:")
        item = self._open_item(request, caller, item_id)
        for version in item.versions:
            if str(version.number) == number:
                return item, version
        raise _not_found("The requested version does not exist.")

    # -- paging and links ------------------------------------------------------------------------
    def _page(self, request: Request, path: str, rows: list[T]) -> tuple[list[T], dict[str, Any]]:
        """The asked page of ``rows`` as they are now (an offset: things may shift), and links."""
        number, limit = _page_of(request)
        page = rows[number * limit : (number + 1) * limit]
        more = (number + 1) * limit < len(rows)
        return page, self._links(request, path, number, more)

    def _links(self, request: Request, path: str, number: int, more: bool) -> dict[str, Any]:
        def at(page: int) -> dict[str, str]:
            kept = [
                (name, value)
                for name, values in request.params.items()
                for value in values
                if name != "page[number]"
            ]
            return self._href(path, urlencode([*kept, ("page[number]", str(page))]))

        links: dict[str, Any] = {"self": at(number)}
        if number or more:
            links["first"] = at(0)
        if number:
            links["prev"] = at(number - 1)
        if more:
            links["next"] = at(number + 1)
        return links

    def _href(self, path: str, query: str = "") -> dict[str, str]:
        """A link; the query must be encoded, the path must not."""
        return {"href": self._url(path) + (f"?{query}" if query else "")}

    def _url(self, path: str) -> str:
        origin = self.origin if self.world.hrefs == "absolute" else ""
        return origin + (path if _PLAIN.match(path) else quote(path, safe="/:="))

    # -- resources -------------------------------------------------------------------------------
    def _hub_json(self, hub: Hub) -> dict[str, Any]:
        url = self._url(f"/project/v1/hubs/{hub.id}")
        return {
            "type": "hubs",
            "id": hub.id,
            "attributes": {
                "name": hub.name,
                "region": hub.region,
                "extension": _extension(hub.type, {}),
            },
            "links": {"self": {"href": url}},
            "relationships": {"projects": _related(f"{url}/projects")},
        }

    def _project_json(self, project: Project) -> dict[str, Any]:
        url = self._url(f"/project/v1/hubs/{project.hub}/projects/{project.id}")
        return {
            "type": "projects",
            "id": project.id,
            "attributes": {
                "name": project.name,
                "scopes": ["b360project." + project.id.removeprefix("b.")],
                "extension": _extension(
                    "projects:autodesk.bim360:Project", {"projectType": project.kind}
                ),
            },
            "links": {
                "self": {"href": url},
                "webView": {"href": f"{self._docs(project.id)}/projects/{_bare(project.id)}"},
            },
            "relationships": {
                "hub": {"data": {"type": "hubs", "id": project.hub}},
                "rootFolder": {
                    "data": {"type": "folders", "id": project.root},
                    "meta": {
                        "link": self._href(f"/data/v1/projects/{project.id}/folders/{project.root}")
                    },
                },
                "topFolders": _related(f"{url}/topFolders"),
            },
        }

    def _folder_json(self, folder: Folder) -> dict[str, Any]:
        url = self._url(f"/data/v1/projects/{folder.project}/folders/{folder.id}")
        style = self.world.style(folder.time_style)
        people = self._people(folder.user, folder.user)
        attributes = {
            "name": folder.name,
            "displayName": folder.name,
            "createTime": aps_time(folder.created, style),
            **people[0],
            "lastModifiedTime": aps_time(folder.modified, style),
            **people[1],
            "lastModifiedTimeRollup": aps_time(folder.rollup, style),
            "objectCount": len(self.world.children[folder.id]),
            "hidden": folder.hidden,
            "extension": _extension(
                "folders:autodesk.bim360:Folder",
                {
                    "visibleTypes": ["items:autodesk.bim360:File"],
                    "actions": ["CONVERT"],
                    "allowedTypes": [
                        "items:autodesk.bim360:File",
                        "folders:autodesk.bim360:Folder",
                    ],
                    "namingStandardIds": [],
                },
            ),
        }
        relationships: dict[str, Any] = {
            "contents": _related(f"{url}/contents"),
            "refs": {"links": {"self": {"href": f"{url}/relationships/refs"}}},
            "links": {"links": {"self": {"href": f"{url}/relationships/links"}}},
        }
        if folder.parent is not None:
            relationships["parent"] = {
                "data": {"type": "folders", "id": folder.parent},
                **_related(f"{url}/parent"),
            }
        return {
            "type": "folders",
            "id": folder.id,
            "attributes": _overridden(attributes, folder.attributes),
            "links": {
                "self": {"href": url},
                "webView": {"href": self._web_view(folder.project, folder.id)},
            },
            "relationships": relationships,
        }

    def _item_json(self, item: ApsItem) -> dict[str, Any]:
        url = self._url(f"/data/v1/projects/{item.project}/items/{item.id}")
        style = self.world.style(item.time_style)
        people = self._people(item.versions[0].user, item.tip.user)
        attributes = {
            "displayName": item.tip.name if item.tip.deleted else item.name,
            "createTime": aps_time(item.created, style),
            **people[0],
            "lastModifiedTime": aps_time(item.modified, style),
            **people[1],
            "hidden": item.hidden,
            "reserved": False,
            "extension": _extension("items:autodesk.bim360:File", {"sourceFileName": item.name}),
        }
        links = {"self": {"href": url}}
        if item.web_view:
            links["webView"] = {"href": self._web_view(item.project, item.parent, item.id)}
        return {
            "type": "items",
            "id": item.id,
            "attributes": _overridden(attributes, item.attributes),
            "links": links,
            "relationships": {
                "tip": {
                    "data": {"type": "versions", "id": item.version_id(item.tip)},
                    **_related(f"{url}/tip"),
                },
                "versions": _related(f"{url}/versions"),
                "parent": {
                    "data": {"type": "folders", "id": item.parent},
                    **_related(f"{url}/parent"),
                },
                "refs": {"links": {"self": {"href": f"{url}/relationships/refs"}}},
                "links": {"links": {"self": {"href": f"{url}/relationships/links"}}},
            },
        }

    def _version_json(self, item: ApsItem, version: Version) -> dict[str, Any]:
        version_id = item.version_id(version)
        url = self._url(f"/data/v1/projects/{item.project}/versions/{version_id}")
        style = self.world.style(item.time_style)
        people = self._people(version.user, version.user)
        kind = "autodesk.core:Deleted" if version.deleted else "autodesk.bim360:File"
        attributes: dict[str, Any] = {
            "name": version.name,
            "displayName": version.name,
            "createTime": aps_time(version.created, style),
            **people[0],
            "lastModifiedTime": aps_time(version.modified, style),
            **people[1],
            "versionNumber": version.number,
        }
        data: dict[str, Any] = {
            "processState": version.state,
            "extractionState": "SUCCESS",
            "revisionDisplayLabel": str(version.number),
            "sourceFileName": version.original_name or version.name,
            "conformingStatus": "NONE",
        }
        if version.deleted:
            data = {"originalName": version.original_name}
        if version.mime_type:
            attributes["mimeType"] = version.mime_type
        if version.storage:
            attributes["storageSize"] = version.size
            _, dot, ending = version.name.rpartition(".")
            if dot:
                attributes["fileType"] = ending
        attributes["extension"] = _extension(f"versions:{kind}", data)
        links = {"self": {"href": url}}
        if item.web_view:
            links["webView"] = {"href": self._web_view(item.project, item.parent, version_id)}
        relationships: dict[str, Any] = {
            "item": {
                "data": {"type": "items", "id": item.id},
                **_related(f"{url}/item"),
            },
            "refs": {"links": {"self": {"href": f"{url}/relationships/refs"}}},
            "downloadFormats": _related(f"{url}/downloadFormats"),
        }
        if version.storage:
            name = f"urn:adsk.objects:os.object:wip.dm.prod/{crc32(version_id.encode()):08x}"
            relationships["storage"] = {"data": {"type": "objects", "id": name}}
        return {
            "type": "versions",
            "id": version_id,
            "attributes": _overridden(attributes, version.attributes),
            "links": links,
            "relationships": relationships,
        }

    def _people(self, creator: str, editor: str) -> tuple[dict[str, str], dict[str, str]]:
        def both(user: str) -> tuple[str, str]:
            if self.world.empty_users:
                return "", ""
            return user, self.world.users.get(user, "")

        made, changed = both(creator), both(editor)
        return (
            {"createUserId": made[0], "createUserName": made[1]},
            {"lastModifiedUserId": changed[0], "lastModifiedUserName": changed[1]},
        )

    def _docs(self, project_id: str) -> str:
        if self.world.projects[project_id].kind == "BIM360":
            return "https://docs.b360.autodesk.com"
        return "https://acc.autodesk.com/docs/files"

    def _web_view(self, project_id: str, folder: str, entity: str | None = None) -> str:
        link = f"{self._docs(project_id)}/projects/{_bare(project_id)}?folderUrn={_quoted(folder)}"
        return link + (f"&entityId={_quoted(entity)}" if entity else "")

    # -- tokens ----------------------------------------------------------------------------------
    def issue_refresh_token(
        self, user: str, client: str, scopes: Iterable[str] = ("data:read", "data:search")
    ) -> str:
        """A fresh refresh token, as the browser login would have given it."""
        token = secrets.token_urlsafe(30)
        expires = self.world.clock.now() + REFRESH_LIFETIME
        self.refresh_tokens[token] = RefreshToken(user, client, frozenset(scopes), expires)
        return token

    def revoke_refresh_tokens(self, user: str | None = None) -> int:
        """End the grants of a user (or all): the next refresh is refused; how many."""
        with self.world.lock:
            dead = [t for t, r in self.refresh_tokens.items() if user in (None, r.user)]
            for token in dead:
                del self.refresh_tokens[token]
        return len(dead)

    def _token(self, request: Request) -> Response:
        try:
            with self.world.lock:
                return self._grant(request)
        except ApsError as error:
            return error.response

    def _grant(self, request: Request) -> Response:
        if request.method != "POST":
            raise _oauth_error(400, "invalid_request", "The method must be POST.")
        form = request.form
        grant = form.get("grant_type", "")
        if grant == JWT_BEARER and not request.basic and "client_id" not in form:
            client = self._client_of_assertion(form)
        else:
            client = self._client(request)
        request.client = client.id
        wait = self.limits.wait(client.id, "aps.token")
        if wait is not None:
            raise ApsError(
                Response(
                    429,
                    {"developerMessage": "Quota limit exceeded."},
                    headers={"Retry-After": str(int(wait) + 1)},
                )
            )
        if grant == "client_credentials":
            scopes = self._scopes(form, client.scopes, required=True)
            request.account = client.id
            return self._issue(client, None, scopes)
        if grant == "refresh_token":
            return self._rotate(request, client, form)
        if grant == JWT_BEARER:
            return self._assertion(request, client, form)
        raise _oauth_error(
            400, "unsupported_grant_type", "The grant_type is missing or not supported."
        )

    def _client(self, request: Request) -> Client:
        form, basic = request.form, request.basic
        if basic and ("client_id" in form or "client_secret" in form):
            raise _oauth_error(
                400, "invalid_request", "The client_id was sent in both the header and the body."
            )
        name, secret = basic or (form.get("client_id", ""), form.get("client_secret", ""))
        if not name:
            raise _oauth_error(400, "invalid_request", "The client_id is missing.")
        client = self.world.clients.get(name)
        if client is None or client.secret != secret:
            raise _oauth_error(
                401, "invalid_client", "The client_id or client_secret is not valid."
            )
        return client

    def _client_of_assertion(self, form: Mapping[str, str]) -> Client:
        assertion = read_assertion(form.get("assertion", ""))
        client = self.world.clients.get(str(assertion.claims.get("iss"))) if assertion else None
        if client is None:
            raise _oauth_error(401, "invalid_client", "The client_id is not valid.")
        return client

    def _scopes(
        self, form: Mapping[str, str], allowed: frozenset[str], required: bool
    ) -> frozenset[str]:
        asked = frozenset(form.get("scope", "").split())
        if not asked:
            if required:
                raise _oauth_error(400, "invalid_request", "The scope is missing.")
            return allowed
        if not asked <= allowed:
            raise _oauth_error(400, "invalid_scope", "The scope is wider than granted.")
        return asked

    def _rotate(self, request: Request, client: Client, form: Mapping[str, str]) -> Response:
        token = form.get("refresh_token", "")
        found = self.refresh_tokens.get(token)
        if found is None or found.client != client.id or found.expires <= self.world.clock.now():
            raise _oauth_error(400, "invalid_grant", "The refresh token is invalid or expired.")
        request.account = found.user
        scopes = self._scopes(form, found.scopes, required=False)
        del self.refresh_tokens[token]
        self.used_refresh_tokens.append(token)
        return self._issue(
            client,
            found.user,
            scopes,
            refresh_token=self.issue_refresh_token(found.user, client.id, found.scopes),
        )

    def _assertion(self, request: Request, client: Client, form: Mapping[str, str]) -> Response:
        assertion = read_assertion(form.get("assertion", ""))
        if assertion is None:
            raise _oauth_error(400, "invalid_grant", "The assertion is not a JWT.")
        claims = assertion.claims
        user = str(claims.get("sub", ""))
        expires = claims.get("exp")
        scopes = claims.get("scope")
        registered = self.service_accounts.get(user)
        if (
            registered != (client.id, str(assertion.header.get("kid")))
            or user in self.dead_service_accounts
            or not assertion.signature_ok
            or claims.get("iss") != client.id
            or claims.get("aud") not in (TOKEN_AUDIENCE, f"{self.origin}/authentication/v2/token")
        ):
            raise _oauth_error(400, "invalid_grant", "The assertion is invalid.")
        if not isinstance(expires, int | float) or not 0 < expires - real_seconds() <= 3600:
            raise _oauth_error(400, "invalid_grant", "The assertion has expired.")
        if not isinstance(scopes, list):
            raise _oauth_error(400, "invalid_scope", "The scope claim must be an array.")
        request.account = user
        granted = self._scopes({"scope": " ".join(map(str, scopes))}, client.scopes, True)
        return self._issue(client, user, granted)

    def _issue(
        self, client: Client, user: str | None, scopes: Iterable[str], **more: str
    ) -> Response:
        token = self.tokens.issue(user or client.id, scopes, client=client.id, user=user)
        return Response(
            payload={
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": self.tokens.lifetime_seconds,
                **more,
            }
        )


def _oauth_error(status: int, error: str, description: str) -> ApsError:
    return ApsError(Response(status, {"error": error, "error_description": description}))


def _not_found(detail: str) -> ApsError:
    return jsonapi_error(404, "NOT_FOUND", "The requested resource was not found.", detail.strip())


def _region_warning(region: str) -> dict[str, Any]:
    return {
        "Id": None,
        "HttpStatusCode": "403",
        "ErrorCode": "BIM360DM_ERROR",
        "Title": f"Unable to get hubs from BIM360DM {region}.",
        "Detail": "You don't have permission to access this API",
        "AboutLink": None,
        "Source": None,
        "meta": None,
    }


def _extension(type: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": type,
        "version": "1.0",
        "schema": {"href": f"https://developer.api.autodesk.com/schema/v1/versions/{type}-1.0"},
        "data": data,
    }


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    return quote(text, safe="")


def _related(href: str) -> dict[str, Any]:
    return {"links": {"related": {"href": href}}}


def _bare(project_id: str) -> str:
    return project_id.removeprefix("b.")


def _overridden(attributes: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    if not overrides:
        return attributes
    merged = {**attributes, **overrides}
    return {
        name: value for name, value in merged.items() if name not in overrides or value is not None
    }


def _page_of(request: Request) -> tuple[int, int]:
    try:
        number = int(request.get("page[number]", "0"))
        limit = int(request.get("page[limit]", "200"))
    except ValueError:
        raise bad_input("The page values must be numbers.") from None
    if not 1 <= limit <= 200:
        raise bad_input("The limit value is invalid.")
    if number < 0:
        raise bad_input("The page number is invalid.")
    return number, limit


Filter = tuple[str, str, list[str]]


def _filters(request: Request) -> list[Filter]:
    filters = []
    for name, values in request.params.items():
        match = _FILTER.match(name)
        if match:
            wanted = [one for value in values for one in value.split(",")]
            filters.append((match.group(1), match.group(2) or "eq", wanted))
    return filters


def _passes(resource: Mapping[str, Any], filters: list[Filter]) -> bool:
    """All filters agree; a resource without the field never passes (items have no rollup)."""
    return all(
        any(_TESTS[operator](value, one) for one in wanted)
        for name, operator, wanted in filters
        for value in [_field(resource, name)]
    ) and all(_field(resource, name) for name, _, _ in filters)


def _field(resource: Mapping[str, Any], name: str) -> str:
    parts = name.removeprefix("attributes.").removeprefix("meta.").split(".")
    at: Any = resource if parts[0] in ("type", "id") else resource.get("attributes", {})
    for part in parts:
        at = at.get(part) if isinstance(at, Mapping) else None
    if at is None:
        return ""
    return str(at).lower() if isinstance(at, bool) else str(at)
