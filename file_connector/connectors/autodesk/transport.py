"""HTTP to Autodesk Platform Services: one request at a time, every answer either a JSON document or
an error of ``errors.py``.

The bearer token never leaves the configured host: redirects and paging links elsewhere are refused.
Bodies of answers reach messages only shortened and redacted.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Protocol
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import requests.auth
import urllib3.exceptions

from file_connector.connectors.base import Toolbox
from file_connector.connectors.retry import MAX_BACKOFF_SECONDS, Retrier, asked_wait
from file_connector.errors import (
    BugError,
    ConfigurationError,
    FileConnectorError,
    ForbiddenError,
    NotFoundError,
    ReconnectError,
    ThrottledError,
    TransientError,
    redact,
)
from file_connector.models import Json

AUTODESK = "https://developer.api.autodesk.com"
MAX_BODY_BYTES = 64 * 1024 * 1024
"""A full page is about 1.2 MB; anything near this is not a page."""
SLOWEST_ANSWER = 4
"""A body may take this many times the timeout in all, however steadily it drips."""
MAX_REDIRECTS = 3


class RefusedError(ForbiddenError):
    """A 403 with the provider's code: the caller knows what it means where it happened."""

    def __init__(self, message: str, *, code: str, detail: str) -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail


class UnreadableError(TransientError):
    """A success that says nothing, or a listing that goes on where nobody can follow, also when
    asked again: something is wrong with this very thing, not with the provider."""


class BadInputError(ConfigurationError):
    """A 400: Autodesk does not understand what we asked, typically an id."""


class Tokens(Protocol):
    """Where access tokens come from."""

    def current(self) -> str:
        """A token believed to be valid."""
        ...

    def renew(self, refused: str) -> tuple[str, bool]:
        """Another token, because the provider refused this one; and whether it was issued for that,
        and not to somebody else perhaps before."""
        ...


@dataclass(frozen=True, slots=True)
class Budget:
    """A class of calls that shares one of Autodesk's limits (requests a minute per client id)."""

    name: str
    per_minute: int


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def served_at(self) -> datetime | None:
        """The server's own clock (whole seconds), from the ``Date`` header."""
        try:
            return parsedate_to_datetime(self.headers["Date"]).astimezone(timezone.utc)
        except (KeyError, TypeError, ValueError):
            return None

    def json(self) -> Json:
        """The body as JSON; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def looks_like_html(self) -> bool:
        return self.body.lstrip()[:1] == b"<"


class _Bearer(requests.auth.AuthBase):
    """As an auth object, so that no .netrc entry of the machine replaces the header."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _NoAuth(requests.auth.AuthBase):
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class Transport:
    """Sends requests for one connector; safe for several threads.

    Args:
        base_url: scheme and host (and perhaps a path prefix) of the API.
        client_id: names the budget that all connectors of this app share.
        secrets: literal values that may never reach a message.
        user_id: sent as ``x-user-id`` with every data call.
    """

    def __init__(
        self,
        toolbox: Toolbox,
        *,
        base_url: str,
        client_id: str,
        secrets: Collection[str] = (),
        user_id: str | None = None,
    ) -> None:
        self.toolbox = toolbox
        self.base_url = base_url.rstrip("/")
        self._client_id = client_id
        self._secrets = set(secrets)
        self._user_id = user_id
        self._retrier = Retrier(toolbox)
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        self._lock = threading.Lock()
        self._calls = 0
        self.tokens: Tokens | None = None

    @property
    def calls(self) -> int:
        """Data requests sent so far, repetitions included, token requests not."""
        return self._calls

    def close(self) -> None:
        with self._lock:
            sessions, self._sessions = self._sessions, []
            self._local = threading.local()
        for session in sessions:
            session.close()

    def get(
        self,
        url: str,
        budget: Budget,
        what: str,
        params: Mapping[str, str] | None = None,
        *,
        many: bool,
    ) -> tuple[dict[str, Json], Answer]:
        """The JSON document at ``url`` (absolute, or a path below the base), and its answer. Its
        ``data`` is a list of objects (``many``) or one, each with an id.

        Args:
            what: what is being read, for messages: "the contents of folder …".

        Raises:
            UnreadableError: answered so each time, with patience left for others.
            TransientError: after the run's patience is spent.
            RefusedError, NotFoundError: as answered.
            ReconnectError: a fresh token is refused, too.
            ConfigurationError, BugError: other 4xx.
        """
        target = url if url.startswith(("http://", "https://")) else self.base_url + url

        def attempt() -> tuple[dict[str, Json], Answer]:
            answer = self._authorised(target, budget, what, params)
            return self._document(answer, what, many), answer

        try:
            return self._retrier.call(attempt)
        except UnreadableError as error:
            if self._retrier.budget_left_seconds > MAX_BACKOFF_SECONDS:
                raise
            raise TransientError(error.message) from None

    def post_form(
        self, path: str, form: Mapping[str, str], auth: tuple[str, str] | None, budget: Budget
    ) -> Answer:
        """One POST, sent once, without bearer token; whatever is answered."""
        return self._send(
            "POST", self.base_url + path, budget, "a token", form=form, auth=auth, data_call=False
        )

    def next_url(self, href: Json, current: str) -> str:
        """The absolute address of a paging link, which must stay on the configured host.

        Links that name Autodesk's public host, or this machine under another name, are followed on
        the configured host (proxies do not rewrite bodies).
        """
        base = urlsplit(self.base_url)
        known = {_origin(base), _origin(urlsplit(AUTODESK))}
        try:
            target = urlsplit(str(urljoin(current, href)))
            origin = _origin(target)
        except (TypeError, ValueError, AttributeError):
            raise UnreadableError(
                f"Autodesk's answer continues at {self._clean(href)}, which is no address."
            ) from None
        local = {target.hostname, base.hostname} <= {"127.0.0.1", "localhost", "::1"}
        if target.scheme not in ("http", "https") or not (
            origin in known or (local and target.port == base.port)
        ):
            raise UnreadableError(
                f"Autodesk's answer continues on another host ({self._clean(target.hostname)}); "
                "not followed, because that would hand the access token to it."
            )
        prefix = base.path.rstrip("/")
        path = target.path
        if prefix and not path.startswith(f"{prefix}/"):
            path = prefix + path
        return urlunsplit((base.scheme, base.netloc, path, target.query, ""))

    # -- one request -----------------------------------------------------------------------------

    def _authorised(
        self, url: str, budget: Budget, what: str, params: Mapping[str, str] | None
    ) -> Answer:
        if self.tokens is None:
            raise BugError("a request before the transport was given its tokens")
        token, fresh = self.tokens.current(), False
        answer = self._send("GET", url, budget, what, params=params, token=self._guarded(token))
        for _ in range(2):  # the third token is younger than the first refusal, whoever got it
            if answer.status == 401 and not fresh:
                token, fresh = self.tokens.renew(token)
                guarded = self._guarded(token)
                answer = self._send("GET", url, budget, what, params=params, token=guarded)
        if answer.status == 401:
            raise ReconnectError(
                f"Autodesk refuses a fresh access token for {what}: 401 {self._detail(answer)}.",
                remedy="Check that the app and its credentials are still active at "
                "aps.autodesk.com/myapps, then connect the account again.",
            )
        return answer

    def _guarded(self, token: str) -> str:
        """The token, from now on kept out of messages."""
        with self._lock:
            self._secrets = {*self._secrets, token}
        return token

    def _send(
        self,
        method: str,
        url: str,
        budget: Budget,
        what: str,
        *,
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        token: str | None = None,
        auth: tuple[str, str] | None = None,
        data_call: bool = True,
    ) -> Answer:
        headers = {"Accept": "application/vnd.api+json, application/json"}
        if data_call and self._user_id:
            headers["x-user-id"] = self._user_id
        credentials: requests.auth.AuthBase | tuple[str, str] = auth or _NoAuth()
        if token is not None:
            credentials = _Bearer(token)
        for redirects in range(MAX_REDIRECTS + 1):
            self.toolbox.limiter.acquire(f"aps:{self._client_id}:{budget.name}", budget.per_minute)
            if data_call:
                with self._lock:
                    self._calls += 1
            try:
                with self._session().request(
                    method,
                    url,
                    params=params,
                    data=form,
                    headers=headers,
                    auth=credentials,
                    timeout=self.toolbox.timeout_seconds,
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    body = self._read(response, what)
                    answer = Answer(response.status_code, response.headers, body, response.url)
            except (
                requests.exceptions.MissingSchema,
                requests.exceptions.InvalidSchema,
                requests.exceptions.InvalidURL,
            ):
                raise ConfigurationError(
                    f"APS_BASE_URL '{self._clean(self.base_url)}' is not a web address.",
                    remedy=f"Unset it, or set it to something like {AUTODESK}.",
                ) from None
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                raise TransientError(
                    f"reading {what} from {self._clean(self.base_url)} failed: "
                    f"{type(error).__name__}: {self._clean(error)}"
                ) from None
            target = answer.headers.get("Location", "")
            if method != "GET" or answer.status not in (301, 302, 303, 307, 308) or not target:
                if redirects and answer.status in (404, 410):  # that says nothing of what we seek
                    raise UnreadableError(f"reading {what}: Autodesk redirects into nothing.")
                return answer
            url, params = self.next_url(target, answer.url), None
        raise TransientError(f"reading {what}: Autodesk redirects in a circle.")

    def _read(self, response: requests.Response, what: str) -> bytes:
        now = self.toolbox.monotonic
        deadline = now() + SLOWEST_ANSWER * self.toolbox.timeout_seconds
        parts: list[bytes] = []
        size = 0
        for part in response.iter_content(64 * 1024):
            parts.append(part)
            size += len(part)
            if size > MAX_BODY_BYTES or now() > deadline:
                raise TransientError(f"reading {what}: the answer does not come to an end.")
        return b"".join(parts)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            self._local.session = session
            with self._lock:
                self._sessions.append(session)
        return session

    # -- what an answer means --------------------------------------------------------------------

    def _document(self, answer: Answer, what: str, many: bool) -> dict[str, Json]:
        if answer.status != 200:
            raise self.error(answer, what)
        document = answer.json()
        if not isinstance(document, dict):
            raise UnreadableError(
                f"reading {what}: Autodesk answered 200 without a JSON document "
                f"({len(answer.body)} bytes)."
            )
        if "data" not in document or document.get("errors"):
            raise UnreadableError(
                f"reading {what}: Autodesk answered 200 without data: {self._detail(answer)}."
            )
        data = document["data"]
        found = data if isinstance(data, list) else [data]
        if isinstance(data, list) != many or not all(map(_is_object, found)):
            raise UnreadableError(
                f"reading {what}: Autodesk answered 200 with data of another shape."
            )
        return document

    def error(self, answer: Answer, what: str) -> FileConnectorError:
        """The error an unwelcome answer stands for."""
        code, detail = problem(answer)
        detail = self._clean(detail)
        said = " ".join(filter(None, (str(answer.status), code, detail)))
        seen = f"reading {what}: Autodesk answered {said}".rstrip(" .")
        retry_after = asked_wait(answer.headers, self.toolbox.now())
        status = answer.status
        if status == 429:
            return ThrottledError(
                f"{seen}.", remedy="Too many calls; the next run goes on.", retry_after=retry_after
            )
        if status >= 500 or status in (408, 425) or status < 400 or answer.looks_like_html:
            return TransientError(
                f"{seen}.", remedy="The next run tries again.", retry_after=retry_after
            )
        if status == 403:
            if "not active" in detail.lower():
                return ConfigurationError(
                    f"the Autodesk project is suspended or archived ({detail}); "
                    "its rows are left as they are.",
                    remedy="Reactivate the project in Account Admin, or disable this endpoint.",
                )
            return RefusedError(f"{seen}.", code=code, detail=detail or "no explanation")
        if status in (404, 410):
            return NotFoundError(f"{seen}.")
        if status == 400:
            return BadInputError(f"{seen}.", remedy="Check the ids in endpoint_details.")
        return BugError(f"{seen}.")

    def _detail(self, answer: Answer) -> str:
        code, detail = problem(answer)
        return f"{code} {self._clean(detail)}".strip(" .") or "no explanation"

    def _clean(self, text: object) -> str:
        return redact(text, self._secrets)[:300]


def problem(answer: Answer) -> tuple[str, str]:
    """Code and text of an error body, in any of the shapes Autodesk uses: JSON:API errors, the
    gateway's ``errorCode``, OAuth's ``error``. Empty strings if there is none."""
    document = answer.json()
    if not isinstance(document, dict):
        return "", ""
    errors = document.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else errors
    if isinstance(first, dict):
        code = first.get("code") or first.get("ErrorCode")
        parts = [
            first.get("title") or first.get("Title"),
            first.get("detail") or first.get("Detail"),
        ]
    else:
        code = document.get("errorCode") or document.get("error") or document.get("code")
        parts = [
            document.get("developerMessage")
            or document.get("error_description")
            or document.get("detail")
            or document.get("message")
        ]
    texts = [part.strip() for part in parts if isinstance(part, str) and part.strip()]
    return str(code) if isinstance(code, str | int) else "", ": ".join(dict.fromkeys(texts))


def _is_object(entry: Json) -> bool:
    """Whether an entry of ``data`` can be spoken of. A NUL or half of a surrogate pair, which JSON
    can spell and nobody can write, may be part of a file's id; no folder is asked for with it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or not entry["id"]:
        return False
    return entry.get("type") != "folders" or not _UNWRITABLE.search(entry["id"])


_UNWRITABLE = re.compile("[\0\ud800-\udfff]")


def _origin(parts: object) -> tuple[str, str | None, int | None]:
    scheme = getattr(parts, "scheme", "")
    port = getattr(parts, "port", None) or {"http": 80, "https": 443}.get(scheme)
    return scheme, getattr(parts, "hostname", None), port
