"""What a database says when it fails, turned into errors named by the next move.

Messages carry the server's words without statement, parameters, URL or password.
"""

from __future__ import annotations

import errno
import sqlite3

import psycopg2
from sqlalchemy import exc

from file_connector.destination.migrations import MIGRATE
from file_connector.errors import (
    BugError,
    ConfigurationError,
    FileConnectorError,
    TransientError,
    redact,
)

DRIVER_ERRORS = (exc.SQLAlchemyError, psycopg2.Error, sqlite3.Error, OSError)


class RefusedError(BugError):
    """The database objects to what a row holds."""


_CHECK_URL = "Check SUPABASE_DB_URL."

_BY_STATE: dict[str, tuple[type[FileConnectorError], str, str]] = {
    "28P01": (ConfigurationError, "the database does not accept the password", _CHECK_URL),
    "28000": (ConfigurationError, "the database refuses this login", _CHECK_URL),
    "3D000": (ConfigurationError, "the database named in the URL does not exist", _CHECK_URL),
    "42P01": (ConfigurationError, "a table is missing", MIGRATE),
    "42703": (
        ConfigurationError,
        "a column is missing, the tables are old",
        MIGRATE,
    ),
    "42501": (
        ConfigurationError,
        "the database login lacks a permission",
        "Grant it, or let SUPABASE_DB_URL log in as the owner of the tables.",
    ),
    "25006": (
        ConfigurationError,
        "the database is read-only",
        "Point SUPABASE_DB_URL at the primary; Supabase also does this when the disk is full.",
    ),
    "53100": (ConfigurationError, "the database's disk is full", "Free or add disk space."),
    "53300": (TransientError, "the database has no free connection", "Use the pooler's address."),
    "55P03": (TransientError, "another transaction holds a lock we need", ""),
    "57014": (TransientError, "the database cancelled a statement that took too long", ""),
    "40001": (TransientError, "the database could not serialize the transaction", ""),
    "40P01": (TransientError, "the database broke up a deadlock", ""),
}

_BY_WORDS: tuple[tuple[str, type[FileConnectorError], str, str], ...] = (
    ("authentication failed", *_BY_STATE["28P01"]),
    ("wrong password", *_BY_STATE["28P01"]),
    ("tenant or user not found", *_BY_STATE["28000"]),
    ("no pg_hba.conf entry", *_BY_STATE["28000"]),
    (
        "could not translate host name",
        ConfigurationError,
        "the database host in the URL is unknown",
        _CHECK_URL,
    ),
    ("tenant/user", *_BY_STATE["28000"]),
    ("no such user", *_BY_STATE["28000"]),
    ("no such database", *_BY_STATE["3D000"]),
    (
        "unsupported startup parameter",
        ConfigurationError,
        "the pooler refuses an option of the database URL",
        "Remove `options` from SUPABASE_DB_URL, or use the direct address.",
    ),
    (
        "invalid connection option",
        ConfigurationError,
        "the database URL has an option that Postgres does not know",
        _CHECK_URL,
    ),
    (
        "invalid sslmode value",
        ConfigurationError,
        "the database URL has an sslmode that Postgres does not know",
        _CHECK_URL,
    ),
    (
        "server does not support ssl",
        ConfigurationError,
        "the database does not speak TLS, which the URL asks for",
        "Correct sslmode in SUPABASE_DB_URL.",
    ),
    (
        "certificate verify failed",
        ConfigurationError,
        "the database's certificate is not trusted",
        "Correct sslmode or sslrootcert in SUPABASE_DB_URL.",
    ),
    (
        "root certificate file",
        ConfigurationError,
        "the certificate named by sslrootcert is missing",
        "Correct sslrootcert in SUPABASE_DB_URL.",
    ),
    (
        "does not match host name",
        ConfigurationError,
        "the database's certificate is for another host",
        "Write the host in SUPABASE_DB_URL as the certificate names it.",
    ),
    (
        "private key file",
        ConfigurationError,
        "the key named by sslkey cannot be used",
        "Correct sslkey in SUPABASE_DB_URL.",
    ),
    (
        "channel binding",
        ConfigurationError,
        "the database does not offer the channel binding that the URL asks for",
        "Remove channel_binding from SUPABASE_DB_URL.",
    ),
    ("permission denied for database", *_BY_STATE["42501"]),
    ("does not exist", *_BY_STATE["3D000"]),
    (
        "connection refused",
        TransientError,
        "the database refuses connections",
        "Is it running, and are host and port in SUPABASE_DB_URL right?",
    ),
    (
        "timeout expired",
        TransientError,
        "the database did not answer in time",
        "Are host and port in SUPABASE_DB_URL right? Without IPv6, use the pooler's address.",
    ),
    ("too many clients", *_BY_STATE["53300"]),
    ("remaining connection slots", *_BY_STATE["53300"]),
    ("max client connections", *_BY_STATE["53300"]),
    ("too many connections for", *_BY_STATE["53300"]),  # a role's or a database's own limit
    ("no such table", *_BY_STATE["42P01"]),
    ("no such column", *_BY_STATE["42703"]),
    (
        "database is locked",
        TransientError,
        "another process has been writing to the SQLite file for too long",
        "",
    ),
    (
        "readonly database",
        ConfigurationError,
        "the SQLite file is read-only",
        "Make FILE_CONNECTOR_HOME and the file in it writable.",
    ),
    (
        "unable to open database file",
        ConfigurationError,
        "the SQLite file cannot be opened",
        "Make FILE_CONNECTOR_HOME a writable directory.",
    ),
    (
        "disk is full",
        ConfigurationError,
        "the disk that holds the SQLite file is full",
        "Free some space.",
    ),
    (
        "disk i/o error",
        TransientError,
        "the SQLite file cannot be read or written",
        "Is the disk that holds FILE_CONNECTOR_HOME full? Free some space.",
    ),
    (
        "not a database",
        ConfigurationError,
        "the SQLite file is not a database",
        "Move it away; a new one will be made and filled.",
    ),
    (
        "malformed",
        ConfigurationError,
        "the SQLite file is damaged",
        "Move it away; a new one will be made and filled.",
    ),
)

_HOME = "Make FILE_CONNECTOR_HOME a writable directory."
_BY_ERRNO = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EROFS),
        ("the directory for the SQLite file cannot be made", _HOME),
    ),
    errno.ENOSPC: ("the disk that holds the SQLite file is full", "Free some space."),
}


def sqlstate(error: BaseException) -> str | None:
    """The five-character SQLSTATE, if the server said one."""
    state = getattr(_origin(error), "pgcode", None)
    return state if isinstance(state, str) else None


def connection_lost(error: BaseException) -> bool:
    """Whether the connection died, so that what it was doing is unknown."""
    state = sqlstate(error)
    if state is not None:
        return state.startswith(("08", "57P"))
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(_origin(error), (psycopg2.OperationalError, psycopg2.InterfaceError, OSError))


_COMING_BACK = (
    "server closed the connection",
    "terminating connection",
    "the database system is",  # starting up, shutting down
    "server conn crashed",
    "connection reset by peer",
)


def cut_while_connecting(error: BaseException) -> bool:
    """Whether a new connection found somebody who was just leaving: a pooler or a server that
    restarts will be back in a moment. Who does not answer at all is not waited for."""
    words = str(_origin(error)).lower()
    return any(phrase in words for phrase in _COMING_BACK)


def worth_repeating(error: BaseException) -> bool:
    """Whether the same transaction, rolled back, may simply be tried again at once."""
    if sqlstate(error) in ("40001", "40P01"):
        return True
    return connection_lost(error) and isinstance(translated(error), TransientError)


def refuses_rows(error: BaseException) -> bool:
    """Whether the database objects to what a row holds, so that others may be welcome."""
    state = sqlstate(error)
    if state is not None:
        return state[:2] in ("22", "23", "54", "P0")
    return isinstance(_origin(error), (sqlite3.IntegrityError, sqlite3.DataError))


def translated(error: BaseException) -> FileConnectorError:
    """``error`` as one of ours. Raise it ``from None``: the cause may hold parameters."""
    if isinstance(error, FileConnectorError):
        return error
    origin = _origin(error)
    lines = str(origin).strip().splitlines()
    said = redact(lines[0]) if lines else type(origin).__name__
    state = sqlstate(error)
    if state is not None and state in _BY_STATE:
        kind, seen, remedy = _BY_STATE[state]
        return kind(_sentence(seen, said), remedy=remedy)
    if isinstance(origin, OSError) and origin.errno in _BY_ERRNO:
        seen, remedy = _BY_ERRNO[origin.errno]
        return ConfigurationError(_sentence(seen, said), remedy=remedy)
    # Where a code tells, words do not: they may quote a row, or be those of somebody's trigger.
    words = str(origin).lower() if state is None and not refuses_rows(error) else ""
    for phrase, kind, seen, remedy in _BY_WORDS:
        if phrase in words:
            return kind(_sentence(seen, said), remedy=remedy)
    if state is not None and state[:2] in ("08", "53", "55", "57", "58"):
        return TransientError(f"the database failed ({state}): {said}")
    if state is None and isinstance(
        origin,
        (
            psycopg2.OperationalError,
            psycopg2.InterfaceError,
            sqlite3.OperationalError,
            exc.TimeoutError,
            OSError,
        ),
    ):
        return TransientError(f"the database failed: {said}")
    kind = RefusedError if refuses_rows(error) else BugError
    return kind(f"the database refuses what we sent ({state or type(origin).__name__}): {said}")


def _sentence(seen: str, said: str) -> str:
    """In brackets: what follows "password:" would be taken for one."""
    return f"{seen} ({said})"


def _origin(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, exc.DBAPIError) and error.orig else error
