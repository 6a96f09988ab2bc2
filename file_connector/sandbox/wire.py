"""Requests and responses between the HTTP server and the two APIs, and the log of all calls."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, unquote_plus

TOKEN_KINDS = frozenset({"drive.token", "aps.token"})


@dataclass
class Request:
    """One HTTP request, decoded. Header names are lower case."""

    method: str
    raw_path: str
    query_text: str
    headers: Mapping[str, str]
    body: bytes = b""
    provider: str = ""
    kind: str = "unknown"
    account: str | None = None
    """Who is calling, once the token was recognised: an e-mail address (Drive), a user id or a
    client id (APS)."""
    client: str | None = None

    def __post_init__(self) -> None:
        self.segments = [unquote(part) for part in self.raw_path.strip("/").split("/")]
        self.params = parse_qs(self.query_text, keep_blank_values=True)
        self.path = unquote(self.raw_path)
        self.target = self.path + ("?" + unquote_plus(self.query_text) if self.query_text else "")

    def get(self, name: str, default: str = "") -> str:
        """The last value of a query parameter."""
        values = self.params.get(name)
        return values[-1] if values else default

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean query parameter."""
        value = self.get(name).lower()
        return default if not value else value == "true"

    @property
    def form(self) -> dict[str, str]:
        """The body as a form."""
        fields = parse_qs(self.body.decode("utf-8", "replace"), keep_blank_values=True)
        return {name: values[-1] for name, values in fields.items()}

    @property
    def bearer(self) -> str | None:
        """The bearer token, if one was sent."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    @property
    def basic(self) -> tuple[str, str] | None:
        """User name and password of Basic authentication, if sent."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, _, secret = base64.b64decode(token).decode().partition(":")
        except ValueError:
            return None
        return name, secret


@dataclass
class Response:
    """What goes back. ``payload`` is the JSON value while there is one; faults may change it."""

    status: int = 200
    payload: Any = None
    text: str | bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json; charset=UTF-8"

    def encoded(self) -> bytes:
        """The body as bytes."""
        if self.text is not None:
            return self.text if isinstance(self.text, bytes) else self.text.encode()
        if self.payload is None:
            return b""
        return json.dumps(self.payload, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "surrogatepass"
        )


@dataclass(frozen=True)
class Call:
    """One request as it was answered. Holds no secrets: neither headers nor bodies of token calls.

    Attributes:
        n: running number, from 1.
        kind: class of call: ``drive.files.list``, ``drive.files.get``, ``drive.changes.list``,
            ``drive.changes.getStartPageToken``, ``drive.drives.list``, ``drive.drives.get``,
            ``drive.about``, ``drive.token``; ``aps.hubs``, ``aps.hub``, ``aps.projects``,
            ``aps.project``, ``aps.topFolders``, ``aps.folder``, ``aps.contents``, ``aps.search``,
            ``aps.item``, ``aps.tip``, ``aps.versions``, ``aps.version``, ``aps.parent``,
            ``aps.token``; ``unknown``.
        account: who called (None if the token was not recognised).
        client: APS client id of the caller.
        user_id: value of ``x-user-id``, if sent.
        status: HTTP status sent, 0 if the connection was cut or the answer withheld.
        fault: names of the faults that touched this call.
        at: time.monotonic() when it arrived.
        grant: for token calls, the grant type.
    """

    n: int
    provider: str
    kind: str
    method: str
    path: str
    params: Mapping[str, Sequence[str]]
    account: str | None
    client: str | None
    user_id: str | None
    status: int
    fault: str
    at: float
    grant: str = ""

    def get(self, name: str, default: str = "") -> str:
        """The last value of a query parameter."""
        values = self.params.get(name)
        return values[-1] if values else default


class RequestLog:
    """Every call the sandbox answered, in order of arrival."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._arrived = 0
        self._lock = threading.Lock()

    def arrive(self) -> int:
        """A request came in; its number."""
        with self._lock:
            self._arrived += 1
            return self._arrived

    def record(self, n: int, request: Request, status: int, fault: str, at: float) -> None:
        """Note how request ``n`` ended."""
        token = request.kind in TOKEN_KINDS
        call = Call(
            n=n,
            provider=request.provider,
            kind=request.kind,
            method=request.method,
            path=request.path,
            params={} if token else request.params,
            account=request.account,
            client=request.client,
            user_id=request.headers.get("x-user-id"),
            status=status,
            fault=fault,
            at=at,
            grant=request.form.get("grant_type", "") if token else "",
        )
        with self._lock:
            self._calls.append(call)

    def mark(self) -> int:
        """A point in the log, for ``since``."""
        with self._lock:
            return len(self._calls)

    def calls(
        self,
        kind: str | None = None,
        *,
        since: int = 0,
        provider: str | None = None,
        account: str | None = None,
        tokens: bool = False,
    ) -> list[Call]:
        """The calls after ``since``, token requests left out unless asked for by kind or flag.

        Args:
            kind: exact kind, or a prefix ending in ``*`` (``aps.*``).
            provider: ``drive`` or ``aps``.
        """
        with self._lock:
            calls = self._calls[since:]
        return [
            call
            for call in calls
            if (tokens or kind is not None or call.kind not in TOKEN_KINDS)
            and (provider is None or call.provider == provider)
            and (account is None or call.account == account)
            and (
                kind is None
                or call.kind == kind
                or (kind.endswith("*") and call.kind.startswith(kind[:-1]))
            )
        ]

    def count(
        self,
        kind: str | None = None,
        *,
        since: int = 0,
        provider: str | None = None,
        account: str | None = None,
        tokens: bool = False,
    ) -> int:
        """How many ``calls`` there are."""
        return len(self.calls(kind, since=since, provider=provider, account=account, tokens=tokens))

    def counters(self, *, since: int = 0) -> Counter[str]:
        """Number of calls per kind, token requests included under their own kinds."""
        return Counter(call.kind for call in self.calls(since=since, tokens=True))

    def clear(self) -> None:
        """Forget everything so far."""
        with self._lock:
            self._calls.clear()
