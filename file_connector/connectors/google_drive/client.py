"""The calls: each one sent with the account's token, checked for shape, repeated while that helps.

An answer that is not what Drive documents is an error, never an empty list.
"""

from __future__ import annotations

import http.client
import itertools
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httplib2
from googleapiclient.discovery import build

from file_connector.connectors.base import Toolbox
from file_connector.connectors.google_drive.answers import (
    BadRequestError,
    PageRefusedError,
    error_of,
)
from file_connector.connectors.google_drive.auth import Account
from file_connector.connectors.google_drive.mapping import CHANGE_FIELDS, FILE_FIELDS, LIST_FIELDS
from file_connector.connectors.retry import Retrier
from file_connector.errors import (
    ConfigurationError,
    CursorRejectedError,
    ForbiddenError,
    NotFoundError,
    TransientError,
    one_line,
    redact,
)
from file_connector.models import Json

T = TypeVar("T")

PAGE_SIZE = 1000
"""The most Drive gives; it may give fewer."""

LISTS_PER_MINUTE = 3000
"""Drive allows one user 325,000 units a minute; a listing costs 100, a look-up 5."""

ODD_PAGE_TRIES = 3
"""What holds an item that makes no sense is asked for so often before that item is given up."""

READS_PER_REQUEST = 4
"""A whole request may take this many times the time-out of one read, and no longer than what is
left of the run's patience, but always as long as one read: a server that drips holds nobody."""

CUT_AGAIN_SECONDS = 0.5

Item = Mapping[str, Json]
"""Drive's file resource."""


@dataclass(frozen=True, slots=True)
class FilePage:
    """One page of files.list."""

    items: tuple[Item, ...]
    next_token: str | None
    incomplete: bool


@dataclass(frozen=True, slots=True)
class ChangePage:
    """One page of changes.list; exactly one of the tokens is there."""

    entries: tuple[Mapping[str, Json], ...]
    next_token: str | None
    new_start: str | None


class Wires:
    """HTTP for one connector: a connection per thread, the Drive service, a count of requests."""

    def __init__(self, account: Account, toolbox: Toolbox) -> None:
        self.account = account
        self.calls = 0
        self._toolbox = toolbox
        self._endpoint = _endpoint(toolbox.environ.get("GOOGLE_DRIVE_API_ENDPOINT", ""))
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[_Wire] = []
        self._worker: ThreadPoolExecutor | None = None

    def wire(self) -> _Wire:
        """This thread's connection."""
        wire: _Wire | None = getattr(self._local, "wire", None)
        if wire is None:
            wire = self._local.wire = _Wire(self, self._toolbox)
            with self._lock:
                self._open.append(wire)
        return wire

    def drive(self) -> _Drive:
        """googleapiclient's Drive; its requests go out over the wire they are executed with."""
        return _drive(self._endpoint)

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Run ``work`` in the connector's one background thread."""
        with self._lock:
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, thread_name_prefix="drive")
            return self._worker.submit(work)

    def count(self) -> None:
        with self._lock:
            self.calls += 1

    def close(self) -> None:
        """Cut what is under way, release everything; may be called twice."""
        with self._lock:
            worker, self._worker = self._worker, None
            wires, self._open = self._open, []
        if worker is not None:
            worker.shutdown(wait=False, cancel_futures=True)
            for wire in wires:
                wire.cut()
            worker.shutdown(wait=True)
        for wire in wires:
            wire.drop()
        self._local = threading.local()


class _NoWire:
    """googleapiclient wants a default transport; each request names its own, so this is unused."""

    def request(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a Drive request without a wire")


class _Drive:
    """The parts of googleapiclient's Drive we use. Made once: it writes all its methods and their
    docstrings at run time, which costs more than a request."""

    def __init__(self, endpoint: str) -> None:
        service = build(
            "drive",
            "v3",
            http=_NoWire(),
            static_discovery=True,
            cache_discovery=False,
            client_options={"api_endpoint": endpoint} if endpoint else None,
        )
        self.files = service.files()
        self.changes = service.changes()
        self.about = service.about()


@lru_cache(maxsize=8)
def _drive(endpoint: str) -> _Drive:
    return _Drive(endpoint)


class _Kept:
    """A connection that knows its socket while the last answer on it is being read; http.client
    forgets it as soon as the server said that it will close."""

    kept: socket.socket | None = None
    sock: Any

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.kept = self.sock


class _Plain(_Kept, httplib2.HTTPConnectionWithTimeout):  # type: ignore[misc]
    pass


class _Secure(_Kept, httplib2.HTTPSConnectionWithTimeout):  # type: ignore[misc]
    pass


class _Http(httplib2.Http):  # type: ignore[misc]
    def _auth_from_challenge(self, *_: Any) -> tuple[()]:
        """Nothing: a refused token is ours to renew, and httplib2 takes a plain `Bearer` or
        `Negotiate` in the answer for a broken one."""
        return ()

    def request(self, uri: str, *args: Any, **kwargs: Any) -> Any:
        kwargs["connection_type"] = _Secure if urlsplit(uri).scheme == "https" else _Plain
        return super().request(uri, *args, **kwargs)


class _Wire:
    """One thread's connection to Drive: adds the token, turns error answers into errors."""

    def __init__(self, wires: Wires, toolbox: Toolbox) -> None:
        self._wires = wires
        self._account = wires.account
        self._toolbox = toolbox
        self._http = _Http(timeout=toolbox.timeout_seconds)
        self._http.follow_redirects = False

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> tuple[httplib2.Response, bytes]:
        """As httplib2.Http.request; googleapiclient calls it. A refused token is renewed once."""
        for attempt in (1, 2):
            token = self._account.token(self._http)
            sent = {**(headers or {}), "authorization": f"Bearer {token}"}
            self._wires.count()
            response, content = self._http.request(uri, method, body=body, headers=sent, **kwargs)
            if response.status != 401 or attempt == 2:
                break
            self._account.forget(token)
        if response.status >= 300:
            raise error_of(
                response.status,
                response,
                content,
                account=self._account.name,
                now=self._toolbox.now(),
                secrets=[*self._account.secrets, token],
            )
        return response, content

    def cut(self) -> None:
        """Make a request under way in another thread fail now."""
        for connection in list(self._http.connections.values()):
            kept: socket.socket | None = getattr(connection, "kept", None)
            if kept is not None:
                try:
                    kept.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def drop(self) -> None:
        """Close the connections; a broken one would fail the next request too."""
        self._http.close()


@contextmanager
def _cut_after(seconds: float, wire: _Wire) -> Iterator[None]:
    """Cut ``wire`` when the time is over, and again every so often, because it may have been
    without a connection at that very moment."""
    over = threading.Event()

    def watch() -> None:
        patience = seconds
        while not over.wait(patience):
            wire.cut()
            patience = CUT_AGAIN_SECONDS

    watchdog = threading.Thread(target=watch, name="watchdog", daemon=True)
    watchdog.start()
    try:
        yield
    finally:
        over.set()
        watchdog.join()


class DriveClient:
    """The Drive calls this connector makes.

    Args:
        patience_seconds: waiting between attempts, in all; the toolbox's run budget by default.
    """

    def __init__(
        self, wires: Wires, toolbox: Toolbox, patience_seconds: float | None = None
    ) -> None:
        self._wires = wires
        self._toolbox = toolbox
        if patience_seconds is not None:
            budget = min(patience_seconds, toolbox.retry_budget_seconds)
            toolbox = replace(toolbox, retry_budget_seconds=budget)
        self._retrier = Retrier(toolbox)

    # -- calls -----------------------------------------------------------------------------------
    def file(self, file_id: str, *, patient: bool = True) -> Item:
        """files.get. Raises NotFoundError: gone, or hidden from us; if not ``patient``,
        CursorRejectedError: what makes no sense still makes none after a few tries."""
        tries = itertools.count(1)

        def check(answer: Any) -> Item:
            told = _checked_object(answer)
            try:
                return _checked_item(told)
            except TransientError as error:
                if patient or next(tries) < ODD_PAGE_TRIES:
                    raise
                raise CursorRejectedError(f"a change cannot be read: {error.message}") from None

        def answer(drive: _Drive) -> Any:
            return drive.files.get(fileId=file_id, fields=FILE_FIELDS, supportsAllDrives=True)

        return self._call(answer, check)

    def files(self, query: Mapping[str, str], page_token: str | None = None) -> FilePage:
        """files.list, one page. Raises PageRefusedError: list again from page one. What cannot be
        read in a page, however often it is asked for, makes the page incomplete.

        Args:
            query: ``q``, and ``corpora`` and ``driveId`` if need be.
        """
        tries = itertools.count(1)

        def check(answer: Any) -> FilePage:
            return _checked_file_page(answer, strict=next(tries) < ODD_PAGE_TRIES)

        def answer(drive: _Drive) -> Any:
            return drive.files.list(
                pageSize=PAGE_SIZE,
                fields=LIST_FIELDS,
                supportsAllDrives=True,
                includeItemsFromAllDrives=True,
                **query,
                **({"pageToken": page_token} if page_token else {}),
            )

        try:
            return self._call(answer, check, costly=True)
        except BadRequestError as error:
            if page_token and not error.location:
                raise PageRefusedError(error.message) from None
            raise

    def files_ahead(self, query: Mapping[str, str], page_token: str | None) -> Future[FilePage]:
        """``files`` in the background."""
        return self._wires.submit(lambda: self.files(query, page_token))

    def start_token(self, drive_id: str | None) -> str:
        """changes.getStartPageToken of the user's log, or of a shared drive's."""

        def answer(drive: _Drive) -> Any:
            return drive.changes.getStartPageToken(
                supportsAllDrives=True, **({"driveId": drive_id} if drive_id else {})
            )

        return self._call(answer, _checked_start_token)

    def changes(self, token: str, drive_id: str | None) -> ChangePage:
        """changes.list, one page. Raises CursorRejectedError: the token is refused, or leads to an
        entry that makes no sense however often it is asked for, and cannot be gone past unread."""
        tries = itertools.count(1)

        def check(answer: Any) -> ChangePage:
            return _checked_change_page(answer, strict=next(tries) < ODD_PAGE_TRIES)

        def answer(drive: _Drive) -> Any:
            return drive.changes.list(
                pageToken=token,
                pageSize=PAGE_SIZE,
                fields=CHANGE_FIELDS,
                supportsAllDrives=True,
                includeItemsFromAllDrives=True,
                includeCorpusRemovals=True,  # tells a file that went elsewhere from a deleted one
                **({"driveId": drive_id} if drive_id else {}),
            )

        try:
            page = self._call(answer, check, costly=True)
            return replace(page, entries=tuple(map(self._readable, page.entries)))
        except (PageRefusedError, NotFoundError, ForbiddenError, BadRequestError) as error:
            if isinstance(error, BadRequestError) and error.location:
                raise
            raise CursorRejectedError(f"the change token is refused: {error.message}") from None

    def user_email(self) -> str | None:
        """about.get: the e-mail address of the account, if Drive tells it."""

        def answer(drive: _Drive) -> Any:
            return drive.about.get(fields="user(emailAddress)")

        user = self._call(answer, _checked_object).get("user")
        email = user.get("emailAddress") if isinstance(user, dict) else None
        return email if isinstance(email, str) else None

    # -- inside ----------------------------------------------------------------------------------
    def _call(
        self, request: Callable[[_Drive], Any], check: Callable[[Any], T], *, costly: bool = False
    ) -> T:
        return self._retrier.call(lambda: self._attempt(request, check, costly))

    def _attempt(
        self, request: Callable[[_Drive], Any], check: Callable[[Any], T], costly: bool
    ) -> T:
        if costly:
            key = f"google_drive:{self._wires.account.principal}"
            self._toolbox.limiter.acquire(key, LISTS_PER_MINUTE)
        wire = self._wires.wire()
        read = self._toolbox.timeout_seconds
        limit = max(read, min(read * READS_PER_REQUEST, self._retrier.budget_left_seconds))
        try:
            with _cut_after(limit, wire):
                return check(request(self._wires.drive()).execute(http=wire, num_retries=0))
        except TransientError:
            wire.drop()
            raise
        except (
            OSError,
            http.client.HTTPException,
            httplib2.HttpLib2Error,
            ValueError,
            RecursionError,  # JSON nested beyond reason
        ) as error:
            wire.drop()
            raise TransientError(
                f"no answer from Drive: {type(error).__name__}: {self._clean(error)}",
                remedy="The next run tries again.",
            ) from None

    def _readable(self, entry: Mapping[str, Json]) -> Mapping[str, Json]:
        """An entry whose file cannot be read tells at least which file to look at: one odd entry
        must not stop an endpoint for ever."""
        if entry.get("changeType") == "drive" or entry.get("removed"):
            return entry
        try:
            _checked_item(entry.get("file"))
            return entry
        except TransientError:
            file_id = str(entry["fileId"])
            try:
                return {**entry, "file": self.file(file_id, patient=False)}
            except (NotFoundError, ForbiddenError):
                return {"fileId": file_id, "removed": True}

    def _clean(self, error: Exception) -> str:
        return one_line(redact(error, self._wires.account.secrets))[:200]


def _endpoint(text: str) -> str:
    """The operator's API host; a bare host gets Drive's path."""
    text = text.strip()
    if text and not text.lower().startswith(("http://", "https://")):
        raise ConfigurationError(
            f"GOOGLE_DRIVE_API_ENDPOINT '{text}' is not a web address.",
            remedy="Unset it, or set it to something like https://www.googleapis.com/drive/v3/.",
        )
    if text and urlsplit(text).path in ("", "/"):
        return text.rstrip("/") + "/drive/v3/"
    return text


# -- shapes --------------------------------------------------------------------------------------
def _checked_object(answer: Any) -> Mapping[str, Json]:
    if not isinstance(answer, dict):
        raise _odd("it is not a JSON object")
    if "error" in answer:
        raise _odd("it holds an error although its status is 200")
    return answer


def _checked_item(answer: Any) -> Item:
    item = _checked_object(answer)
    if not isinstance(item.get("id"), str) or not item["id"]:
        raise _odd("a file has no id")
    if not isinstance(item.get("mimeType"), str):
        raise _odd("a file has no mimeType")
    return item


def _checked_file_page(answer: Any, *, strict: bool) -> FilePage:
    page = _checked_object(answer)
    told = _listed(page, "files")
    items = []
    for item in told:
        try:
            items.append(_checked_item(item))
        except TransientError:
            if strict:
                raise
    incomplete = bool(page.get("incompleteSearch")) or len(items) < len(told)
    return FilePage(tuple(items), _token(page, "nextPageToken"), incomplete)


def _checked_change_page(answer: Any, *, strict: bool) -> ChangePage:
    page = _checked_object(answer)
    entries = []
    odd = 0
    for entry in _listed(page, "changes"):
        if isinstance(entry, dict) and entry.get("changeType") not in (None, "file", "drive"):
            continue  # about things we do not know
        about_drive = isinstance(entry, dict) and entry.get("changeType") == "drive"
        if isinstance(entry, dict) and (about_drive or _is_text(entry.get("fileId"))):
            entries.append(entry)
        else:
            odd += 1
    if odd and (strict or not entries):
        raise _odd("a change has no fileId")
    if odd:
        raise CursorRejectedError("a change cannot be read: it has no fileId.")
    next_token, new_start = _token(page, "nextPageToken"), _token(page, "newStartPageToken")
    if not next_token and not new_start:
        raise _odd("a page of changes has no token to go on")
    return ChangePage(tuple(entries), next_token, None if next_token else new_start)


def _checked_start_token(answer: Any) -> str:
    token = _token(_checked_object(answer), "startPageToken")
    if not token:
        raise _odd("there is no startPageToken")
    return token


def _listed(page: Mapping[str, Json], key: str) -> Collection[Json]:
    value = page.get(key)
    if not isinstance(value, list):
        raise _odd(f"'{key}' is not a list")
    return value


def _token(page: Mapping[str, Json], key: str) -> str | None:
    value = page.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _odd(f"'{key}' is not a text")
    return value


def _is_text(value: Json) -> bool:
    return isinstance(value, str) and bool(value)


def _odd(what: str) -> TransientError:
    return TransientError(
        f"Drive's answer makes no sense: {what}.",
        remedy="The next run tries again. If it stays, something between us and Drive answers: "
        "look at proxies and at GOOGLE_DRIVE_API_ENDPOINT.",
    )
