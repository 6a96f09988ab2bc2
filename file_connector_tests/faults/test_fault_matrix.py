"""fault x point x source x database, generated; each case is one story with one mishap in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from file_connector.connectors.base import Toolbox
from file_connector.destination.sql_store import SqlStore
from file_connector.errors import FileConnectorError
from file_connector.models import Identity, Mode, Outcome
from file_connector.sandbox import faults
from file_connector.sandbox.faults import Fault
from file_connector.sync.run import SyncRun
from file_connector_tests.faults.audit import Audited
from file_connector_tests.faults.conftest import Stores
from file_connector_tests.faults.database import FAULTS, PASSES, troubled
from file_connector_tests.faults.worlds import disturb, populate
from file_connector_tests.histories.machine import rows_of
from file_connector_tests.histories.stages import STAGES, Stage, World

SOURCES = ["drive", "autodesk"]
DATABASES = ["sqlite", "postgres"]

ANSWERS: dict[str, Callable[[], Fault]] = {
    "reset": faults.reset,
    "503": lambda: faults.status(503, "upstream connect error"),
    "429": lambda: faults.status(429, "{}", {"Retry-After": "86400"}),
    "html": faults.html,
    "truncated": faults.truncate,
    "early_close": faults.close_early,
    "error_in_200": faults.error_in_200,
}
REQUESTS = range(1, 7)
"""Which request breaks; it breaks for good, so the run must give up there."""

STRUCK_LATER = {"drive": 4, "autodesk": 6}
"""The sync of one change of each kind makes at least so many requests."""

STORIES = {
    ("drive", "first_sync"): 4,
    ("drive", "changes"): 4,
    ("drive", "sweep"): 7,
    ("autodesk", "first_sync"): 7,
    ("autodesk", "changes"): 7,
    ("autodesk", "sweep"): 7,
}
"""How many commits a run of this story makes at least; a death at each."""

TRANSACTIONS = (1, 3)
"""Which transaction of a run the database fails: its beginning, its second commit."""


class Died(BaseException):
    """The process is dead: nothing of ours may run after it."""


class Story:
    """One endpoint through one mishap."""

    def __init__(
        self, world: World, source: str, store: SqlStore, witness: SqlStore, identity: Identity
    ) -> None:
        self.world = world
        self.source = source
        self.stage: Stage = STAGES[source](world)
        self.store, self.witness = store, witness
        self.identity = identity
        world.sandbox.faults.clear()
        self.ids = populate(self.stage)

    def run(
        self,
        trouble: Callable[[int, bool], None] = lambda number, before: None,
        mode: Mode = Mode.INCREMENTAL,
    ) -> Outcome:
        toolbox = Toolbox(
            retry_budget_seconds=0.0,
            sleep=lambda seconds: None,
            environ=self.world.sandbox.environ,
        )
        connector = self.stage.connector(toolbox)
        store = Audited(self.store, self.identity, self.witness, trouble)
        try:
            run = SyncRun(self.identity, connector, store, mode, heartbeat_seconds=3600)
            return run.drain().outcome
        finally:
            connector.close()

    def ends_well(self) -> None:
        """At most two ordinary runs later T = truth, an idle run writes nothing, all is closed."""
        self.world.sandbox.faults.clear()
        self.run()
        assert self.run() is Outcome.COMPLETE
        held = rows_of(self.witness, self.identity.endpoint_id)
        live = {i: seen for i, (seen, gone) in held.items() if not gone}
        assert live == dict(self.stage.truth())
        before = held
        assert self.run() is Outcome.COMPLETE
        assert rows_of(self.store, self.identity.endpoint_id) == before
        for run in self.store.runs(self.identity.endpoint_id):
            assert run.outcome is not None, "a run was left open"
        assert not self.store.runs(self.identity.endpoint_id)[0].counts.inserted


@pytest.fixture
def story(source: str, database: str, world: World, stores: Stores, identity: Identity) -> Story:
    return Story(world, source, *stores[database], identity)


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("request_number", REQUESTS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_s22_an_answer_breaks(answer: str, request_number: int, story: Story) -> None:
    """During the first sync, and again during the sync of one change of each kind."""
    for later in (False, True):
        if later:
            disturb(story.stage, story.ids)
        broken = story.world.sandbox.faults.add(
            ANSWERS[answer](), kind="*", nth=request_number, times=None
        )
        outcome: Outcome | None = None
        with contextlib.suppress(FileConnectorError):
            outcome = story.run()
        struck = bool(broken.hits)
        assert struck or (later and request_number > STRUCK_LATER[story.source])
        assert struck or outcome is Outcome.COMPLETE, "failed without a fault"
        assert not struck or outcome is not Outcome.COMPLETE, "a broken answer was swallowed"
        story.world.sandbox.faults.clear()
    story.ends_well()


def _dies(number: int, moment: bool) -> Callable[[int, bool], None]:
    def trouble(commit: int, before: bool) -> None:
        if commit >= number and before is moment:
            raise Died

    return trouble


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("source", "when", "commit_number"),
    [(*story, n) for story, commits in STORIES.items() for n in range(1, commits + 1)],
)
def test_s17_dies_around_a_commit(when: str, moment: str, commit_number: int, story: Story) -> None:
    mode = Mode.SWEEP if when == "sweep" else Mode.INCREMENTAL
    if when != "first_sync":
        story.run()
        disturb(story.stage, story.ids)
    with pytest.raises(Died):
        story.run(_dies(commit_number, moment == "before"), mode)
    story.ends_well()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("transaction", TRANSACTIONS)
@pytest.mark.parametrize("lasting", ["once", "for_good"])
@pytest.mark.parametrize(
    ("database", "fault"), [(database, fault) for database in FAULTS for fault in FAULTS[database]]
)
def test_the_database_fails(
    database: str, fault: str, lasting: str, transaction: int, story: Story
) -> None:
    """What passes is repeated unnoticed; what stays is told, and nothing is half stored."""
    story.run()
    disturb(story.stage, story.ids)
    outcome: Outcome | None = None
    error: FileConnectorError | None = None
    with troubled(
        story.store, FAULTS[database][fault], transaction, once=lasting == "once"
    ) as trouble:
        try:
            outcome = story.run()
        except FileConnectorError as raised:
            error = raised
    assert trouble.hits
    if lasting == "once" and fault in PASSES:
        assert outcome is Outcome.COMPLETE, error
    elif fault != "cut_after_commit":
        assert error is not None
        assert "endpoint 'case_" in str(error)
    story.ends_well()
