"""Every error File Connector raises on purpose, grouped by what the reader should do next.

FileConnectorError
├── ConfigurationError    fix the configuration: YAML, environment, a grant; retrying cannot help
├── ReconnectError        the account must be connected again by a person (revoked, expired, scope)
├── TransientError        nothing to do: the next run tries again
│   ├── ThrottledError      the provider asked us to slow down
│   │   └── BudgetError       we slow ourselves down, before it has to
│   ├── BusyError           another run is writing this endpoint
│   └── ConflictError       another run moved the cursor first; nothing of ours was written
├── CursorRejectedError   the provider refuses our cursor; the engine lists everything anew
├── ForbiddenError        one part of the tree may not be seen; the run goes on and ends `partial`
├── NotFoundError         one object is gone or hidden; the caller knows what that means
└── BugError              our own mistake; please report it

A message names what was seen; ``remedy`` says what to do. ``endpoint`` is filled in by the engine,
because connectors do not know which endpoint they serve. Messages never hold secrets: everything
that comes from outside passes through ``redact`` first.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from datetime import datetime


class FileConnectorError(Exception):
    """Base of the tree. ``str(error)`` is one readable sentence or two: what was seen, what to do.

    Args:
        message: what was seen, with the offending value, without secrets.
        remedy: what the reader should do next, as an imperative sentence; empty if nothing.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.endpoint: str | None = None

    def __str__(self) -> str:
        where = f"endpoint '{self.endpoint}': " if self.endpoint else ""
        message = self.message
        if self.remedy:
            ended = message.endswith((".", "!", "?", ".)"))
            message += f"{'' if ended else '.'} {self.remedy}"
        return one_line(redact(f"{where}{message}"))


class ConfigurationError(FileConnectorError):
    """Something a person wrote or granted is wrong; the same call will fail until it is mended."""


class ReconnectError(FileConnectorError):
    """The credential is dead (revoked, expired for good, lacks a scope): connect it again."""


class TransientError(FileConnectorError):
    """A failure that is expected to pass by itself.

    Args:
        retry_after: seconds the provider asked us to wait, if it said so.
    """

    def __init__(self, message: str, *, remedy: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


class ThrottledError(TransientError):
    """Too many calls (429, or a 403 whose reason is a rate limit)."""


class BudgetError(ThrottledError):
    """Our own budget of calls, shared by all endpoints of one sign-in, is used up for longer than
    the caller would wait. Says nothing about the provider or the endpoint."""


class BusyError(TransientError):
    """Another run holds this endpoint's lease. Raised by the store alone, before a run began.

    Attributes:
        free_at: when the lease ends if nobody renews it; None if the other run is known to live.
    """

    free_at: datetime | None = None


class ConflictError(TransientError):
    """Compare-and-set on the cursor lost, or the lease was taken over; the transaction was rolled
    back."""


class CursorRejectedError(FileConnectorError):
    """The provider refuses the stored cursor (Drive page token, for example)."""


class ForbiddenError(FileConnectorError):
    """A permission refusal about one object, not about the whole credential."""


class NotFoundError(FileConnectorError):
    """One object does not exist for this credential (deleted, or hidden from it)."""


class BugError(FileConnectorError):
    """An invariant of ours does not hold."""

    def __init__(self, message: str, *, remedy: str = "Please report it.") -> None:
        super().__init__(message, remedy=remedy)


_SECRET_SHAPES = (
    re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{6,}"),
    re.compile(
        r"(?i)\b(access_token|refresh_token|client_secret|private_key|assertion|password|apikey"
        r"|api_key)([\"']?\s*[=:]\s*[\"']?)(?!\s)[^\s\"'&,;}]{4,}"
    ),
    re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL
    ),
    re.compile(r"(?i)\b(postgres(?:ql)?(?:\+\w+)?://[^:/\s@]*):\S*@"),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*"),
    re.compile(r"\bya29\.[\w.-]+"),
    re.compile(r"\bsb_secret_[\w-]+"),
)
_VAGUE_NAMES = re.compile(r"(?i)\b(code|token)(=|[\"']\s*:\s*[\"'])[^\s\"'&,;}]{4,}")
"""Words of plain sentences, too ("no access token: <url> answered 500"); secrets only when they are
a parameter or a quoted key."""


_remembered: frozenset[str] = frozenset()
_remembering = threading.Lock()


def remember_secrets(values: Iterable[str]) -> None:
    """From now on ``redact`` removes these literal values too, in this whole process."""
    global _remembered  # noqa: PLW0603 - a process has one memory of what it must not say
    with _remembering:
        _remembered |= {v for v in values if len(v) >= 4}


def redact(text: object, secrets: Iterable[str] = ()) -> str:
    """``text`` as a string in which everything that looks like a credential reads ``[redacted]``,
    and every secret this process was told of by ``remember_secrets``.

    Args:
        text: anything printable, typically an exception or a response body.
        secrets: literal values known to be secret; replaced wherever they occur.
    """
    out = str(text)
    literal = _remembered.union(s for s in secrets if len(s) >= 4)
    for secret in sorted((s for s in literal if s in out), key=len, reverse=True):
        out = out.replace(secret, "[redacted]")
    out = _SECRET_SHAPES[2].sub("[redacted]", out)
    out = _SECRET_SHAPES[0].sub(r"\1 [redacted]", out)
    out = _SECRET_SHAPES[1].sub(r"\1\2[redacted]", out)
    out = _VAGUE_NAMES.sub(r"\1\2[redacted]", out)
    out = _SECRET_SHAPES[3].sub(r"\1:[redacted]@", out)
    for shape in _SECRET_SHAPES[4:]:
        out = shape.sub("[redacted]", out)
    return out


def one_line(text: str) -> str:
    """``text`` with all characters escaped that could forge a line of a log or hide in it: line
    breaks, terminal commands, what turns the direction of writing. Blanks of other widths stay, and
    so do the joiners that emoji and several scripts are written with."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _HARMLESS else _escaped(c) for c in text)


_HARMLESS = frozenset("\xa0\u202f\u2009\u3000\u200c\u200d")


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
