"""The account a connector acts as: who it is, and its access token.

Tokens are fetched with google-auth's public ``refresh`` alone. Its ``before_request`` is not used:
for a service account it would also send the token to iamcredentials.googleapis.com in a background
thread (regional access boundary look-up).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import google.auth.exceptions
import google.auth.transport
import google.oauth2.credentials
import google.oauth2.service_account
import httplib2

from file_connector.connectors.base import Credentials
from file_connector.connectors.retry import asked_wait
from file_connector.errors import (
    ConfigurationError,
    FileConnectorError,
    ReconnectError,
    TransientError,
    one_line,
    redact,
)
from file_connector.models import Json

SCOPE = "https://www.googleapis.com/auth/drive.metadata.readonly"
"""Enough for list, get, changes and about."""

TOKEN_URI = "https://oauth2.googleapis.com/token"

_ServiceCredentials: Any = google.oauth2.service_account.Credentials
_UserCredentials: Any = google.oauth2.credentials.Credentials
# Any, because google-auth is only partly typed

_ADDRESS = re.compile(r"https?://[^\s/]+")
_REQUIRED = {
    "service_account": ("client_email", "private_key"),
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
}
_PASSING = {"internal_failure", "server_error", "temporarily_unavailable"}


_accounts: dict[tuple[str, Callable[[], float]], Account] = {}
_accounts_lock = threading.Lock()


def account_of(credentials: Credentials, monotonic: Callable[[], float]) -> Account:
    """The account of a credential set, one per process: its connectors share an access token, so a
    tick need not fetch one. Arguments and errors are those of ``Account``."""
    data = json.dumps(dict(credentials.data), sort_keys=True, default=str)
    key = hashlib.sha256(f"{credentials.origin}\n{data}".encode()).hexdigest(), monotonic
    with _accounts_lock:
        account = _accounts.get(key)
        if account is None:
            account = _accounts[key] = Account(credentials, monotonic)
        return account


class Account:
    """Who we are to Google. Safe for several threads: one of them refreshes, the others wait.

    Args:
        credentials: the JSON of a service-account key (optional ``subject``: the user it acts as)
            or of an ``authorized_user``.
        monotonic: clock, seconds.

    Raises:
        ConfigurationError: the JSON is of another kind, or lacks a field.
    """

    def __init__(self, credentials: Credentials, monotonic: Callable[[], float]) -> None:
        data = credentials.data
        kind = data.get("type")
        if kind not in _REQUIRED:
            raise ConfigurationError(
                f"the credentials in {credentials.origin} are of type "
                f"'{one_line(redact(kind))[:40]}', not service_account or authorized_user.",
                remedy=_kind_remedy(data),
            )
        missing = [
            key for key in _REQUIRED[kind] if not (isinstance(data.get(key), str) and data[key])
        ]
        if missing:
            raise ConfigurationError(
                f"the {kind} JSON in {credentials.origin} lacks {', '.join(missing)}.",
                remedy="Download or create it anew and use it unchanged.",
            )
        if data.get("token_uri") and not _ADDRESS.match(str(data["token_uri"])):
            raise ConfigurationError(
                f"the token_uri in {credentials.origin} is no http(s) address.",
                remedy="Download or create the JSON anew and use it unchanged.",
            )
        self._data = data
        self._origin = credentials.origin
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._google: Any = None
        self._token: str | None = None
        self._good_until = 0.0
        self.is_service = kind == "service_account"
        self.email: str | None = data.get("client_email") if self.is_service else None
        self.subject: str | None = (data.get("subject") or None) if self.is_service else None

    @property
    def principal(self) -> str:
        """Fingerprint without secrets."""
        if self.is_service:
            return f"{self.email} as {self.subject}" if self.subject else str(self.email)
        seed = f"{self._data['client_id']}\n{self._data['refresh_token']}"
        return "user " + hashlib.sha256(seed.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """For messages."""
        if not self.is_service:
            return "the connected Google user"
        acting = f" acting as {self.subject}" if self.subject else ""
        return f"service account {self.email}{acting}"

    @property
    def share_with(self) -> str:
        """Whom a folder must be shared with."""
        return self.subject or self.email or "the connected Google user"

    @property
    def secrets(self) -> list[str]:
        """What no message may contain."""
        known = [self._data.get(k) for k in ("private_key", "client_secret", "refresh_token")]
        return [s for s in [*known, self._token] if isinstance(s, str)]

    def token(self, transport: httplib2.Http) -> str:
        """A living access token, fetched over ``transport`` if there is none."""
        with self._lock:
            if self._token is None or self._monotonic() >= self._good_until:
                self._refresh(transport)
            assert self._token is not None
            return self._token

    def forget(self, token: str) -> None:
        """Drive refused this token; the next call fetches another, unless that happened already."""
        with self._lock:
            if self._token == token:
                self._token = None

    def _refresh(self, transport: httplib2.Http) -> None:
        google_credentials = self._google_credentials()
        try:
            google_credentials.refresh(_TokenRequest(transport))
        except google.auth.exceptions.RefreshError as error:
            raise self._refused(error) from None
        except (google.auth.exceptions.GoogleAuthError, ValueError, TypeError, KeyError) as error:
            raise _no_token(self._clean(error)) from None
        expiry, lifetime = google_credentials.expiry, 3600.0
        if expiry is not None:  # naive, in UTC
            moment = expiry.replace(tzinfo=expiry.tzinfo or timezone.utc)
            lifetime = (moment - datetime.now(timezone.utc)).total_seconds()
        self._token = str(google_credentials.token)
        self._good_until = self._monotonic() + lifetime - min(225.0, lifetime / 4)

    @property
    def _token_uri(self) -> str:
        return str(self._data.get("token_uri") or TOKEN_URI)

    def _google_credentials(self) -> Any:
        if self._google is None:
            if self.is_service:
                info = {**self._data, "token_uri": self._token_uri}
                try:
                    self._google = _ServiceCredentials.from_service_account_info(
                        info, scopes=[SCOPE], subject=self.subject
                    )
                except (ValueError, TypeError, google.auth.exceptions.GoogleAuthError):
                    raise ConfigurationError(
                        f"the private_key in {self._origin} cannot be read.",
                        remedy="Use the key file exactly as Google Cloud gave it.",
                    ) from None
            else:
                self._google = _UserCredentials(
                    None,
                    refresh_token=self._data["refresh_token"],
                    token_uri=self._token_uri,
                    client_id=self._data["client_id"],
                    client_secret=self._data["client_secret"],
                )
        return self._google

    def _clean(self, text: object) -> str:
        return one_line(redact(text, self.secrets))[:300]

    def _refused(self, error: google.auth.exceptions.RefreshError) -> FileConnectorError:
        """What a refusal of the token endpoint calls for."""
        answer = error.args[1] if len(error.args) > 1 else None
        answer = answer if isinstance(answer, Mapping) else {}
        code, text = str(answer.get("error") or ""), str(answer.get("error_description") or "")
        told = self._clean(": ".join(t for t in (code, text) if t) or error.args[0]).rstrip(". ")
        seen = f"Google refused the credentials of {self.name}: {told}."
        if code in ("unauthorized_client", "access_denied", "admin_policy_enforced"):
            if self.subject:
                client = self._data.get("client_id") or "of the service account"
                return ConfigurationError(
                    seen,
                    remedy=f"A Workspace administrator must allow client id {client} to act for "
                    f"users with scope {SCOPE} (Admin console: domain-wide delegation); it can take"
                    " a day to work. Or remove `subject` from the credentials.",
                )
            return ConfigurationError(
                seen, remedy=f"Ask the Workspace administrator to allow scope {SCOPE}."
            )
        if code == "invalid_scope":
            return ConfigurationError(seen, remedy=f"The account needs scope {SCOPE}.")
        if code in ("invalid_client", "deleted_client", "disabled_client"):
            return ConfigurationError(
                seen,
                remedy=f"Correct client_id and client_secret in {self._origin}: the OAuth client is"
                " unknown, disabled or has another secret.",
            )
        if self.is_service and "short-lived" in text:
            return ConfigurationError(
                seen, remedy="Set this machine's clock: its time differs from Google's."
            )
        if self.subject and "Invalid email" in text:
            return ConfigurationError(
                seen, remedy=f"Correct `subject`: there is no user {self.subject}."
            )
        if self.is_service and "account not found" in text:
            return ReconnectError(
                seen,
                remedy=f"{self.email} does not exist any more: create a service account, share the "
                f"folder with it, and put its key into {self._origin}.",
            )
        if self.is_service and "Signature" in text:
            return ReconnectError(
                seen,
                remedy=f"The key in {self._origin} was deleted, or is not one of {self.email}: "
                "create a new key in Google Cloud and put it there.",
            )
        if self.is_service:
            return ReconnectError(
                seen,
                remedy=f"The key or its account was disabled or deleted. Look at {self.email} in "
                f"Google Cloud, and put a working key of it into {self._origin}.",
            )
        return ReconnectError(
            seen,
            remedy="The user's consent was revoked or has expired: connect the account again and "
            f"put the new authorized_user JSON into {self._origin}.",
        )


class _TokenRequest(google.auth.transport.Request):
    """google-auth's way to the token endpoint. What may pass by itself is raised here, because
    google-auth would sleep and try again on its own."""

    def __init__(self, transport: httplib2.Http) -> None:
        self._transport = transport

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> _TokenResponse:
        try:
            response, content = self._transport.request(
                url, method=method, body=body, headers=dict(headers or {})
            )
        except (OSError, http.client.HTTPException, httplib2.HttpLib2Error) as error:
            self._transport.close()
            raise _no_token(
                f"{url} cannot be reached: {type(error).__name__}: {redact(error)}"
            ) from None
        try:
            answer: Json = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        told = answer.get("error", "") if isinstance(answer, dict) else ""
        passing = not isinstance(told, str) or told in _PASSING
        if response.status >= 500 or response.status in (408, 429) or passing:
            asked = asked_wait(response, datetime.now(timezone.utc))
            raise _no_token(f"{url} answered {response.status}", asked)
        if not isinstance(answer, dict):
            raise _no_token(f"{url} answered {response.status} with something that is not JSON")
        if response.status == 200 and not isinstance(answer.get("access_token"), str):
            raise _no_token(f"{url} answered without one")
        return _TokenResponse(response.status, dict(response), content)


class _TokenResponse(google.auth.transport.Response):
    """What google-auth reads of an answer."""

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self._status, self._headers, self._data = status, headers, data

    @property
    def status(self) -> int:
        return self._status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._headers

    @property
    def data(self) -> bytes:
        return self._data


def _no_token(why: str, retry_after: float | None = None) -> TransientError:
    return TransientError(
        f"no access token: {why}.",
        remedy="The next run tries again. If it stays, look at the network, at proxies, and at "
        "token_uri in the credentials.",
        retry_after=retry_after,
    )


def _kind_remedy(data: Mapping[str, Json]) -> str:
    if "installed" in data or "web" in data:
        return (
            "This is an OAuth client, not a user's consent: create an authorized_user JSON with it,"
            " or use a service-account key."
        )
    return "Use the JSON key of a service account, or an authorized_user JSON."
