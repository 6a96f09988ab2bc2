"""What the store lends to connectors: one call budget per provider identity, and a safe for
rotating tokens. Both are rows, shared by all processes of a deployment."""

from __future__ import annotations

import json
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta

from cryptography.fernet import InvalidToken
from sqlalchemy import Connection, select, update

from file_connector.destination.sealing import fernet
from file_connector.destination.sql_store import SqlStore, living
from file_connector.destination.tables import dumps, rate_limits, token_locks, tokens
from file_connector.errors import (
    BudgetError,
    ConfigurationError,
    ConflictError,
    TransientError,
)
from file_connector.models import Json

LONGEST_WAIT = timedelta(seconds=120)
"""No slot is reserved further ahead, whoever asks."""
BURST_SHARE = 10
"""A tenth of a minute's budget may go out at once."""

LOCK_SECONDS = 90.0
"""How long a killed process keeps a token locked; longer than any refresh takes."""

POLL_SECONDS = 0.25


class Limiter(ABC):
    """A token bucket per key. Each caller reserves the next free slot in one short transaction and
    then waits for it outside, so slots are given out in the order of asking."""

    def __init__(self, sleep: Callable[[float], None], patience_seconds: float) -> None:
        self._sleep = sleep
        self._patience = min(timedelta(seconds=patience_seconds), LONGEST_WAIT)

    @abstractmethod
    def _reserve(
        self, key: str, spacing: timedelta, slack: timedelta, longest: timedelta
    ) -> timedelta:
        """The wait for the next slot, reserved unless it is longer than ``longest``."""

    def acquire(self, key: str, per_minute: int) -> None:
        """Wait for a slot. Never more than ``per_minute`` slots fall into any 60 s.

        Raises BudgetError, reserving nothing, if that would take longer than the patience lent.
        """
        per_minute = max(per_minute, 1)
        burst = max(per_minute // BURST_SHARE, 1)
        spacing = timedelta(microseconds=-(-60_000_000 // (per_minute - burst + 1)))  # rounded up
        wait = self._reserve(key, spacing, spacing * (burst - 1), self._patience)
        if wait > self._patience:
            raise BudgetError(
                f"our own budget of {per_minute} calls a minute, which all endpoints of this "
                f"sign-in share, is used up for the next {wait.total_seconds():.0f} s.",
                remedy="It goes on by itself.",
                retry_after=wait.total_seconds(),
            )
        if wait:
            self._sleep(wait.total_seconds())


class SqlRateLimiter(Limiter):
    def __init__(self, store: SqlStore, patience_seconds: float) -> None:
        super().__init__(store._sleep, patience_seconds)
        self._store = store

    def _reserve(
        self, key: str, spacing: timedelta, slack: timedelta, longest: timedelta
    ) -> timedelta:
        def reserve(conn: Connection) -> timedelta:
            held = conn.scalar(
                select(rate_limits.c.free_at).where(rate_limits.c.key == key).with_for_update()
            )
            if held is None:
                self._store._ensure_row(
                    conn, rate_limits, {"key": key, "free_at": self._store._now(conn)}
                )
                held = conn.scalars(
                    select(rate_limits.c.free_at).where(rate_limits.c.key == key).with_for_update()
                ).one()
            now = self._store._now(conn)
            if held - now > LONGEST_WAIT + slack + spacing:
                held = now  # further than we ever reserve: the clock was set back
            wait = max(held - slack - now, timedelta())
            if wait <= longest:
                free_at = max(held, now) + spacing
                self._store._merge(conn, rate_limits, [{"key": key, "free_at": free_at}])
            return wait

        return self._store._write(reserve, durable=False)


class Vault(ABC):
    """Tokens in table ``tokens``, encrypted with a Fernet key that only the environment holds."""

    def __init__(self, key: str, sleep: Callable[[float], None]) -> None:
        self._sleep = sleep
        self._held: dict[tuple[str, int], tuple[str, datetime]] = {}
        self._fernet = fernet(key)

    @abstractmethod
    def _take(self, key: str, holder: str, seconds: float) -> datetime | None:
        """Lock ``key`` for that long; since when it is, or None if somebody else holds it."""

    @abstractmethod
    def _free(self, key: str, holder: str, since: datetime) -> None:
        """End a lock; nothing if ``holder`` has lost it."""

    @abstractmethod
    def _fetch(self, key: str) -> str | None:
        """The stored secret, encrypted."""

    @abstractmethod
    def _store_secret(self, key: str, secret: str, held: tuple[str, datetime] | None) -> bool:
        """Store; False, storing nothing, if the lock ``held`` (holder, since) was lost and another
        process has saved meanwhile."""

    @contextmanager
    def locked(self, key: str, patience_seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Single-flight per key over all processes.

        A holder that dies frees the key after 90 s. Not re-entrant.
        """
        holder = uuid.uuid4().hex
        waited = 0.0
        while (since := self._take(key, holder, LOCK_SECONDS)) is None:
            if waited >= patience_seconds:
                raise TransientError(
                    f"another process has been renewing this sign-in for {waited:.0f} s",
                    remedy=f"If it died, the way is free within {LOCK_SECONDS:.0f} s.",
                )
            self._sleep(POLL_SECONDS)
            waited += POLL_SECONDS
        mine = (key, threading.get_ident())
        self._held[mine] = (holder, since)
        try:
            yield
        finally:
            del self._held[mine]
            self._free(key, holder, since)

    def load(self, key: str) -> Mapping[str, Json] | None:
        secret = self._fetch(key)
        if secret is None:
            return None
        try:
            value: dict[str, Json] = json.loads(self._fernet.decrypt(secret.encode()))
        except InvalidToken:
            raise ConfigurationError(
                f"the stored token '{key}' was encrypted with another key",
                remedy="Give the encryption key it was saved with, or connect the account again.",
            ) from None
        return value

    def save(self, key: str, value: Mapping[str, Json]) -> None:
        """Raises ConflictError, storing nothing, if the lock ran out and another process has saved
        a newer token meanwhile."""
        secret = self._fernet.encrypt(dumps(dict(value)).encode()).decode()
        if not self._store_secret(key, secret, self._held.get((key, threading.get_ident()))):
            raise ConflictError(f"another process has saved a newer token '{key}'")


class SqlTokenVault(Vault):
    def __init__(self, store: SqlStore, key: str) -> None:
        super().__init__(key, store._sleep)
        self._store = store

    def _take(self, key: str, holder: str, seconds: float) -> datetime | None:
        def take(conn: Connection) -> datetime | None:
            now = self._store._now(conn)
            self._store._ensure_row(
                conn, token_locks, {"key": key, "holder": holder, "expires_at": now}
            )
            held = conn.execute(
                select(token_locks).where(token_locks.c.key == key).with_for_update()
            ).one()
            hold = timedelta(seconds=seconds)
            if living(held.expires_at, now, hold) and held.holder != holder:
                return None
            row = {"key": key, "holder": holder, "expires_at": now + hold}
            self._store._merge(conn, token_locks, [row])
            return now

        return self._store._write(take)

    def _free(self, key: str, holder: str, since: datetime) -> None:
        self._store._write(
            lambda conn: conn.execute(
                update(token_locks)
                .where(token_locks.c.key == key, token_locks.c.holder == holder)
                .values(expires_at=since)
            )
        )

    def _fetch(self, key: str) -> str | None:
        return self._store._read(
            lambda conn: conn.scalar(select(tokens.c.secret).where(tokens.c.key == key))
        )

    def _store_secret(self, key: str, secret: str, held: tuple[str, datetime] | None) -> bool:
        def work(conn: Connection) -> bool:
            saved_at = conn.scalar(
                select(tokens.c.saved_at).where(tokens.c.key == key).with_for_update()
            )
            if held is not None and saved_at is not None:
                holder, since = held
                owner = conn.scalar(select(token_locks.c.holder).where(token_locks.c.key == key))
                if owner != holder and saved_at >= since:
                    return False
            now = self._store._now(conn)
            self._store._merge(conn, tokens, [{"key": key, "secret": secret, "saved_at": now}])
            return True

        return self._store._write(work)
