"""The state machine: people act, we sync, things break; after at most two quiet runs T = truth."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from sqlalchemy import select

from file_connector.connectors.base import Toolbox
from file_connector.destination.sql_store import SqlStore
from file_connector.destination.tables import files
from file_connector.errors import ConfigurationError, FileConnectorError
from file_connector.models import CommitResult, Identity, Mode, Outcome, RunReport
from file_connector.sandbox import faults
from file_connector.sync.run import SyncRun
from file_connector.times import iso
from file_connector_tests.histories.stages import Seen, Stage, World

Held = Mapping[str, tuple[Seen, str | None]]
"""Per external id: what a reader sees, and why it is gone (None: live)."""

_numbers = itertools.count()
PICK = st.integers(0, 10_000)


class Killed(BaseException):
    """Stands for the death of the process: nothing of ours runs after it."""


class Mortal:
    """A store whose process dies at the n-th commit, before or after it; from then on silent."""

    def __init__(self, store: Any, dies_at: int, *, after: bool) -> None:
        self._store = store
        self._left = dies_at
        self._after = after
        self._dead = False

    def __getattr__(self, name: str) -> Any:
        if self._dead:
            raise Killed
        return getattr(self._store, name)

    def commit(self, commit: Any) -> CommitResult:
        if self._dead:
            raise Killed
        self._left -= 1
        if self._left <= 0 and not self._after:
            self._dead = True
            raise Killed
        result: CommitResult = self._store.commit(commit)
        if self._left <= 0:
            self._dead = True
            raise Killed
        return result


class History(RuleBasedStateMachine):
    """Subclasses set ``stage_of``, ``world`` and ``store``: a ``Store`` that also tells what it has
    ``held``, and can ``forget`` an endpoint whose history is over."""

    world: ClassVar[World]
    store: ClassVar[Any]

    def stage_of(self, world: World) -> Stage:
        raise NotImplementedError

    @initialize(settled=st.booleans())
    def begin(self, settled: bool) -> None:
        self.world.sandbox.faults.clear()
        self.stage = self.stage_of(self.world)
        self.me = Identity(f"h{next(_numbers)}", "history", "tower-42", "ana")
        self.folders = [self.stage.root, *self.stage.outside]
        self.parent: dict[str, str] = {}
        self.files: list[str] = []
        self.trashed: list[str] = []
        self.hidden: list[str] = []
        self.pending_loss = False
        if settled:
            for parent in (0, 0, len(self.folders)):
                self.create_folder(parent, 1)
            self._run()

    # -- people ----------------------------------------------------------------------------------
    def _folder(self, pick: int) -> str:
        return self.folders[pick % len(self.folders)]

    def _made(self) -> list[str]:
        return [f for f in self.folders if f in self.parent]

    def _below(self, folder: str) -> set[str]:
        inside = {folder}
        while more := {i for i, p in self.parent.items() if p in inside} - inside:
            inside |= more
        return inside

    @rule(pick=PICK, old=st.booleans())
    def create_file(self, pick: int, old: bool) -> None:
        parent = self._folder(pick)
        file = self.stage.new_file(parent, old=old)
        self.files.append(file)
        self.parent[file] = parent

    @rule(pick=PICK, children=st.integers(0, 2))
    def create_folder(self, pick: int, children: int) -> None:
        parent = self._folder(pick)
        folder = self.stage.new_folder(parent)
        self.folders.append(folder)
        self.parent[folder] = parent
        for _ in range(children):
            self.create_file(len(self.folders) - 1, True)

    @precondition(lambda self: self.files)
    @rule(pick=PICK, backwards=st.booleans())
    def edit(self, pick: int, backwards: bool) -> None:
        file = self.files[pick % len(self.files)]
        if file not in self.trashed:
            self.stage.edit(file, backwards=backwards)

    @precondition(lambda self: self.files)
    @rule(pick=PICK)
    def view(self, pick: int) -> None:
        file = self.files[pick % len(self.files)]
        if file not in self.trashed:
            self.stage.view(file)

    @precondition(lambda self: self.parent)
    @rule(pick=PICK)
    def rename(self, pick: int) -> None:
        thing = list(self.parent)[pick % len(self.parent)]
        if thing not in self.trashed:
            self.stage.rename(thing)

    @precondition(lambda self: self.parent)
    @rule(pick=PICK, to=PICK)
    def move(self, pick: int, to: int) -> None:
        self._move(pick, self._folder(to))

    @precondition(lambda self: self.parent)
    @rule(pick=PICK, to=PICK)
    def move_out(self, pick: int, to: int) -> None:
        self._move(pick, self.stage.outside[to % len(self.stage.outside)])

    @precondition(lambda self: self.parent)
    @rule(pick=PICK)
    def move_in(self, pick: int) -> None:
        self._move(pick, self.stage.root)

    def _move(self, pick: int, target: str) -> None:
        thing = list(self.parent)[pick % len(self.parent)]
        if target not in self._below(thing) and thing not in self.trashed:
            self.stage.move(thing, target)
            self.parent[thing] = target

    @precondition(lambda self: self.parent)
    @rule(pick=PICK)
    def trash(self, pick: int) -> None:
        thing = list(self.parent)[pick % len(self.parent)]
        if thing not in self.trashed:
            self.stage.trash(thing)
            self.trashed.append(thing)

    @precondition(lambda self: self.trashed)
    @rule(pick=PICK)
    def restore(self, pick: int) -> None:
        thing = self.trashed.pop(pick % len(self.trashed))
        self.stage.restore(thing)

    @precondition(lambda self: self.parent)
    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        thing = list(self.parent)[pick % len(self.parent)]
        if thing in self.trashed:
            return
        self.stage.delete(thing)
        for one in self._below(thing):
            self.parent.pop(one, None)
            for group in (self.files, self.folders, self.trashed, self.hidden):
                if one in group:
                    group.remove(one)

    @precondition(lambda self: self._made())
    @rule(pick=PICK)
    def share(self, pick: int) -> None:
        """Share a folder on its own, wherever it lies."""
        self.stage.show(self._made()[pick % len(self._made())])

    @precondition(lambda self: self._made())
    @rule(pick=PICK)
    def unshare(self, pick: int) -> None:
        self.stage.hide(self._made()[pick % len(self._made())])

    @precondition(lambda self: self.stage.root_can_hide)
    @rule(pick=PICK, noticed=st.booleans())
    def root_out_of_sight(self, pick: int, noticed: bool) -> None:
        """The start folder is shared with us no longer, lives on, and is shared again."""
        self.stage.hide(self.stage.root)
        if noticed:
            with suppress(ConfigurationError):
                self._run()
        self.create_file(pick, True)
        if self.parent:
            self.trash(pick)
        self.stage.show(self.stage.root)

    # -- us --------------------------------------------------------------------------------------
    def _run(self, mode: Mode = Mode.INCREMENTAL, store: Any = None) -> RunReport:
        toolbox = Toolbox(
            retry_budget_seconds=0.0,
            sleep=lambda seconds: None,
            environ=self.world.sandbox.environ,
        )
        connector = self.stage.connector(toolbox)
        try:
            return SyncRun(
                self.me, connector, store or self.store, mode, heartbeat_seconds=3600
            ).drain()
        finally:
            connector.close()

    @rule(mode=st.sampled_from([Mode.INCREMENTAL, Mode.INCREMENTAL, Mode.SWEEP]))
    def sync(self, mode: Mode) -> None:
        self.world.sandbox.faults.clear()
        if self.pending_loss:
            self.stage.lose_cursor()
        before = self.store.state(self.me.endpoint_id)
        report = self._run(Mode.SWEEP if self.stage.silent else mode)
        assert report.outcome is Outcome.COMPLETE, report
        self.pending_loss = False
        # A pass that goes on has been past what left silently since: the next one tells.
        if before.cursor is not None and not (self.stage.silent and before.sweep is not None):
            self._check()

    @rule(request=st.integers(1, 12), kind=st.sampled_from(["reset", "503", "truncated"]))
    def sync_that_breaks(self, request: int, kind: str) -> None:
        """One request fails for good: the run fails there, or was over before."""
        fault = {
            "reset": faults.reset(),
            "503": faults.status(503),
            "truncated": faults.truncate(),
        }[kind]
        self.world.sandbox.faults.clear()
        self.world.sandbox.faults.add(fault, kind="*", nth=request, times=None)
        try:
            self._run()
        except FileConnectorError:
            pass
        finally:
            self.world.sandbox.faults.clear()

    @rule(commit=st.integers(1, 6), after=st.booleans(), sweep=st.booleans())
    def sync_that_dies(self, commit: int, after: bool, sweep: bool) -> None:
        try:
            mode = Mode.SWEEP if sweep else Mode.INCREMENTAL
            self._run(mode, Mortal(self.store, commit, after=after))
        except Killed:
            pass

    @rule()
    def lose_cursor(self) -> None:
        self.pending_loss = True

    # -- the promise -----------------------------------------------------------------------------
    def teardown(self) -> None:
        if not hasattr(self, "me"):
            return
        self.world.sandbox.faults.clear()
        mode = Mode.SWEEP if self.stage.silent else Mode.INCREMENTAL
        self._run(mode)
        report = self._run(mode)
        assert report.outcome is Outcome.COMPLETE
        self._check()
        if _wrote(report):
            report = self._run()
        assert not _wrote(report), report.counts
        self.store.forget(self.me.endpoint_id)

    def _check(self) -> None:
        truth = self.stage.truth()
        held = self.store.held(self.me.endpoint_id)
        live = {thing: seen for thing, (seen, gone) in held.items() if not gone}
        assert live == dict(truth)


def _wrote(report: RunReport) -> bool:
    counts = report.counts
    return bool(counts.inserted or counts.updated or counts.tombstoned)


def rows_of(store: SqlStore, endpoint_id: str) -> Held:
    """All rows of an endpoint, tombstones included; tenant columns are checked on the way."""
    found = {}
    with store._engine.connect() as conn:
        rows = (
            conn.execute(select(files).where(files.c.endpoint_id == endpoint_id)).mappings().all()
        )
    for row in rows:
        assert (row["project_id"], row["user_id"]) == ("tower-42", "ana")
        assert json.dumps(row["raw"])
        found[row["external_id"]] = (
            Seen(row["title"], iso(row["updated_at"]), iso(row["created_at"]), row["size_bytes"]),
            row["gone_reason"],
        )
    return found
