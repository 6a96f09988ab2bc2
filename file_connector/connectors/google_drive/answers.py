"""What an answer of Drive means: every error answer becomes one error of ``errors.py``.

Decided by status and by the reason in the body, never by message texts.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from file_connector.connectors.retry import asked_wait
from file_connector.errors import (
    BugError,
    ConfigurationError,
    CursorRejectedError,
    FileConnectorError,
    ForbiddenError,
    NotFoundError,
    ReconnectError,
    ThrottledError,
    TransientError,
    one_line,
    redact,
)
from file_connector.models import Json

NOT_WITHIN_A_RUN = 3600.0
"""Seconds to wait after a daily limit: longer than any run's budget, so the run ends here."""

_THROTTLED = {
    "userRateLimitExceeded",
    "rateLimitExceeded",
    "RATE_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
}
_DAILY = {"dailyLimitExceeded", "dailyLimitExceededUnreg"}
_SCOPE = {"insufficientPermissions", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}
_DISABLED = {"accessNotConfigured", "SERVICE_DISABLED"}
_OURS = {"supportsTeamDrivesRequired", "orderByContainsDuplicateSortKeys"}


class PageRefusedError(CursorRejectedError):
    """Drive does not accept a page token."""


class BadRequestError(BugError):
    """400 that blames ``location`` (empty: nothing in particular)."""

    def __init__(self, message: str, location: str) -> None:
        super().__init__(message)
        self.location = location


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer taken apart.

    Attributes:
        reasons: of errors[], details[] and status, the most telling first.
        location: the parameter it blames.
        from_drive: the body is Drive's envelope, not some proxy's page.
    """

    status: int
    reasons: tuple[str, ...]
    location: str
    message: str
    from_drive: bool


def read_refusal(status: int, content: bytes) -> Refusal:
    """An error answer taken apart; never fails."""
    try:
        body: Json = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return Refusal(status, (), "", "", False)
    errors = [e for e in _list(error.get("errors")) if isinstance(e, dict)]
    details = [d for d in _list(error.get("details")) if isinstance(d, dict)]
    reasons = [e.get("reason") for e in errors] + [d.get("reason") for d in details]
    reasons.append(error.get("status"))
    location = next((e["location"] for e in errors if isinstance(e.get("location"), str)), "")
    return Refusal(
        status,
        tuple(r for r in reasons if isinstance(r, str)),
        location,
        str(error.get("message", "")),
        True,
    )


def error_of(
    status: int,
    headers: Mapping[str, str],
    content: bytes,
    *,
    account: str,
    now: datetime,
    secrets: Collection[str] = (),
) -> FileConnectorError:
    """The error an answer with ``status`` >= 300 stands for.

    Args:
        account: who we are, for messages.
        now: to read a Retry-After that is a date.
        secrets: literal values no message may contain.
    """
    refusal = read_refusal(status, content)
    reasons = set(refusal.reasons)
    reason = refusal.reasons[0] if refusal.reasons else ""
    message = one_line(redact(refusal.message, secrets))[:300]
    seen = f"Drive answered {status}" + (f" {reason}" if reason else "")
    seen += f": {message}" if message else "."
    retry_after = asked_wait(headers, now)

    if status == 429 or (status == 403 and reasons & _THROTTLED):
        return ThrottledError(
            seen, remedy="Too many calls; the next run goes on.", retry_after=retry_after
        )
    if status == 403 and reasons & _DAILY:
        return ThrottledError(
            seen,
            remedy="The project's own daily limit is used up; raise it in Google Cloud or wait.",
            retry_after=NOT_WITHIN_A_RUN,
        )
    if status >= 500 or status == 408:
        return TransientError(seen, remedy="The next run tries again.", retry_after=retry_after)
    if status == 401:
        return ReconnectError(
            f"{seen.removesuffix('.')}. The access token of {account} is not accepted.",
            remedy="Connect the account again.",
        )
    if status == 410 or "pageTokenExpired" in reasons or refusal.location == "pageToken":
        return PageRefusedError(seen)
    if not refusal.from_drive:
        return TransientError(
            f"{seen.removesuffix('.')}. The body is not Drive's.",
            remedy="If it stays, something between us and Drive answers: look at proxies and at "
            "GOOGLE_DRIVE_API_ENDPOINT.",
            retry_after=retry_after,
        )
    if status == 404:
        return NotFoundError(seen)
    if status == 403:
        return _forbidden(seen, reasons, account)
    return BadRequestError(seen, refusal.location)


def _forbidden(seen: str, reasons: set[str], account: str) -> FileConnectorError:
    if reasons & _SCOPE:
        return ReconnectError(
            seen,
            remedy=f"The token of {account} lacks the scope drive.metadata.readonly: connect the "
            "account again and grant it.",
        )
    if reasons & _DISABLED:
        return ConfigurationError(
            seen,
            remedy=f"Enable the Google Drive API in the Google Cloud project of {account}; it takes"
            " a few minutes to work.",
        )
    if "domainPolicy" in reasons:
        return ConfigurationError(
            seen, remedy="Ask the Workspace administrators to allow Drive apps."
        )
    if reasons & _OURS:
        return BugError(seen)
    return ForbiddenError(seen)


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
