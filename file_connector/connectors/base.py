"""The contract between a source and the engine: Connector, what it may read (Known), what it may
lean on (Toolbox), and how a source type announces itself (ConnectorSpec).

A new source implements Connector, describes itself in a ConnectorSpec and is listed in
``registry.py`` or under the entry point group ``file_connector.connectors``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from pydantic import BaseModel

from file_connector.models import Batch, Folder, Json, KnownFile, Probe


class Known(Protocol):
    """What we hold of one endpoint, read-only. Answers reflect every batch stored so far."""

    def folder(self, folder_id: str) -> Folder | None:
        """The known folder with this id, or None."""
        ...

    def folders(self) -> Iterator[Folder]:
        """All known folders, in no order."""
        ...

    def subfolders(self, parent_id: str) -> Sequence[Folder]:
        """The known folders directly inside ``parent_id``."""
        ...

    def files(self, external_ids: Collection[str]) -> Mapping[str, KnownFile]:
        """The held files with these ids, tombstones included."""
        ...

    def files_in(self, folder_id: str) -> Sequence[KnownFile]:
        """The live files whose parent is ``folder_id``."""
        ...

    def live_count(self) -> int:
        """How many live files are held."""
        ...


class Connector(Protocol):
    """Finds change in one source, for one endpoint. Raises only errors of ``errors.py``.

    The iterators are consumed strictly in order, and each Batch is stored before the next is
    asked for. They may be abandoned at any point: progress is what was stored.
    """

    @property
    def scope(self) -> str:
        """Fingerprint of what is listed (root, filters); no network."""
        ...

    @property
    def principal(self) -> str:
        """Fingerprint of the account that lists, free of secrets; no network."""
        ...

    @property
    def api_calls(self) -> int:
        """Requests sent to the provider so far, token requests excluded."""
        ...

    def check(self) -> Sequence[str]:
        """Prove credentials and access within 10 s; sentences about what was found, or raise."""
        ...

    def probe(self, cursor: Json, known: Known) -> Probe:
        """Did anything change since ``cursor``? Never a false "no". One request while nothing
        changes; a few more only where they save a run."""
        ...

    def changes(self, cursor: Json, known: Known) -> Iterator[Batch]:
        """Everything that changed since ``cursor``; raises CursorRejectedError if it is refused.
        The last batch carries the new cursor (unless something stayed blind)."""
        ...

    def sweep(self, known: Known, progress: Json | None, pass_no: int) -> Iterator[Batch]:
        """A complete listing, from the start (``progress`` None) or from stored progress. Every
        batch carries ``sweep``; the last has ``done`` and a ``cursor`` that was true when the pass
        began, so that replaying ``changes`` from it misses nothing."""
        ...

    def window(self, start: datetime, end: datetime, known: Known) -> Iterator[Batch]:
        """All files whose ``updated_at`` lies in [start, end); the last batch has ``done``. Carries
        no cursor, and of folders only those not known yet, to be listed by the fast way: what
        becomes of them concerns the files in them."""
        ...

    def resolve(self, missing: Sequence[KnownFile], known: Known) -> Iterator[Batch]:
        """For files we hold that a complete listing did not show: ``gone`` with the reason for what
        is truly gone, ``records`` for what is still there, nothing for what cannot be told now."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class RateLimiter(Protocol):
    """One budget per provider identity, shared by all threads and processes of a deployment."""

    def acquire(self, key: str, per_minute: int) -> None:
        """Wait until one more call under ``key`` (at most ``per_minute`` of them a minute) may go
        out; raises BudgetError if that would take unreasonably long."""
        ...


class TokenVault(Protocol):
    """Durable, encrypted home of rotating refresh tokens, shared by all processes."""

    def locked(self, key: str, patience_seconds: float = 90.0) -> AbstractContextManager[None]:
        """Single-flight: while held, no other process refreshes the token ``key``. Raises
        TransientError after ``patience_seconds`` of waiting for one."""
        ...

    def load(self, key: str) -> Mapping[str, Json] | None:
        """The stored secret, decrypted, or None."""
        ...

    def save(self, key: str, value: Mapping[str, Json]) -> None:
        """Store durably; returns only when it would survive a crash."""
        ...


class Unlimited:
    """A RateLimiter that never waits (tests, single processes)."""

    def acquire(self, key: str, per_minute: int) -> None:
        return None


@dataclass(frozen=True)
class Toolbox:
    """What the surroundings lend to a connector; tests lend other clocks and sleeps."""

    limiter: RateLimiter = field(default_factory=Unlimited)
    vault: TokenVault | None = None
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    timeout_seconds: float = 30.0
    """For each request: connect and each read."""
    retry_budget_seconds: float = 200.0
    """Total time one run may spend waiting between attempts."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """The operator's environment (provider host overrides); never endpoints.yaml."""


@dataclass(frozen=True)
class Credentials:
    """A resolved credential set. ``repr`` shows no secret."""

    name: str
    """As written in the YAML, or ``default``."""
    origin: str
    """Where it came from, for messages: ``environment variable GOOGLE_CREDENTIALS__ACME``."""
    data: Mapping[str, Json] = field(repr=False)


DetailsModel = type[BaseModel]


@dataclass(frozen=True)
class ConnectorSpec:
    """How a source type announces itself.

    Attributes:
        type: the ``endpoint_type`` in YAML.
        title: for people, e.g. "Google Drive".
        kind: Dagster kind tag.
        details: pydantic model of ``endpoint_details``; refuses unknown keys.
        credentials_variable: prefix of the named credential variables; ``GOOGLE_CREDENTIALS`` reads
            ``GOOGLE_CREDENTIALS__<NAME>``.
        default_credentials: environment -> JSON of the process-wide credential set; raises
            ConfigurationError naming the variables to set.
        open: builds a connector; imports its client library only then. No network.
        minimum_interval_minutes: schedules may not be denser.
    """

    type: str
    title: str
    kind: str
    details: DetailsModel
    credentials_variable: str
    default_credentials: Callable[[Mapping[str, str]], Mapping[str, Json]]
    open: Callable[[Any, Credentials, Toolbox], Connector]
    describe: Callable[[Any], str] = lambda _: ""
    """One sentence: what an endpoint with these details syncs."""
    forecast: Callable[[Any, Credentials, Toolbox], str | None] | None = None
    """For connections that can end by themselves: a warning if this one will soon, or has; else
    None. Reads at most the vault. Shown by ``list``, and alerted once a day."""
    streams: tuple[str, ...] = ("files",)
    minimum_interval_minutes: int = 1
