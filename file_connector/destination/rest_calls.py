"""Calls of the database's functions over Supabase's REST API, and what its answers mean.

Only here are calls repeated: each function may be called twice, or is told that it may have been.
The key travels in headers and appears nowhere else.
"""

from __future__ import annotations

import json
import re
import string
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NameResolutionError, NewConnectionError

from file_connector.connectors.retry import asked_wait
from file_connector.errors import (
    BugError,
    ConfigurationError,
    ConflictError,
    FileConnectorError,
    ThrottledError,
    TransientError,
    redact,
    remember_secrets,
)
from file_connector.models import Json

ATTEMPTS = 5
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
LONGEST_WAIT = 30.0
"""A gateway that asks for more than this is left to the next run."""

MIGRATE = (
    "Apply the files of file_connector/destination/supabase/migrations with `supabase db push`, or "
    "run `file-connector migrate` once with SUPABASE_DB_URL set."
)
_CHECK_URL = "SUPABASE_URL reads https://<project>.supabase.co; is it right?"
_CHECK_KEY = (
    "SUPABASE_SECRET_KEY is the secret key (sb_secret_...) or the service_role key of the same "
    "project; the publishable and the anon key may do nothing here."
)

_EXPOSE = (
    "Add `connectors` to the exposed schemas of the project's API settings, or set SUPABASE_DB_URL."
)

_MISSING = ("PGRST202", "PGRST204", "PGRST205", "42P01", "42703", "42883")
_TOKEN = ("PGRST300", "PGRST301", "PGRST302", "PGRST303", "22023")
"""The last: the key names a role that the database does not have."""
_PASSING = ("PGRST000", "PGRST001", "PGRST002", "PGRST003")
_PASSING_CLASSES = ("08", "40", "53", "55", "57", "58")


class Calls:
    """Calls functions of the database. Safe for several threads.

    Args:
        url: root of the REST API, ``https://<project>.supabase.co/rest/v1``.
        key: a secret key or a service_role key.
        sleep: waits, in seconds, before a call is repeated.
        read_seconds: how long to wait for an answer.

    Raises ConfigurationError if ``url`` or ``key`` cannot be what they should be.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        if _ADDRESS.fullmatch(url) is None:
            raise ConfigurationError("SUPABASE_URL is not an http(s) address.", remedy=_CHECK_URL)
        if not key or not set(key) <= _IN_A_KEY:
            raise ConfigurationError("SUPABASE_SECRET_KEY is not a key.", remedy=_CHECK_KEY)
        remember_secrets([key])
        self._root = f"{url.rstrip('/')}/rpc/"
        self._sleep = sleep
        self._timeout = (min(CONNECT_SECONDS, read_seconds), read_seconds)
        self._session = requests.Session()
        self._session.auth = _Key(key)  # and not a header, which ~/.netrc would replace
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=10))

    def call(
        self,
        function: str,
        arguments: Mapping[str, Json],
        *,
        tell: bool = False,
        schema: str | None = None,
    ) -> Json:
        """What ``file_connector_<function>`` returns, or the function of that name in ``schema``.

        What passes (connections lost, database busy or restarting, gateway overloaded) is repeated.
        ``tell`` adds the argument ``again``: whether this call may have been carried out already.
        """
        error: FileConnectorError
        url = self._root + (function if schema else f"file_connector_{function}")
        headers = {"Content-Type": "application/json"}
        if schema:
            headers["Content-Profile"] = schema
        for attempt in range(1, ATTEMPTS + 1):
            given = {**arguments, "again": attempt > 1} if tell else arguments
            try:
                answer = self._session.post(
                    url,
                    # With its keys told here, PostgREST hands the body on without reading it.
                    params={"columns": ",".join(given)} if given else None,
                    data=json.dumps(given, separators=(",", ":")).encode(),
                    headers=headers,
                    timeout=self._timeout,
                    allow_redirects=False,
                )
                if answer.status_code in (200, 204):
                    # Nothing at all is the answer of a function without a result, with status 204.
                    return None if answer.status_code == 204 else answer.json()
                error, repeat = _told(answer)
            except (requests.RequestException, ValueError) as failure:
                error, repeat = _unanswered(failure)
            asked = error.retry_after if isinstance(error, TransientError) else None
            if not repeat or attempt == ATTEMPTS or (asked or 0.0) > LONGEST_WAIT:
                raise error from None
            self._sleep(0.25 * 2**attempt if asked is None else asked)
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._session.close()


_ADDRESS = re.compile(r"https?://[\w.-]+(:\d+)?(/[\w./-]*)?", re.ASCII)
_IN_A_KEY = frozenset(string.ascii_letters + string.digits + "-_.~+/=")


class _Key(requests.auth.AuthBase):
    """Both generations of keys go into both headers."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["apikey"] = self._key
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _unanswered(failure: Exception) -> tuple[FileConnectorError, bool]:
    """A call without an answer that can be read: as one of our errors, and whether to repeat it."""
    cause: object = failure
    for _ in range(4):  # requests wraps what urllib3 wraps
        if isinstance(cause, NameResolutionError):
            return ConfigurationError(
                "the host in SUPABASE_URL is unknown", remedy=_CHECK_URL
            ), False
        if isinstance(cause, NewConnectionError):
            return TransientError(
                "nobody answers at the host and port of SUPABASE_URL", remedy=_CHECK_URL
            ), True
        inner = getattr(cause, "reason", None) or next(iter(getattr(cause, "args", ())), None)
        cause = inner
    if isinstance(failure, requests.exceptions.SSLError):
        return (
            ConfigurationError("the certificate of SUPABASE_URL is not trusted", remedy=_CHECK_URL),
            False,
        )
    if isinstance(failure, requests.Timeout):
        return TransientError("Supabase did not answer in time"), True
    return TransientError(f"the call to Supabase was cut off ({type(failure).__name__})"), True


def _told(answer: requests.Response) -> tuple[FileConnectorError, bool]:
    """A refusal: as one of our errors, decided by its code where it has one, and whether to repeat
    the call."""
    status = answer.status_code
    try:
        envelope = answer.json()
    except ValueError:
        envelope = None
    told = envelope if isinstance(envelope, dict) else {}
    code = told.get("code")
    said = redact(told.get("message") or answer.reason or "no reason given")[:300]
    if not isinstance(code, str):
        return _by_status(status, said, answer)
    where = f"{said} ({code})"
    if code == "PT409":
        return ConflictError(said), False
    if code == "PGRST106":
        return (
            ConfigurationError(f"the REST API does not serve this schema: {where}", remedy=_EXPOSE),
            False,
        )
    if code in _MISSING:
        # After a migration the API needs a moment to see what is new.
        return (
            ConfigurationError(f"the database lacks what we call: {where}", remedy=MIGRATE),
            code in ("PGRST202", "PGRST204", "PGRST205"),
        )
    if code == "42501":
        return (
            ConfigurationError(f"the key lacks a permission: {where}", remedy=_CHECK_KEY),
            False,
        )
    if code in _TOKEN:
        return ConfigurationError(f"Supabase refuses the key: {where}", remedy=_CHECK_KEY), False
    if code == "25006":
        return (
            ConfigurationError(
                f"the database is read-only: {where}",
                remedy="Supabase also does this when the disk is full: free or add space.",
            ),
            False,
        )
    if code == "53100":
        return (
            ConfigurationError(
                f"the database's disk is full: {where}", remedy="Free or add disk space."
            ),
            False,
        )
    if code in _PASSING or (code[:2] in _PASSING_CLASSES and len(code) == 5):
        return TransientError(f"the database could not do it now: {where}"), True
    return (
        BugError(f"the database refuses what we sent: {where}"),
        False,
    )


def _by_status(
    status: int, said: str, answer: requests.Response
) -> tuple[FileConnectorError, bool]:
    """Words of a gateway or proxy, not of the database."""
    said = f"HTTP {status}: {said}"
    after = asked_wait(answer.headers, datetime.now(timezone.utc))
    if status == 429:
        return ThrottledError(f"Supabase asks to slow down ({said})", retry_after=after), True
    if status >= 500 or status == 408:
        return TransientError(f"Supabase fails ({said})", retry_after=after), True
    if status in (401, 403):
        return ConfigurationError(f"Supabase refuses the key ({said})", remedy=_CHECK_KEY), False
    if status == 413:
        return BugError(f"Supabase finds a batch too large ({said})"), False
    return (
        ConfigurationError(f"no Supabase REST API answers there ({said})", remedy=_CHECK_URL),
        False,
    )
