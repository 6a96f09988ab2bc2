"""What a database does to the transaction that is about to be stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2
from sqlalchemy import Connection, event

from file_connector.destination.sql_store import SqlStore

Fault = Callable[[Connection], object]


class Trouble:
    """``hits`` transactions have met the fault."""

    def __init__(self) -> None:
        self.hits = 0


def _says(code: str) -> Fault:
    """The server fails with this SQLSTATE."""
    raising = f"do $$ begin raise exception 'trouble' using errcode = '{code}'; end $$"
    return lambda conn: conn.exec_driver_sql(raising)


def _cut_before(conn: Connection) -> None:
    conn.exec_driver_sql("select pg_terminate_backend(pg_backend_pid())")


def _cut_after(conn: Connection) -> None:
    """It is stored, but the answer is lost."""
    driver: Any = conn.connection
    driver.commit()
    _cut_before(conn)


def _refused(conn: Connection) -> None:
    conn.invalidate()
    raise psycopg2.OperationalError("connection refused")


def _fails(said: str) -> Fault:
    def fail(conn: Connection) -> None:
        raise sqlite3.OperationalError(said)

    return fail


FAULTS: Mapping[str, Mapping[str, Fault]] = {
    "postgres": {
        "refused": _refused,
        "cut_before_commit": _cut_before,
        "cut_after_commit": _cut_after,
        "deadlock": _says("40P01"),
        "serialization_failure": _says("40001"),
        "statement_timeout": _says("57014"),
        "disk_full": _says("53100"),
    },
    "sqlite": {
        "locked": _fails("database is locked"),
        "disk_full": _fails("database or disk is full"),
        "io_error": _fails("disk I/O error"),
    },
}

PASSES = {"cut_before_commit", "cut_after_commit", "deadlock", "serialization_failure", "refused"}
"""A single one of these is repeated, and nobody notices."""


@contextmanager
def troubled(store: SqlStore, fault: Fault, nth: int, *, once: bool) -> Iterator[Trouble]:
    """From the n-th transaction on that would be stored, each meets the fault, or only one does."""
    trouble, seen = Trouble(), 0

    def strike(conn: Connection) -> None:
        nonlocal seen
        seen += 1
        if seen == nth or (seen > nth and not once):
            trouble.hits += 1
            fault(conn)

    event.listen(store._engine, "commit", strike)
    try:
        yield trouble
    finally:
        event.remove(store._engine, "commit", strike)
