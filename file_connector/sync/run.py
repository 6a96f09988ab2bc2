"""One run of one endpoint: takes the lease, drains the connector batch by batch into the store,
decides tombstones after complete passes, and closes the run with its true outcome.

Incremental: the fast way since the cursor; before it a complete pass if there is no cursor yet,
after it one if the daily sweep is due. Window: re-reads chosen days and leaves the cursor alone.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain

from file_connector.connectors.base import Connector, Known
from file_connector.destination.base import Store
from file_connector.errors import (
    BugError,
    BusyError,
    CursorRejectedError,
    FileConnectorError,
    redact,
)
from file_connector.models import (
    Batch,
    Blind,
    Commit,
    CommitResult,
    FileRecord,
    Gone,
    GoneReason,
    Identity,
    Json,
    KnownFile,
    Mode,
    Outcome,
    RunCounts,
    RunReport,
    SyncState,
)
from file_connector.sync import plan
from file_connector.times import utc_now

log = logging.getLogger(__name__)

BREAKER_ROWS = 50
BREAKER_SHARE = 0.2
BREAKER_PASSES = 3
"""A pass that misses more than 50 rows and more than 20 % of what we hold tombstones nothing,
until three complete passes in a row agree, an hour apart unless a person asks for them, or an
operator confirms."""

FRESHNESS_SECONDS = 300.0
"""During a long sweep the fast way runs in between, so that fresh changes do not wait for it."""

CHUNK = 500
SAMPLE = 50
"""So many files of an accepted mass disappearance are looked at one by one. If none of them is
there, or each, the others share their reason; otherwise all are looked at."""


_SHOWN_ELSEWHERE = frozenset({GoneReason.OUT_OF_SCOPE, GoneReason.TRASHED})


@dataclass
class _Tally:
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    tombstoned: int = 0
    blind: list[Blind] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Reasons why the run is partial."""
    swept: bool = False
    suspect: bool = False
    """The fast way saw too much vanish at once."""
    swept_changes: set[str] = field(default_factory=set)
    """Ids a sweep changed although a cursor was there: candidates for "missed by the fast way"."""
    fast_ids: set[str] = field(default_factory=set)
    """Ids the fast way reported in this run."""
    refused: dict[str, str] = field(default_factory=dict)
    """Files the database would not take, with its words."""


class _TimeUpError(Exception):
    """The run's time is over; everything stored so far counts, the next run goes on."""


class SyncRun:
    """One run; call ``drain`` once.

    Args:
        identity: whose files; the only place from which tenant ids reach rows.
        connector, store: the two sides.
        mode: see ``Mode``; ``window`` (UTC start and end of the days) goes with ``Mode.WINDOW``.
        run_id: unique name of the run; made up if not given.
        time_limit_seconds: stop at the next batch boundary after this long (outcome partial).
        heartbeat_seconds: how often the lease is renewed.
        on_commit: called after each stored batch with the totals so far (progress display).
    """

    def __init__(
        self,
        identity: Identity,
        connector: Connector,
        store: Store,
        mode: Mode = Mode.INCREMENTAL,
        *,
        window: tuple[datetime, datetime] | None = None,
        run_id: str | None = None,
        time_limit_seconds: float | None = None,
        heartbeat_seconds: float = 20.0,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        on_commit: Callable[[RunCounts], None] | None = None,
    ) -> None:
        if (mode is Mode.WINDOW) != (window is not None):
            raise BugError("a window goes with Mode.WINDOW, and only with it")
        self._identity = identity
        self._connector = connector
        self._store = store
        self._mode = mode
        self._window_span = window
        self._run_id = run_id or uuid.uuid4().hex
        self._time_limit = time_limit_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._now = now
        self._monotonic = monotonic
        self._on_commit = on_commit
        self._tally = _Tally()
        self._known: Known = store.known(identity.endpoint_id)
        self._state = SyncState(identity.endpoint_id)
        self._started = 0.0
        self._fast_way_at = 0.0
        self._new_account = False

    @property
    def run_id(self) -> str:
        return self._run_id

    def drain(self) -> RunReport:
        """Run to the end.

        Returns the report (outcome complete or partial). Raises BusyError, without having begun,
        if another run holds the endpoint; any other FileConnectorError ends the run as failed,
        with what was stored before intact and the cursor valid.
        """
        started_at = self._now()
        self._started = self._monotonic()
        try:
            self._settle_mode()
            self._store.begin_run(self._identity, self._mode, self._run_id)
        except FileConnectorError as error:
            error.endpoint = self._identity.endpoint_id
            if not isinstance(error, BusyError):
                self._note_failure(str(error))
            raise
        calls_before = self._connector.api_calls
        cursor_before: Json | None = None
        try:
            with self._heartbeat():
                self._state = self._store.state(self._identity.endpoint_id)
                cursor_before = self._state.cursor
                try:
                    self._work()
                except _TimeUpError:
                    windowed = self._mode is Mode.WINDOW
                    onward = "choose fewer days" if windowed else "the next run goes on from here"
                    self._tally.problems.append(f"time is up; {onward}")
        except FileConnectorError as error:
            error.endpoint = self._identity.endpoint_id
            self._close(Outcome.FAILED, str(error), calls_before)
            self._note_failure(str(error))
            raise
        except BaseException as error:
            why = f"{type(error).__name__}: {redact(error)}"
            self._close(Outcome.FAILED, f"interrupted: {why}", calls_before)
            if isinstance(error, Exception):
                self._note_failure(why)
            raise
        outcome, reason = self._verdict()
        self._store.finish_run(
            self._run_id, outcome, reason, self._connector.api_calls - calls_before, self._missed()
        )
        if outcome is Outcome.COMPLETE:
            if self._mode is not Mode.WINDOW:
                self._store.note_success(self._identity, self._now())
        else:
            # A folder that stays forbidden must not slow down the rest of its endpoint.
            self._note_failure(reason, back_off=bool(self._tally.problems or self._tally.suspect))
        return RunReport(
            run_id=self._run_id,
            endpoint_id=self._identity.endpoint_id,
            mode=self._mode,
            outcome=outcome,
            counts=self._counts(calls_before),
            reason=reason,
            started_at=started_at,
            ended_at=self._now(),
            cursor_before=cursor_before,
            cursor_after=self._state.cursor,
            swept=self._tally.swept,
            notes=tuple(self._tally.notes),
        )

    def _settle_mode(self) -> None:
        """Chosen days are compared with what is held; where that is nothing, or is another folder's
        or account's, everything is listed."""
        if self._mode is not Mode.WINDOW:
            return
        state = self._store.state(self._identity.endpoint_id)
        if plan.baseline_missing(self._connector, state):
            self._mode, self._window_span = Mode.INCREMENTAL, None

    # -- what a run consists of ------------------------------------------------------------------

    def _work(self) -> None:
        if plan.tenant_changed(self._identity, self._state):
            self._change_tenant()
        if self._mode is Mode.WINDOW:
            self._window()
            return
        due = self._mode is Mode.SWEEP or plan.sweep_due(
            self._identity.endpoint_id, self._state, self._now()
        )
        if self._renew_baseline():
            due = False
        try:
            self._fast_way()
        except CursorRejectedError as error:
            self._forget_cursor(f"re-baselined: {redact(error.message)}")
            self._pass()
            self._fast_way()
            return
        judge = self._tally.suspect and not self._state.held_back
        if due or judge or self._state.sweep is not None:
            self._pass()
            self._fast_way()

    def _change_tenant(self) -> None:
        """Put another project and user on the held rows. With another folder or account, only on
        those that its listing shows: the rest were the former tenant's and stay so."""
        if plan.relists(self._connector, self._state):
            self._tally.notes.append("project or user changed: what is listed is stamped anew")
            return
        count = self._store.restamp(self._identity, self._run_id)
        self._tally.updated += count
        self._state = self._store.state(self._identity.endpoint_id)
        self._tally.notes.append(f"project or user changed: {count} rows stamped anew")

    def _renew_baseline(self) -> bool:
        """List everything if there is no valid cursor; whether that was so."""
        state = self._state
        if plan.scope_changed(self._connector, state):
            self._tally.notes.append("the scope changed: everything is listed anew")
            self._state = replace(
                state, cursor=None, sweep=None, scope=None, principal=None, rescoped=True
            )
        elif plan.principal_changed(self._connector, state):
            self._tally.notes.append("another account is connected: everything is listed anew")
            self._state = replace(state, cursor=None, sweep=None, principal=None)
            self._new_account = True
        elif state.cursor is not None:
            return False
        self._pass()
        return True

    def _forget_cursor(self, why: str) -> None:
        self._tally.notes.append(why)
        self._put(replace(self._state, cursor=None, sweep=None, principal=None))

    def _fast_way(self) -> None:
        """Everything since the cursor; afterwards ``state.blind`` is what stays unseen."""
        blind: list[Blind] = []
        doubted: list[Blind] = []
        for batch in self._connector.changes(self._state.cursor, self._known):
            (doubted if batch.suspect else blind).extend(batch.blind)
            self._tally.suspect = self._tally.suspect or batch.suspect
            cursor = self._state.cursor if batch.cursor is None else batch.cursor
            self._store_batch(batch, replace(self._state, cursor=cursor))
            self._tally.fast_ids.update(r.external_id for r in batch.records)
            self._tally.fast_ids.update(g.external_id for g in batch.gone)
        self._tally.blind = blind + doubted
        self._fast_way_at = self._monotonic()
        # While a pass is open, ``state.blind`` is what that pass could not see. What is merely
        # doubted is for the pass to judge, so it must not be spared by it.
        seen = self._state.blind if self._state.sweep is not None else _blind_json(blind)
        self._put(replace(self._state, synced_at=self._now(), blind=seen))

    def _pass(self) -> None:
        """A complete listing, new or resumed, and what follows from it."""
        state = self._state
        if state.sweep is None:
            state = replace(
                state,
                sweep=self._progress({"at": None}),
                pass_no=state.pass_no + 1,
                pass_started_at=self._now(),
                blind=(),
            )
        else:
            self._new_account = bool(state.sweep.get("new_account"))
        if not (state.sweep or {}).get("listed"):
            self._list_everything(state)
        self._settle()

    def _list_everything(self, state: SyncState) -> None:
        """Drain ``connector.sweep``. The pass is opened in the transaction of its first batch, so a
        root that cannot be listed leaves everything as it was."""
        opening = state is not self._state
        had_cursor = state.cursor is not None
        progress = state.sweep["at"] if state.sweep else None
        for batch in self._connector.sweep(self._known, progress, state.pass_no):
            base = state if opening else self._state
            at = batch.sweep if batch.sweep is not None else (base.sweep or {}).get("at")
            sweep = self._progress({"at": at})
            if batch.done:
                sweep = self._progress({"listed": True, "cursor": batch.cursor})
            blind = (*base.blind, *_blind_json(batch.blind))
            result = self._store_batch(
                batch,
                replace(
                    base,
                    sweep=sweep,
                    blind=blind,
                    scope=self._connector.scope,
                    principal=self._connector.principal,
                ),
                forget_folders=opening and state.rescoped,
            )
            opening = False
            if had_cursor:
                self._tally.swept_changes.update(result.changed_ids)
            if batch.done:
                return
            if had_cursor and self._monotonic() - self._fast_way_at > FRESHNESS_SECONDS:
                self._fast_way()
        raise BugError("the connector's sweep ended without saying that it was done")

    def _progress(self, sweep: dict[str, Json]) -> Json:
        """The open pass as it is stored; whoever resumes it must know whose it is."""
        return {**sweep, "new_account": True} if self._new_account else sweep

    def _settle(self) -> None:
        """After a complete listing: what we hold but did not see is looked into, never assumed."""
        endpoint_id, state = self._identity.endpoint_id, self._state
        listed: dict[str, Json] = state.sweep or {}
        blind = self._below(b["folder_id"] for b in state.blind)
        missing = self._missing(state.pass_no, blind)
        held = self._known.live_count()
        again = state.held_back > 0 and not plan.independent(state, self._mode, self._now())
        agreed = state.held_back + (not again)
        accepted = state.confirmed or agreed >= BREAKER_PASSES
        mass = missing > BREAKER_ROWS and missing > BREAKER_SHARE * held and not state.rescoped
        held_back = 0
        unclear: list[Blind] = []
        left_out = False
        sample = self._sample(blind) if mass else []
        looks = list(self._connector.resolve(sample, self._known)) if mass else []
        if mass and not accepted and not self._are_elsewhere(sample, looks):
            held_back = agreed
            self._tally.problems.append(
                f"mass disappearance: a complete listing lacks {missing} of {held} files; nothing "
                f"was tombstoned (pass {held_back} of {BREAKER_PASSES}). Check the folder's "
                f"sharing, or accept it with `file-connector confirm {endpoint_id}`"
            )
        else:
            common = _common_reason(sample, looks) if mass and accepted else None
            looked_at = {f.external_id for f in sample}
            for chunk in self._unseen(state.pass_no):
                seeable = _seeable(chunk, blind)
                if state.rescoped:
                    batches: Iterator[Batch] = iter([_all_gone(seeable, GoneReason.OUT_OF_SCOPE)])
                elif common is not None:
                    batches = iter([_all_gone(seeable, common)])
                else:
                    rest = [f for f in seeable if f.external_id not in looked_at]
                    batches = chain(looks, self._connector.resolve(rest, self._known))
                    looks = []
                for batch in batches:
                    unclear.extend(batch.blind)
                    left_out = left_out or bool(batch.records)
                    result = self._store_batch(self._labelled(batch), self._state)
                    if state.cursor is not None:
                        self._tally.swept_changes.update(result.changed_ids)
        swept_at = state.swept_at if held_back and again else self._now()
        if left_out and state.cursor is None:
            # it may lack what is new as well, and no later cursor tells of that
            swept_at = self._now() - plan.LONGEST_SWEEP_GAP
            self._tally.notes.append(
                "the listing left out files that are there; the next run lists everything again"
            )
        self._put(
            replace(
                self._state,
                cursor=self._state.cursor if state.cursor is not None else listed.get("cursor"),
                sweep=None,
                swept_at=swept_at,
                rescoped=False,
                confirmed=False,
                held_back=held_back,
            )
        )
        self._store.forget_seen(endpoint_id)
        self._tally.swept = True
        unseen = [Blind(b["folder_id"], b["name"], b["why"]) for b in state.blind]
        self._tally.blind = unseen + unclear

    def _sample(self, blind: Collection[str]) -> Sequence[KnownFile]:
        """Some of what the pass did not see though it could have."""
        for chunk in self._unseen(self._state.pass_no):
            if seeable := _seeable(chunk, blind):
                return seeable[:SAMPLE]
        return []

    def _are_elsewhere(self, sample: Sequence[KnownFile], looks: Sequence[Batch]) -> bool:
        """Whether the provider itself shows where a sample of what is missing is now: moved out, or
        in the trash, by itself or with a folder above it. Then nothing is wrong with its listings.
        """
        gone = chain.from_iterable(batch.gone for batch in looks)
        files = {g.external_id for g in gone if g.reason in _SHOWN_ELSEWHERE}
        gone_folders = chain.from_iterable(batch.folders_gone for batch in looks)
        left = self._below(g.folder_id for g in gone_folders if g.reason in _SHOWN_ELSEWHERE)
        return bool(sample) and all(f.external_id in files or f.parent_id in left for f in sample)

    def _labelled(self, batch: Batch) -> Batch:
        """What a newly connected account cannot find may be there for others."""
        if not self._new_account:
            return batch
        return replace(
            batch,
            gone=[replace(g, reason=_unless_deleted(g.reason)) for g in batch.gone],
            folders_gone=[replace(g, reason=_unless_deleted(g.reason)) for g in batch.folders_gone],
        )

    def _window(self) -> None:
        """Re-read the files of chosen days; what we hold there but did not see is looked into."""
        if self._window_span is None:
            raise BugError("window mode without a window")
        start, end = self._window_span
        seen: set[str] = set()
        done = False
        for batch in self._connector.window(start, end, self._known):
            self._store_batch(replace(batch, cursor=None, sweep=None), self._state)
            seen.update(r.external_id for r in batch.records)
            self._tally.blind.extend(batch.blind)
            done = done or batch.done
        if not done:
            raise BugError("the connector's window ended without saying that it was done")
        blind = self._below(b.folder_id for b in self._tally.blind)
        held = self._store.live_between(self._identity.endpoint_id, start, end)
        missing = [f for f in held if f.external_id not in seen and f.parent_id not in blind]
        for i in range(0, len(missing), CHUNK):
            for batch in self._connector.resolve(missing[i : i + CHUNK], self._known):
                self._tally.blind.extend(batch.blind)
                self._store_batch(batch, self._state)

    # -- parts -----------------------------------------------------------------------------------

    def _missing(self, pass_no: int, blind: Collection[str]) -> int:
        """How many files a complete listing lacks; not those in folders it could not see."""
        if not blind:
            return self._store.unseen_count(self._identity.endpoint_id, pass_no)
        return sum(len(_seeable(chunk, blind)) for chunk in self._unseen(pass_no))

    def _unseen(self, pass_no: int) -> Iterator[Sequence[KnownFile]]:
        after = ""
        while page := self._store.unseen(self._identity.endpoint_id, pass_no, after, 10 * CHUNK):
            after = page[-1].external_id
            yield from (page[i : i + CHUNK] for i in range(0, len(page), CHUNK))

    def _below(self, folder_ids: Iterable[str]) -> set[str]:
        """These folders, and all known below them."""
        stack = list(folder_ids)
        found: set[str] = set()
        while stack:
            folder_id = stack.pop()
            if folder_id not in found:
                found.add(folder_id)
                stack.extend(f.folder_id for f in self._known.subfolders(folder_id))
        return found

    def _store_batch(
        self, batch: Batch, state: SyncState, *, forget_folders: bool = False
    ) -> CommitResult:
        self._tally.notes.extend(n for n in batch.notes if n not in self._tally.notes)
        unmoved = state == self._state
        empty = not (batch.records or batch.gone or batch.folders or batch.folders_gone)
        if empty and not batch.seen and unmoved and not forget_folders:
            return CommitResult(self._state)
        result = self._store.commit(
            Commit(
                identity=self._identity,
                run_id=self._run_id,
                state=replace(
                    state,
                    project_id=self._identity.project_id,
                    user_id=self._identity.user_id,
                ),
                records=unique_sorted(batch.records),
                gone=batch.gone,
                folders=batch.folders,
                folders_gone=batch.folders_gone,
                seen=batch.seen,
                mark_seen=state.sweep is not None,
                forget_folders=forget_folders,
            )
        )
        self._state = result.state
        self._tally.inserted += result.inserted
        self._tally.updated += result.updated
        self._tally.unchanged += result.unchanged
        self._tally.tombstoned += result.tombstoned
        self._tally.refused.update(result.refused)
        if self._on_commit is not None:
            self._on_commit(self._counts(0))
        if self._time_limit and self._monotonic() - self._started > self._time_limit:
            raise _TimeUpError
        return result

    def _put(self, state: SyncState) -> None:
        """Store the state alone."""
        if state != self._state:
            result = self._store.commit(Commit(self._identity, self._run_id, state))
            self._state = result.state

    def _counts(self, calls_before: int) -> RunCounts:
        tally = self._tally
        return RunCounts(
            inserted=tally.inserted,
            updated=tally.updated,
            unchanged=tally.unchanged,
            tombstoned=tally.tombstoned,
            api_calls=self._connector.api_calls - calls_before,
            missed_by_fast_path=self._missed(),
        )

    def _missed(self) -> int:
        """What the sweep changed and the fast way, asked again afterwards, did not report."""
        return len(self._tally.swept_changes - self._tally.fast_ids)

    def _verdict(self) -> tuple[Outcome, str]:
        tally = self._tally
        problems = list(tally.problems)
        if tally.blind:
            named = "; ".join(f"'{b.name}' ({b.folder_id}): {b.why}" for b in tally.blind[:5])
            more = f" and {len(tally.blind) - 5} more" if len(tally.blind) > 5 else ""
            problems.append(f"could not see {named}{more}; nothing there was tombstoned")
        if self._state.held_back and not problems and self._mode is not Mode.WINDOW:
            problems.append(
                "many files were missing from the last complete listing (pass "
                f"{self._state.held_back} of {BREAKER_PASSES}); nothing was tombstoned, accept it "
                f"with `file-connector confirm {self._identity.endpoint_id}`"
            )
        if tally.refused:
            said = "; ".join(f"{i}: {why}" for i, why in sorted(tally.refused.items())[:5])
            more = f"; and {len(tally.refused) - 5} more" if len(tally.refused) > 5 else ""
            problems.append(
                f"the database would not store {len(tally.refused)} files: {said}{more}"
            )
        if problems:
            return Outcome.PARTIAL, redact("; ".join([*problems, *tally.notes]))
        return Outcome.COMPLETE, redact("; ".join(tally.notes))

    def _close(self, outcome: Outcome, reason: str, calls_before: int) -> None:
        """Close a run that is failing anyway; the failure that counts is the one being raised."""
        try:
            calls = self._connector.api_calls - calls_before
            self._store.finish_run(self._run_id, outcome, reason, calls, self._missed())
        except FileConnectorError as error:
            log.warning("run %s could not be closed: %s", self._run_id, error)

    def _note_failure(self, message: str, *, back_off: bool = True) -> None:
        if self._mode is Mode.WINDOW:
            return
        try:
            status = self._store.status(self._identity.endpoint_id)
            failures = status.failures if status else 0
            now = self._now()
            retry_at = now + plan.backoff(failures + 1) if back_off else None
            self._store.note_failure(self._identity, now, message, retry_at)
        except FileConnectorError as error:
            if error.message not in message:  # a dead database is told once
                log.warning("the failure could not be noted: %s", error)

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Keep the lease alive from a thread; commits themselves refuse to work without it."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(self._heartbeat_seconds):
                try:
                    if not self._store.renew(self._identity.endpoint_id, self._run_id):
                        return
                except FileConnectorError as error:
                    log.warning("the lease could not be renewed, trying again: %s", error)

        thread = threading.Thread(target=beat, name=f"lease-{self._run_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def unique_sorted(records: Sequence[FileRecord]) -> Sequence[FileRecord]:
    """One record per id (the highest version; the later one among equals), sorted by id: the order
    in which every writer takes its row locks."""
    best: dict[str, FileRecord] = {}
    for record in records:
        if not record.external_id:
            raise BugError("a record without an id")
        held = best.get(record.external_id)
        older = (
            held is not None
            and held.version is not None
            and record.version is not None
            and record.version < held.version
        )
        if not older:
            best[record.external_id] = record
    return [best[key] for key in sorted(best)]


def _seeable(files: Sequence[KnownFile], blind: Collection[str]) -> list[KnownFile]:
    """Those not in a blind folder."""
    return [f for f in files if f.parent_id is None or f.parent_id not in blind]


def _common_reason(sample: Sequence[KnownFile], looks: Sequence[Batch]) -> GoneReason | None:
    """Why the files of a sample are gone; None if some are there and some are not. If single looks
    still find all that no listing shows any more, the accepted listings decide."""
    alive = sum(len(batch.records) for batch in looks)
    if sample and alive == len(sample):
        return GoneReason.ACCESS_LOST
    reasons = Counter({GoneReason.DELETED: 0})
    for batch in looks:
        reasons.update(gone.reason for gone in batch.gone)
        reasons.update(gone.reason for gone in batch.folders_gone)
    return None if alive else reasons.most_common(1)[0][0]


def _all_gone(files: Sequence[KnownFile], reason: GoneReason) -> Batch:
    return Batch(gone=[Gone(f.external_id, reason) for f in files])


def _unless_deleted(reason: GoneReason) -> GoneReason:
    return GoneReason.ACCESS_LOST if reason is GoneReason.DELETED else reason


def _blind_json(blind: Sequence[Blind]) -> tuple[dict[str, str], ...]:
    return tuple({"folder_id": b.folder_id, "name": b.name, "why": redact(b.why)} for b in blind)
