"""Things that go wrong on request: which request, how often, and how.

    sandbox.faults.add(status(503), kind="drive.files.list", nth=3, times=2)
    sandbox.faults.add(before(lambda: sandbox.drive.trash(file)), path="pageToken=", nth=1)

A rule matches requests; its ``nth`` matching request is the first it touches, ``times`` says how
many in a row (None: all from then on). Every rule counts for itself, and several may touch one
request: hooks run first, then the answer is made or replaced, then mangled.
"""

# ruff: noqa: ARG001, ARG005 -- handlers share one signature, whatever they need of it

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from file_connector.sandbox.drive_api import error_response
from file_connector.sandbox.wire import Request, Response


@dataclass(frozen=True)
class Fault:
    """What happens to a request. Made by the functions of this module.

    ``applies`` says which requests it makes sense for; others do not count. ``before`` and
    ``after`` are called around the answer (without any lock held); ``replace`` makes the answer
    instead of the API; ``mangle`` changes it; ``cut`` says how the bytes are cut short: ``reset``,
    ``close`` or ``truncate`` after ``keep`` of the body; ``wait_seconds`` delays it.
    """

    name: str
    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None
    replace: Callable[[Request], Response | None] | None = None
    mangle: Callable[[Request, Response], Response] | None = None
    cut: str = ""
    keep: float = 0.5
    wait_seconds: float = 0.0
    applies: Callable[[Request], bool] | None = None


@dataclass
class Rule:
    """A fault and the requests it is for. ``seen`` counts matches, ``hits`` how often it struck."""

    fault: Fault
    path: re.Pattern[str] | None
    kind: str | None
    account: str | None
    when: Callable[[Request], bool] | None
    nth: int
    times: int | None
    seen: int = 0
    hits: int = 0

    def matches(self, request: Request) -> bool:
        """Whether this rule is about the request at all."""
        if self.kind is not None and not (
            request.kind == self.kind
            or (self.kind.endswith("*") and request.kind.startswith(self.kind[:-1]))
        ):
            return False
        if self.kind is None and request.kind.endswith(".token") and self.path is None:
            return False
        return (
            (self.path is None or bool(self.path.search(request.target)))
            and (self.account is None or request.account == self.account)
            and (self.when is None or self.when(request))
            and (self.fault.applies is None or self.fault.applies(request))
        )


class Faults:
    """The rules in force."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add(
        self,
        fault: Fault,
        *,
        path: str | None = None,
        kind: str | None = None,
        account: str | None = None,
        when: Callable[[Request], bool] | None = None,
        nth: int = 1,
        times: int | None = 1,
    ) -> Rule:
        """Put a rule in force; returns it (its ``hits`` tell whether it struck).

        Args:
            path: regular expression searched in the decoded path with query, e.g. ``/contents`` or
                ``'abc' in parents``.
            kind: class of call as in the request log (``drive.changes.list``, ``aps.*``). Without
                kind and path every request but token requests matches.
            account: only calls of this account.
            when: any other condition.
            nth: the first matching request to touch, counted from 1 and from now.
            times: how many matching requests in a row; None for all.
        """
        pattern = re.compile(path) if path is not None else None
        rule = Rule(fault, pattern, kind, account, when, nth, times)
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """Take one rule out of force."""
        with self._lock:
            self._rules = [one for one in self._rules if one is not rule]

    def clear(self) -> None:
        """No faults any more."""
        with self._lock:
            self._rules.clear()

    def strike(self, request: Request) -> list[Fault]:
        """Count the request against all rules; the faults that touch it, in order of adding."""
        with self._lock:
            struck = []
            for rule in self._rules:
                if not rule.matches(request):
                    continue
                rule.seen += 1
                if rule.seen >= rule.nth and (
                    rule.times is None or rule.seen < rule.nth + rule.times
                ):
                    rule.hits += 1
                    struck.append(rule.fault)
            return struck


# -- answers instead of the true one -------------------------------------------------------------
def status(
    code: int, body: Any = "", headers: Mapping[str, str] | None = None, name: str = ""
) -> Fault:
    """Answer with this status; ``body`` is text, or anything else as JSON."""

    def replace(request: Request) -> Response:
        if isinstance(body, str | bytes):
            return Response(code, text=body, headers=dict(headers or {}), content_type="text/plain")
        return Response(code, body, headers=dict(headers or {}))

    return Fault(name or f"status {code}", replace=replace)


def html(code: int = 502) -> Fault:
    """A gateway's HTML page."""
    page = (
        f"<html><head><title>{code}</title></head><body><h1>{code} Bad Gateway</h1></body></html>"
    )
    return Fault(
        f"html {code}",
        replace=lambda request: Response(code, text=page, content_type="text/html; charset=UTF-8"),
    )


def google_error(
    code: int,
    reason: str,
    message: str = "",
    *,
    domain: str = "global",
    location: str = "",
    headers: Mapping[str, str] | None = None,
) -> Fault:
    """An error envelope of Drive."""
    return Fault(
        f"{code} {reason}",
        replace=lambda request: error_response(
            code, reason, message or reason, domain=domain, location=location, headers=headers
        ),
    )


def drive_throttle(
    code: int = 403,
    reason: str = "userRateLimitExceeded",
    retry_after: str | int | None = None,
) -> Fault:
    """Drive's "too fast": 403 (userRateLimitExceeded, rateLimitExceeded) or 429."""
    message = "User Rate Limit Exceeded" if reason.startswith("user") else "Rate Limit Exceeded"
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return google_error(code, reason, message, domain="usageLimits", headers=headers)


def aps_throttle(retry_after: str | int | None = 25) -> Fault:
    """APS's "too fast": 429."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return status(429, {"developerMessage": "Quota limit exceeded."}, headers, "aps throttle")


def aps_error(code: int, error_code: str = "BIM360DM_ERROR", detail: str = "refused") -> Fault:
    """A JSON:API error of APS."""
    error = {
        "id": "00000000-0000-4000-8000-000000000000",
        "status": str(code),
        "code": error_code,
        "title": "Error",
        "detail": detail,
    }
    body = {"jsonapi": {"version": "1.0"}, "errors": [error]}
    return status(code, body, name=f"{code} {error_code}")


def expired_token(provider: str = "drive") -> Fault:
    """401 as for an expired token."""
    if provider == "aps":
        body = {
            "developerMessage": "Access token provided is invalid or expired.",
            "moreInfo": "https://forge.autodesk.com/en/docs/oauth/v2/developers_guide/error_handling/",
            "errorCode": "AUTH-006",
        }
        return status(401, body, name="401 AUTH-006")
    return google_error(401, "authError", "Invalid Credentials", location="Authorization")


def reject_page_token() -> Fault:
    """Drive refuses a page token: 400 Invalid Value. Only requests that carry one count."""
    return Fault("page token rejected", replace=lambda r: _rejected(400), applies=_has_token)


def reject_change_token(code: int = 400) -> Fault:
    """Drive refuses a change token with 400, 404 or 410."""
    return Fault(
        f"change token rejected {code}",
        replace=lambda r: _rejected(code),
        applies=lambda r: r.kind == "drive.changes.list" and _has_token(r),
    )


def _has_token(request: Request) -> bool:
    return bool(request.get("pageToken"))


def _rejected(code: int) -> Response:
    reason = {404: "notFound", 410: "deleted"}.get(code, "invalid")
    message = {404: "Page token not found.", 410: "The page token is no longer valid."}
    return error_response(code, reason, message.get(code, "Invalid Value"), location="pageToken")


def error_in_200(body: Any = None) -> Fault:
    """Status 200, but the body is an error."""
    default = {"error": {"code": 500, "message": "Internal Error", "errors": []}}
    return status(200, default if body is None else body, name="error in 200")


# -- true answers, mangled -----------------------------------------------------------------------
def truncate(keep: float = 0.5) -> Fault:
    """Status 200 and a correct Content-Length, but the JSON ends in the middle."""
    return Fault("truncated", cut="truncate", keep=keep)


def reset(keep: float = 0.5) -> Fault:
    """The connection is reset after a part of the body (0: before any answer)."""
    return Fault("reset", cut="reset", keep=keep)


def close_early(keep: float = 0.5) -> Fault:
    """The connection is closed in good order, short of Content-Length."""
    return Fault("closed early", cut="close", keep=keep)


def delay(seconds: float) -> Fault:
    """The true answer, late."""
    return Fault(f"delay {seconds:g}", wait_seconds=seconds)


def hang() -> Fault:
    """No answer at all until the sandbox closes."""
    return Fault("hang", wait_seconds=float("inf"))


def mangle(change: Callable[[Any], Any], name: str = "mangled") -> Fault:
    """Pass the JSON of a successful answer through ``change`` (a deep copy, may be changed)."""

    def apply(request: Request, response: Response) -> Response:
        if response.status == 200 and response.payload is not None:
            response.payload = change(json.loads(json.dumps(response.payload)))
        return response

    return Fault(name, mangle=apply)


def _rows(payload: Any) -> str:
    return next((name for name in ("files", "changes", "data", "drives") if name in payload), "")


def drop(ids: Collection[str] = (), *, every: int = 0, keep: int | None = None) -> Fault:
    """A flaky listing: rows with these ids, every n-th row, or all beyond ``keep`` are missing."""

    def change(payload: Any) -> Any:
        name = _rows(payload)
        rows = [
            row
            for n, row in enumerate(payload.get(name, ()), 1)
            if (row.get("id") or row.get("fileId")) not in ids
            and not (every and n % every == 0)
            and not (keep is not None and n > keep)
        ]
        payload[name] = rows
        if "included" in payload:
            shown = {row["id"] for row in rows}
            payload["included"] = [
                one
                for one in payload["included"]
                if one["relationships"]["item"]["data"]["id"] in shown
            ]
        return payload

    return mangle(change, "rows dropped")


def repeat(rows: int = 1) -> Fault:
    """The first rows of a page come twice."""

    def change(payload: Any) -> Any:
        name = _rows(payload)
        payload[name] = payload[name] + payload[name][:rows]
        return payload

    return mangle(change, "rows repeated")


def empty_page() -> Fault:
    """A page with no rows; the link or token to the next page stays."""

    def change(payload: Any) -> Any:
        payload[_rows(payload)] = []
        payload.pop("included", None)
        return payload

    return mangle(change, "empty page")


def empty_world() -> Fault:
    """A listing that claims there is nothing, and no next page."""

    def change(payload: Any) -> Any:
        payload[_rows(payload)] = []
        payload.pop("included", None)
        payload.pop("nextPageToken", None)
        if isinstance(payload.get("links"), dict):
            payload["links"].pop("next", None)
        return payload

    return mangle(change, "empty world")


def empty_multi_parent(only: Collection[str] = ()) -> Fault:
    """Drive's old trouble: a query naming several parents wrongly finds nothing, or nothing in some
    of them (``only`` these; the mask must ask for ``parents``)."""

    def apply(request: Request, response: Response) -> Response:
        if response.status == 200:
            files = response.payload["files"]
            response.payload["files"] = [
                file for file in files if only and not set(file.get("parents", ())) & set(only)
            ]
            if not only:
                response.payload.pop("nextPageToken", None)
        return response

    return Fault(
        "empty multi-parent",
        mangle=apply,
        applies=lambda r: r.kind == "drive.files.list" and r.get("q").count(" in parents") > 1,
    )


def incomplete_search() -> Fault:
    """files.list says incompleteSearch, whether or not the mask asked for it."""
    return mangle(lambda payload: {**payload, "incompleteSearch": True}, "incompleteSearch")


def without_included() -> Fault:
    """folder contents without ``included``."""

    def change(payload: Any) -> Any:
        payload.pop("included", None)
        return payload

    return mangle(change, "no included")


def stale_changes() -> Fault:
    """changes.list answers as if nothing had happened since the token (the log lags)."""
    return Fault(
        "stale changes",
        replace=lambda r: Response(
            payload={
                "kind": "drive#changeList",
                "changes": [],
                "newStartPageToken": r.get("pageToken"),
            }
        ),
        applies=lambda r: r.kind == "drive.changes.list" and _has_token(r),
    )


# -- hooks ---------------------------------------------------------------------------------------
def before(action: Callable[[], object]) -> Fault:
    """Call ``action`` before the request is answered (an edit between pages, a kill)."""
    return Fault("before hook", before=action)


def after(action: Callable[[], object]) -> Fault:
    """Call ``action`` after the answer was made, before it is sent."""
    return Fault("after hook", after=action)


@dataclass
class Struck:
    """The faults that touch one request, put together."""

    faults: Iterable[Fault]
    names: str = field(init=False)

    def __post_init__(self) -> None:
        self.faults = list(self.faults)
        self.names = ", ".join(fault.name for fault in self.faults)

    def answer(self, request: Request, truth: Callable[[Request], Response]) -> Response:
        """Run hooks, make or replace the answer, mangle it."""
        for fault in self.faults:
            if fault.before:
                fault.before()
        response: Response | None = None
        for fault in self.faults:
            if response is None and fault.replace:
                response = fault.replace(request)
        if response is None:
            response = truth(request)
        for fault in self.faults:
            if fault.mangle:
                response = fault.mangle(request, response)
        for fault in self.faults:
            if fault.after:
                fault.after()
        return response

    @property
    def wait_seconds(self) -> float:
        return sum(fault.wait_seconds for fault in self.faults)

    @property
    def cut(self) -> Fault | None:
        return next((fault for fault in self.faults if fault.cut), None)
