"""Transactions over SQLAlchemy: what is repeated when a connection or a transaction fails, and how
it is found out whether a COMMIT without an answer was carried out.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import tenacity
from sqlalchemy import Connection, Engine

from file_connector.destination.failures import (
    DRIVER_ERRORS,
    connection_lost,
    cut_while_connecting,
    translated,
    worth_repeating,
)

T = TypeVar("T")

ATTEMPTS = 5
WAITS = tenacity.wait_exponential(multiplier=0.1)


class Transactions(ABC):
    """One database.

    Args:
        engine: made by the subclass; opens nothing before first use.
        sleep: waits, in seconds; only ever called outside transactions.
    """

    def __init__(self, engine: Engine, sleep: Callable[[float], None] = time.sleep) -> None:
        self._engine = engine
        self._sleep = sleep
        self._ready = False
        self._making_ready = threading.Lock()

    @abstractmethod
    def _make_ready(self) -> None:
        """Before first use: create or check the tables."""

    @abstractmethod
    def _begin(self, conn: Connection, durable: bool) -> None:
        """Open a transaction that will write. ``durable``: what it commits survives a power cut."""

    def _read(self, ask: Callable[[Connection], T]) -> T:
        """What ``ask`` finds; asked again after a lost connection."""
        self._ensure_ready()
        return self._asked(ask)

    def _asked(self, ask: Callable[[Connection], T]) -> T:
        """The same before the tables are ready."""

        def once() -> T:
            with self._connection() as conn:
                return ask(conn)

        return self._repeated(once, worth_repeating)

    def _write(
        self,
        work: Callable[[Connection], T],
        landed: Callable[[Connection], bool] | None = None,
        *,
        durable: bool = True,
    ) -> T:
        """``work`` in one transaction.

        Deadlocks, serialization failures and connections lost before COMMIT are repeated: nothing
        was stored. When the connection dies at COMMIT, ``landed`` is asked on a new one whether the
        transaction was stored (it must wait for the old one to end, by a row lock); without it,
        storing twice does no harm.
        """
        self._ensure_ready()
        unanswered: list[T] = []

        def once() -> T:
            if unanswered and landed is not None and self._write(landed):
                return unanswered.pop()
            unanswered.clear()
            with self._connection() as conn:
                self._begin(conn, durable)
                result = work(conn)
                try:
                    conn.commit()
                except DRIVER_ERRORS as error:
                    if connection_lost(error):
                        unanswered.append(result)
                    raise
            return result

        return self._repeated(once, worth_repeating)

    def _ensure_ready(self) -> None:
        if self._ready:
            return
        with self._making_ready, translating():
            if not self._ready:
                self._make_ready()
                self._ready = True

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection; asked for again if it is cut while it is being made. After an error it is
        rolled back and, if it was lost, kept out of the pool."""
        with self._repeated(self._engine.connect, cut_while_connecting, told=False) as conn:
            try:
                yield conn
            except DRIVER_ERRORS as error:
                try:
                    if connection_lost(error):
                        conn.invalidate()
                    conn.rollback()
                except DRIVER_ERRORS:
                    conn.invalidate()
                raise

    def _repeated(
        self,
        work: Callable[[], T],
        again: Callable[[BaseException], bool],
        *,
        attempts: int = ATTEMPTS,
        waits: tenacity.wait.wait_base = WAITS,
        told: bool = True,
    ) -> T:
        """``work()``, repeated after errors that are worth it (``again``).

        Args:
            told: raise errors of the driver as ours.
        """
        repeating = tenacity.Retrying(
            retry=tenacity.retry_if_exception(again),
            stop=tenacity.stop_after_attempt(attempts),
            wait=waits,
            sleep=self._sleep,
            reraise=True,
        )
        if not told:
            return repeating(work)
        with translating():
            return repeating(work)


@contextmanager
def translating() -> Iterator[None]:
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translated(error) from None
