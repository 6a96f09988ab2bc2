"""Drive v3 and its token endpoint over a DriveWorld: from request to response, as on the wire."""

# ruff: noqa: ARG005 -- accessors share one signature

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from file_connector.sandbox import drive_schema, masks, query
from file_connector.sandbox.drive_world import DriveWorld, Entry, Item, Sight, user_resource
from file_connector.sandbox.tokens import JWT_BEARER, TokenStore, read_assertion
from file_connector.sandbox.wire import Request, Response
from file_connector.sandbox.world import drive_time, real_seconds

SCOPE = "https://www.googleapis.com/auth/"
METADATA_SCOPES = frozenset(
    SCOPE + name
    for name in ("drive", "drive.readonly", "drive.metadata", "drive.metadata.readonly")
)
DRIVES_SCOPES = frozenset((SCOPE + "drive", SCOPE + "drive.readonly"))
TOKEN_AUDIENCE = "https://oauth2.googleapis.com/token"
DEFAULT_FILE_MASK = masks.parse("kind,id,name,mimeType,resourceKey")
_ORDER_KEYS = frozenset(
    (
        "createdTime",
        "folder",
        "modifiedByMeTime",
        "modifiedTime",
        "name",
        "name_natural",
        "quotaBytesUsed",
        "recency",
        "sharedWithMeTime",
        "starred",
        "viewedByMeTime",
    )
)
_LISTINGS_KEPT = 512


class DriveError(Exception):
    """An error answer of Drive."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        location: str = "",
        location_type: str = "parameter",
        domain: str = "global",
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.response = error_response(
            code,
            reason,
            message,
            location=location,
            location_type=location_type,
            domain=domain,
            extra=extra,
            headers=headers,
        )


def error_response(
    code: int,
    reason: str,
    message: str,
    *,
    location: str = "",
    location_type: str = "parameter",
    domain: str = "global",
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The error envelope of Google's older APIs."""
    detail = {"message": message, "domain": domain, "reason": reason}
    if location:
        detail |= {"location": location, "locationType": location_type}
    error = {"code": code, "message": message, "errors": [detail], **(extra or {})}
    return Response(code, {"error": error}, headers=dict(headers or {}))


def invalid(location: str, message: str = "Invalid Value") -> DriveError:
    """400 Invalid Value at a parameter."""
    return DriveError(400, "invalid", message, location=location)


@dataclass
class Listing:
    """An open listing: which question, and the ids it found at its first page."""

    question: str
    ids: list[str]


class DriveApi:
    """Answers requests whose path begins with ``/drive/v3`` or is ``/token``."""

    def __init__(self, world: DriveWorld) -> None:
        self.world = world
        self.tokens = TokenStore(world.clock, "ya29.sandbox-")
        self.accounts: set[str] = set()
        """Service accounts that have a key."""
        self.dead_keys: set[str] = set()
        """Service accounts whose key was deleted."""
        self.undelegated: set[str] = set()
        """Service accounts that may impersonate nobody."""
        self.denied_scopes: set[str] = set()
        """Scopes the administrators refuse."""
        self.refresh_tokens: dict[str, tuple[str, frozenset[str], str, str]] = {}
        """Refresh token -> account, scopes, client id, client secret."""
        self._listings: OrderedDict[str, Listing] = OrderedDict()

    # -- routing ---------------------------------------------------------------------------------
    def route(self, request: Request) -> Callable[[Request], Response] | None:
        """Name the kind of call and give what answers it; None if it is not ours."""
        segments = request.segments
        if segments == ["token"]:
            request.kind = "drive.token"
            return self._token
        if segments[:2] != ["drive", "v3"]:
            return None
        rest = segments[2:]
        simple: dict[tuple[str, ...], tuple[str, Callable[[Request], Response]]] = {
            ("files",): ("drive.files.list", self._files_list),
            ("changes",): ("drive.changes.list", self._changes_list),
            ("changes", "startPageToken"): (
                "drive.changes.getStartPageToken",
                self._changes_start,
            ),
            ("drives",): ("drive.drives.list", self._drives_list),
            ("about",): ("drive.about", self._about),
        }
        found = simple.get(tuple(rest))
        if found is None and len(rest) == 2 and rest[0] == "files":
            found = ("drive.files.get", self._files_get)
        if found is None and len(rest) == 2 and rest[0] == "drives":
            found = ("drive.drives.get", self._drives_get)
        if found is None:
            return None
        request.kind, answer = found

        def guarded(request: Request) -> Response:
            if request.method != "GET":
                return Response(404, text="Not Found", content_type="text/html")
            try:
                with self.world.lock:
                    self._authenticate(request)
                    return answer(request)
            except DriveError as error:
                return error.response
            except masks.MaskError as error:
                return DriveError(
                    400,
                    "invalidParameter",
                    f"Invalid field selection {error.args[0]}",
                    location="fields",
                ).response

        return guarded

    def identify(self, request: Request) -> None:
        """Put the caller's account on the request, if its token is known."""
        grant = self.tokens.find(request.bearer)
        if grant:
            request.account, request.client = grant.account, grant.client

    def _authenticate(self, request: Request) -> None:
        if request.bearer is None:
            if request.kind in ("drive.files.list", "drive.files.get"):
                raise DriveError(
                    403,
                    "forbidden",
                    "Method doesn't allow unregistered callers (callers without established"
                    " identity). Please use API Key or other form of API consumer identity to call"
                    " this API.",
                    extra={"status": "PERMISSION_DENIED"},
                )
            raise DriveError(
                401,
                "required",
                "Login Required.",
                location="Authorization",
                location_type="header",
                headers={"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'},
            )
        grant = self.tokens.find(request.bearer)
        if grant is None:
            response = error_response(
                401,
                "authError",
                "Invalid Credentials",
                location="Authorization",
                location_type="header",
                extra={"status": "UNAUTHENTICATED"},
                headers={
                    "WWW-Authenticate": 'Bearer realm="https://accounts.google.com/",'
                    ' error="invalid_token"'
                },
            )
            response.payload["error"]["message"] = (
                "Request had invalid authentication credentials. Expected OAuth 2 access token,"
                " login cookie or other valid authentication credential. See"
                " https://developers.google.com/identity/sign-in/web/devconsole-project."
            )
            error = DriveError(401, "authError", "")
            error.response = response
            raise error
        request.account = grant.account
        wanted = DRIVES_SCOPES if request.kind.startswith("drive.drives.") else METADATA_SCOPES
        if not grant.scopes & wanted:
            raise DriveError(
                403,
                "insufficientPermissions",
                "Request had insufficient authentication scopes.",
                extra={
                    "status": "PERMISSION_DENIED",
                    "details": [
                        {
                            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                            "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
                            "domain": "googleapis.com",
                            "metadata": {"service": "drive.googleapis.com"},
                        }
                    ],
                },
            )

    # -- files -----------------------------------------------------------------------------------
    def _files_get(self, request: Request) -> Response:
        item_id = request.segments[3]
        sight = self._sight(request)
        if item_id == "root":
            item_id = self.world.roots[sight.account]
        item = self.world.items.get(item_id)
        if item is None or not sight.sees(item):
            raise self._not_found(item_id)
        if item.drive is not None and not _all_drives(request):
            raise self._not_found(item_id)
        mask = self._mask(request, drive_schema.FILE) or DEFAULT_FILE_MASK
        return Response(payload=self._file(item, sight, mask))

    def _files_list(self, request: Request) -> Response:
        sight = self._sight(request)
        mask = self._mask(request, drive_schema.FILE_LIST)
        page_size = _page_size(request, default=100)
        if self.world.page_cap:
            page_size = min(page_size, self.world.page_cap)
        scope = self._corpus(request, sight)
        node = self._query(request)
        order = self._order(request)
        question = _fingerprint(
            request, "q orderBy corpora driveId spaces includeItemsFromAllDrives supportsAllDrives"
        )
        matches = self._matcher(node, sight, scope)
        narrowed = query.narrowed_to(node) if node else None
        if node:
            self._check_parents(query.parents_of(node), sight, request)
            if narrowed is not None:
                narrowed = {self._alias(parent, sight) for parent in narrowed}

        token, start = request.get("pageToken"), 0
        listing: Listing | None = None
        if token:
            listing, start, token = self._reopen(token, question)
        if listing is None or self.world.paging == "live":
            found = [item for item in self.world.candidates(narrowed) if matches(item)]
            found.sort(key=lambda item: item.id)
            for key, reverse in reversed(order):
                found.sort(key=key, reverse=reverse)
            listing = Listing(question, [item.id for item in found])
            if len(found) > page_size:
                token = token or secrets.token_urlsafe(12)
                self._listings[token] = listing
                while len(self._listings) > _LISTINGS_KEPT:
                    self._listings.popitem(last=False)
        end = start + page_size
        page = []
        for item_id in listing.ids[start:end]:
            item = self.world.listed(item_id)
            if item is not None and matches(item):
                page.append(item)

        body: dict[str, Any] = {"kind": "drive#fileList", "incompleteSearch": False}
        if end < len(listing.ids):
            body["nextPageToken"] = f"~!!~{token}.{end}"
        file_mask = masks.inside(mask, "files") if mask else DEFAULT_FILE_MASK
        if mask:
            body = {name: value for name, value in body.items() if masks.wants(mask, name)}
        if not mask or masks.wants(mask, "files"):
            body["files"] = [self._file(item, sight, file_mask) for item in page]
        return Response(payload=body)

    def _reopen(self, page_token: str, question: str) -> tuple[Listing, int, str]:
        token, _, offset = page_token.removeprefix("~!!~").rpartition(".")
        listing = self._listings.get(token)
        if listing is None or listing.question != question or not offset.isdigit():
            raise invalid("pageToken")
        self._listings.move_to_end(token)
        return listing, int(offset), token

    def forget_pages(self) -> None:
        """Every page token of files.list given out so far is refused from now on."""
        with self.world.lock:
            self._listings.clear()

    def _alias(self, parent: str, sight: Sight) -> str:
        return self.world.roots[sight.account] if parent == "root" else parent

    def _check_parents(self, parents: list[str], sight: Sight, request: Request) -> None:
        for parent in parents:
            folder = self.world.items.get(self._alias(parent, sight))
            if folder is None or not folder.is_folder or not sight.sees(folder):
                hint = self.world.hints.get("folder", "")
                message = f"File not found: .{' ' + hint if hint else ''}"
                raise DriveError(404, "notFound", message, location="fileId")
            if sight.account in self.world.forbidden.get(folder.id, ()):
                raise DriveError(
                    403,
                    "insufficientFilePermissions",
                    f"The user does not have sufficient permissions for file {folder.id}.",
                )

    def _query(self, request: Request) -> query.Node | None:
        text = request.get("q")
        if not text.strip():
            return None
        try:
            return query.parse(text)
        except query.QueryError as error:
            raise invalid("q") from error

    def _corpus(self, request: Request, sight: Sight) -> Callable[[Item], bool]:
        """Which items the chosen corpora covers at all."""
        corpora, drive_id = request.get("corpora"), request.get("driveId")
        shared = request.flag("includeItemsFromAllDrives") or request.flag("includeTeamDriveItems")
        supports = _all_drives(request)
        if shared and not supports:
            raise DriveError(
                403,
                "supportsTeamDrivesRequired",
                "The supportsAllDrives parameter must be set to true when"
                " includeItemsFromAllDrives is true.",
            )
        if request.get("spaces", "drive") not in ("drive", "appDataFolder"):
            raise invalid("spaces")
        if corpora not in ("", "user", "domain", "drive", "allDrives"):
            raise invalid("corpora")
        corpora = corpora or ("drive" if drive_id else "user")
        if corpora == "drive":
            if not drive_id:
                raise DriveError(
                    400,
                    "required",
                    "The driveId parameter is required when corpora is drive.",
                    location="driveId",
                )
            if not shared:
                raise DriveError(
                    403,
                    "teamDrivesParameterMismatch",
                    "includeItemsFromAllDrives must be true when corpora is drive.",
                )
            self._drive(drive_id, sight)
            return lambda item: item.drive == drive_id and item.parent is not None
        if drive_id:
            raise DriveError(
                400,
                "badRequest",
                "The driveId parameter can only be used when corpora is drive.",
                location="driveId",
            )
        if not shared:
            return lambda item: item.drive is None and item.parent is not None
        if corpora == "allDrives":
            if not supports:
                raise invalid("corpora")
            return lambda item: item.parent is not None
        return lambda item: (
            item.parent is not None and (item.drive is None or sight.account in item.accessed)
        )

    def _matcher(
        self, node: query.Node | None, sight: Sight, scope: Callable[[Item], bool]
    ) -> Callable[[Item], bool]:
        if node is None:
            return lambda item: scope(item) and sight.lists(item)
        predicate = query.compile_query(node, lambda name: _accessor(name, sight))
        return lambda item: scope(item) and predicate(item) and sight.lists(item)

    def _order(self, request: Request) -> list[tuple[Callable[[Item], Any], bool]]:
        text = request.get("orderBy")
        if not text:
            if self.world.order == "arbitrary":
                return [(self.world.arbitrary, False)]
            return [(lambda item: item.modified, True)]
        keys, used = [], set()
        for part in text.split(","):
            name, _, direction = part.strip().partition(" ")
            if name not in _ORDER_KEYS or direction.strip() not in ("", "desc"):
                raise invalid("orderBy")
            if name in used:
                raise DriveError(
                    403,
                    "orderByContainsDuplicateSortKeys",
                    f"The orderBy parameter contains the sort key {name} twice.",
                    location="orderBy",
                )
            used.add(name)
            keys.append((_order_key(name), bool(direction.strip())))
        if "fullText" in request.get("q"):
            raise DriveError(
                400, "badRequest", "Sorting is not supported for queries with fullText terms."
            )
        return keys

    # -- changes ---------------------------------------------------------------------------------
    def _changes_start(self, request: Request) -> Response:
        sight = self._sight(request)
        log = self._log_name(request, sight)
        body = {
            "kind": "drive#startPageToken",
            "startPageToken": _change_token(log, self.world.log(log).last),
        }
        mask = self._mask(request, drive_schema.START_TOKEN)
        return Response(payload=masks.apply(mask, body))

    def _changes_list(self, request: Request) -> Response:
        sight = self._sight(request)
        mask = self._mask(request, drive_schema.CHANGE_LIST)
        if "pageToken" not in request.params:
            raise DriveError(400, "required", "Required parameter: pageToken", location="pageToken")
        log_name = self._log_name(request, sight)
        seq = _read_change_token(log_name, request.get("pageToken"))
        if seq is None:
            raise invalid("pageToken")
        log = self.world.log(log_name)
        page_size = _page_size(request, default=100)
        if self.world.changes_cap:
            page_size = min(page_size, self.world.changes_cap)
        change_mask = masks.inside(mask, "changes") if mask else {}
        changes: list[dict[str, Any]] = []
        at, last, more = seq, max(seq, log.last), False
        for entry in log.after(seq):
            if len(changes) >= page_size:
                more = True
                break
            change = self._change(entry, log_name, sight, request, change_mask)
            if change is not None:
                changes.append(change)
            at = entry.seq
        body: dict[str, Any] = {"kind": "drive#changeList", "changes": changes}
        if more:
            body["nextPageToken"] = _change_token(log_name, at)
        else:
            body["newStartPageToken"] = _change_token(log_name, last)
        if mask:
            body = {name: value for name, value in body.items() if masks.wants(mask, name)}
        return Response(payload=body)

    def _change(
        self, entry: Entry, log: str, sight: Sight, request: Request, mask: masks.Mask
    ) -> dict[str, Any] | None:
        change: dict[str, Any] = {"kind": "drive#change", "time": drive_time(entry.time)}
        include_drives = request.flag("includeItemsFromAllDrives")
        include_removed = request.flag("includeRemoved", True)
        file_mask = (
            DEFAULT_FILE_MASK if "fields" not in request.params else masks.inside(mask, "file")
        )
        if entry.is_drive:
            if not include_drives:
                return None
            drive_id = entry.key.removeprefix("drive:")
            drive = self.world.drives.get(drive_id)
            member = drive is not None and sight.account in drive.members
            change |= {
                "changeType": "drive",
                "type": "drive",
                "driveId": drive_id,
                "removed": not member,
            }
            if member:
                change["drive"] = self._drive_resource(drive_id)
        else:
            item = self.world.listed(entry.key)
            there = item is not None and sight.sees(item)
            in_log = there and item is not None and self._in_corpus(item, log, sight)
            if there and not in_log and request.flag("includeCorpusRemovals"):
                in_log = True
                change["removed"] = True
            change = {
                **change,
                "changeType": "file",
                "type": "file",
                "fileId": entry.key,
                "removed": change.get("removed", not in_log),
            }
            if item is not None and there and in_log:
                if item.drive is not None and not include_drives:
                    return None
                if request.flag("restrictToMyDrive") and item.owner != sight.account:
                    return None
                if item.drive is not None:
                    change["driveId"] = item.drive
                if not mask or masks.wants(mask, "file"):
                    change["file"] = self._file(item, sight, file_mask)
        if change["removed"] and not include_removed:
            return None
        if mask:
            keep = {name: masks.inside(mask, name) for name in change if masks.wants(mask, name)}
            return {
                name: change[name] if name == "file" else masks.apply(inner, change[name])
                for name, inner in keep.items()
            }
        return change

    def _in_corpus(self, item: Item, log: str, sight: Sight) -> bool:
        if log.startswith("drive:"):
            return f"drive:{item.drive}" == log
        return item.drive is None or sight.account not in self.world.drives[item.drive].members

    def _log_name(self, request: Request, sight: Sight) -> str:
        drive_id = request.get("driveId") or request.get("teamDriveId")
        if not drive_id:
            return f"user:{sight.account}"
        if not _all_drives(request):
            raise DriveError(
                403,
                "supportsTeamDrivesRequired",
                "The supportsAllDrives parameter must be set to true when driveId is set.",
            )
        self._drive(drive_id, sight)
        return f"drive:{drive_id}"

    # -- drives, about ---------------------------------------------------------------------------
    def _drives_list(self, request: Request) -> Response:
        sight = self._sight(request)
        mask = self._mask(request, drive_schema.DRIVE_LIST)
        try:
            size = int(request.get("pageSize", "10"))
            start = int(request.get("pageToken", "0"))
        except ValueError:
            raise invalid("pageToken") from None
        if not 1 <= size <= 100:
            raise invalid("pageSize", "Values must be within the range: [1, 100]")
        mine = [d.id for d in self.world.drives.values() if sight.account in d.members]
        body: dict[str, Any] = {
            "kind": "drive#driveList",
            "drives": [self._drive_resource(one) for one in mine[start : start + size]],
        }
        if start + size < len(mine):
            body["nextPageToken"] = str(start + size)
        return Response(payload=masks.apply(mask, body))

    def _drives_get(self, request: Request) -> Response:
        drive_id = request.segments[3]
        self._drive(drive_id, self._sight(request))
        mask = self._mask(request, drive_schema.DRIVE)
        return Response(payload=masks.apply(mask, self._drive_resource(drive_id)))

    def _about(self, request: Request) -> Response:
        mask = self._mask(request, drive_schema.ABOUT)
        if not mask:
            raise DriveError(
                400,
                "required",
                "The 'fields' parameter is required for this method.",
                location="fields",
            )
        account = self._sight(request).account
        body = {
            "kind": "drive#about",
            "user": user_resource(self.world, account),
            "storageQuota": {"limit": "0", "usage": "0"},
        }
        return Response(payload=masks.apply(mask, body))

    def _drive_resource(self, drive_id: str) -> dict[str, Any]:
        drive = self.world.drives[drive_id]
        return {
            "kind": "drive#drive",
            "id": drive.id,
            "name": drive.name,
            "createdTime": drive_time(drive.created),
            "hidden": False,
        }

    def _drive(self, drive_id: str, sight: Sight) -> None:
        drive = self.world.drives.get(drive_id)
        if drive is None or sight.account not in drive.members:
            raise DriveError(
                404, "notFound", f"Shared drive not found: {drive_id}", location="driveId"
            )

    # -- small things ----------------------------------------------------------------------------
    def _sight(self, request: Request) -> Sight:
        account = request.account or ""
        self.world.add_user(account)
        return Sight(self.world, account)

    def _not_found(self, item_id: str) -> DriveError:
        hint = self.world.hints.get("folder", "")
        message = f"File not found: {item_id}.{' ' + hint if hint else ''}"
        return DriveError(404, "notFound", message, location="fileId")

    def _mask(self, request: Request, schema: Mapping[str, Any]) -> masks.Mask:
        if "fields" not in request.params:
            return {}
        mask = masks.parse(request.get("fields"))
        masks.check(mask, schema)
        return mask

    def _file(self, item: Item, sight: Sight, mask: masks.Mask) -> dict[str, Any]:
        if not mask or "*" in mask:
            return masks.apply(mask, self.world.resource(item, sight))  # type: ignore[no-any-return]
        out = self.world.render(item, sight, mask)
        for name, inner in mask.items():
            if inner and name in out:
                out[name] = masks.apply(inner, out[name])
        return out

    # -- tokens ----------------------------------------------------------------------------------
    def _token(self, request: Request) -> Response:
        form = request.form
        grant = form.get("grant_type")
        with self.world.lock:
            if request.method == "POST" and grant == JWT_BEARER:
                return self._service_account(form, request)
            if request.method == "POST" and grant == "refresh_token":
                return self._refresh(form, request)
        return _token_error(400, "unsupported_grant_type", f"Invalid grant_type: {grant}")

    def _service_account(self, form: Mapping[str, str], request: Request) -> Response:
        assertion = read_assertion(form.get("assertion", ""))
        if assertion is None:
            return _token_error(400, "invalid_grant", "Bad Request")
        claims = assertion.claims
        issuer, subject = str(claims.get("iss", "")), str(claims.get("sub") or "")
        request.account = subject or issuer
        scopes = str(claims.get("scope", "")).split()
        issued, expires = claims.get("iat"), claims.get("exp")
        if issuer not in self.accounts:
            return _token_error(400, "invalid_grant", "Invalid grant: account not found")
        if issuer in self.dead_keys or not assertion.signature_ok:
            return _token_error(400, "invalid_grant", "Invalid JWT Signature.")
        if claims.get("aud") != TOKEN_AUDIENCE:
            return _token_error(400, "invalid_grant", "Invalid JWT: Failed audience check.")
        now = real_seconds()
        if (
            not isinstance(issued, int | float)
            or not isinstance(expires, int | float)
            or expires - issued > 3600
            or not issued - 300 <= now <= expires
        ):
            return _token_error(
                400,
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable"
                " timeframe. Check your iat and exp values in the JWT claim.",
            )
        if not scopes or not all(scope.startswith(SCOPE) for scope in scopes):
            return _token_error(
                400, "invalid_scope", "Invalid OAuth scope or ID token audience provided."
            )
        if set(scopes) & self.denied_scopes:
            return _token_error(
                403, "access_denied", "Account restricted: the scope is not allowed."
            )
        if subject and subject != issuer:
            if issuer in self.undelegated:
                return _token_error(
                    401,
                    "unauthorized_client",
                    "Client is unauthorized to retrieve access tokens using this method, or client"
                    " not authorized for any of the scopes requested.",
                )
            if subject not in self.world.users:
                return _token_error(400, "invalid_grant", "Invalid email or User ID")
        return self._answer(self.tokens.issue(subject or issuer, scopes), scopes)

    def _refresh(self, form: Mapping[str, str], request: Request) -> Response:
        found = self.refresh_tokens.get(form.get("refresh_token", ""))
        if found is None:
            return _token_error(400, "invalid_grant", "Token has been expired or revoked.")
        account, scopes, client, secret = found
        request.account, request.client = account, client
        if (form.get("client_id"), form.get("client_secret")) != (client, secret):
            return _token_error(401, "invalid_client", "The OAuth client was not found.")
        asked = frozenset(form.get("scope", "").split()) or scopes
        if not asked <= scopes:
            return _token_error(400, "invalid_scope", "Some requested scopes were invalid.")
        return self._answer(self.tokens.issue(account, asked, client=client), sorted(asked))

    def _answer(self, token: str, scopes: list[str]) -> Response:
        return Response(
            payload={
                "access_token": token,
                "expires_in": self.tokens.lifetime_seconds,
                "scope": " ".join(scopes),
                "token_type": "Bearer",
            }
        )


def _token_error(status: int, error: str, description: str) -> Response:
    return Response(status, {"error": error, "error_description": description})


def _all_drives(request: Request) -> bool:
    return request.flag("supportsAllDrives") or request.flag("supportsTeamDrives")


def _page_size(request: Request, default: int) -> int:
    try:
        size = int(request.get("pageSize", str(default)))
    except ValueError:
        raise invalid("pageSize") from None
    if not 1 <= size <= 1000:
        raise invalid(
            "pageSize",
            f"Invalid value '{size}'. Values must be within the range: [1, 1000]",
        )
    return size


def _fingerprint(request: Request, names: str) -> str:
    asked = {name: request.get(name) for name in names.split()}
    return json.dumps([request.account, asked], sort_keys=True)


def _change_token(log: str, seq: int) -> str:
    mark = hashlib.blake2b(log.encode(), digest_size=6).hexdigest()
    return base64.urlsafe_b64encode(f"{mark}:{seq}".encode()).decode().rstrip("=")


def _read_change_token(log: str, token: str) -> int | None:
    """The position a token stands for, or None if it is not a token of this log."""
    try:
        mark, _, seq = (
            base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().partition(":")
        )
    except ValueError:
        return None
    if not seq.isdigit() or _change_token(log, int(seq)) != token or not mark:
        return None
    return int(seq)


def _order_key(name: str) -> Callable[[Item], Any]:
    keys: dict[str, Callable[[Item], Any]] = {
        "createdTime": lambda item: item.created,
        "folder": lambda item: not item.is_folder,
        "name": lambda item: item.name.casefold(),
        "name_natural": lambda item: item.name.casefold(),
        "quotaBytesUsed": lambda item: item.size or 0,
        "starred": lambda item: not item.starred,
    }
    return keys.get(name, lambda item: item.modified)


def _accessor(name: str, sight: Sight) -> Callable[[Any], Any]:
    account, world = sight.account, sight.world

    def parents(item: Item) -> tuple[str | None, ...]:
        root = world.roots[account]
        return (item.parent, "root") if item.parent == root else (item.parent,)

    def people(item: Item) -> Iterator[str]:
        for email in (*([item.owner] if item.owner else []), *item.shares):
            yield email
            if email == account:
                yield "me"

    accessors: dict[str, Callable[[Item], Any]] = {
        "name": lambda item: item.name,
        "fullText": lambda item: item.name,
        "mimeType": lambda item: item.mime_type,
        "modifiedTime": lambda item: item.modified.replace(
            microsecond=item.modified.microsecond // 1000 * 1000
        ),
        "createdTime": lambda item: item.created.replace(
            microsecond=item.created.microsecond // 1000 * 1000
        ),
        "viewedByMeTime": lambda item: item.viewed.get(account),
        "sharedWithMeTime": lambda item: item.shares.get(account),
        "trashed": sight.trashed,
        "starred": lambda item: item.starred,
        "sharedWithMe": lambda item: item.drive is None and account in item.shares,
        "parents": parents,
        "owners": lambda item: (item.owner, "me") if item.owner == account else (item.owner,),
        "writers": people,
        "readers": people,
        "properties": lambda item: item.overrides.get("properties", {}),
        "appProperties": lambda item: item.overrides.get("appProperties", {}),
        "visibility": lambda item: "limited",
        "shortcutDetails.targetId": lambda item: item.target,
    }
    return accessors[name]
