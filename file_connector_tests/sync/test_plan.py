"""What a tick decides, and in which words."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import repeat

import pytest

from file_connector.destination.base import Store
from file_connector.errors import (
    BudgetError,
    ConfigurationError,
    FileConnectorError,
    ReconnectError,
    TransientError,
)
from file_connector.models import Batch, Blind, Probe, SyncState
from file_connector.sync import plan
from file_connector.sync.plan import Decision
from file_connector.sync.run import SyncRun
from file_connector_tests.builders import NOON, a_file, an_identity
from file_connector_tests.sync.scripted import ScriptedConnector, listing

ME = an_identity()


@pytest.fixture
def source(store: Store) -> ScriptedConnector:
    """A source that was synced at noon; this endpoint's sweep is due at 17:45."""
    source = ScriptedConnector()
    source.sweep_script = listing(a_file("a"))
    SyncRun(ME, source, store, now=lambda: NOON).drain()
    source.calls.clear()
    return source


def decide(source: ScriptedConnector, store: Store, now: datetime) -> Decision:
    return plan.decide(ME, source, store, now)


SOON = NOON + timedelta(minutes=5)


def test_the_first_tick_runs_without_asking(store: Store) -> None:
    source = ScriptedConnector()
    assert decide(source, store, NOON) == Decision(True, "first sync")
    assert source.api_calls == 0


def test_s42_no_change_is_one_call_and_a_sentence(store: Store, source: ScriptedConnector) -> None:
    before = source.api_calls
    decision = decide(source, store, SOON)
    assert not decision.run
    assert decision.why.startswith("no change since 12:00 UTC, 5 min ago; next sweep ")
    assert source.api_calls == before + 1


def test_a_change_runs(store: Store, source: ScriptedConnector) -> None:
    source.probe_answer = Probe(True, "3 changes")
    assert decide(source, store, SOON) == Decision(True, "3 changes")


def test_a_later_cursor_learnt_by_the_probe_is_kept(
    store: Store, source: ScriptedConnector
) -> None:
    source.probe_answer = Probe(False, "others only", cursor="t9")
    decide(source, store, SOON)
    assert store.state(ME.endpoint_id).cursor == "t9"


def failed_once(source: ScriptedConnector, store: Store, error: FileConnectorError) -> datetime:
    """A run at noon failed; when the next attempt is due."""
    source.change_scripts = [[error]]
    source.sweep_script = [error]
    with pytest.raises(type(error)):
        SyncRun(ME, source, store, now=lambda: NOON).drain()
    status = store.status(ME.endpoint_id)
    assert status is not None
    assert status.retry_at is not None
    return status.retry_at


def test_s44_what_a_person_must_mend_costs_one_run_whatever_the_probe_says(
    store: Store, source: ScriptedConnector
) -> None:
    """Drive's feed says that the root changed; only a look at the root says that it is gone."""
    gone = ConfigurationError("the folder is gone", remedy="Share it again.")
    due = failed_once(source, store, gone)
    source.probe_answer, source.check_answer = Probe(True, "the root has changed"), gone
    decision = decide(source, store, due)
    assert not decision.run
    assert decision.why.endswith("the folder is gone. Share it again.")
    source.check_answer = None
    assert decide(source, store, due + timedelta(hours=1)).run


def test_a_check_that_is_only_too_slow_holds_up_nobody(
    store: Store, source: ScriptedConnector
) -> None:
    slow = TransientError("no answer within 4 s")
    due = failed_once(source, store, slow)
    source.check_answer = slow
    assert decide(source, store, due).run


@pytest.mark.parametrize("synced", [True, False])
def test_a_provider_that_is_too_slow_for_ticks_gets_a_run_all_the_same(
    store: Store, source: ScriptedConnector, synced: bool
) -> None:
    """Ticks ask in haste; a run has patience."""
    if not synced:
        store.reset(ME.endpoint_id)
    slow = TransientError("no answer within 10 s")
    now = failed_once(source, store, slow)
    source.probe_answer = source.check_answer = slow
    runs = 0
    while now < NOON + timedelta(days=3):
        if decide(source, store, now).run:
            runs += 1
            source.change_scripts = [[slow]]
            with pytest.raises(TransientError):
                SyncRun(ME, source, store, now=repeat(now).__next__).drain()
        now += timedelta(minutes=5)
    assert runs == 2, "one a day"


def test_s44_a_dead_grant_runs_once_then_backs_off_and_success_clears_it(
    store: Store, source: ScriptedConnector
) -> None:
    dead = ReconnectError("the grant was revoked", remedy="Connect the account again.")
    source.probe_answer = dead
    first = decide(source, store, SOON)
    assert first.run
    assert "revoked" in first.why
    source.change_scripts = [[dead]]
    with pytest.raises(ReconnectError):
        SyncRun(ME, source, store, now=lambda: SOON).drain()
    runs = 0
    minutes = range(10, 24 * 60, 5)
    calls = source.api_calls
    for minute in minutes:
        decision = decide(source, store, NOON + timedelta(minutes=minute))
        runs += decision.run
        assert decision.why.startswith("failing since ")
        assert "12:05" in decision.why
    assert runs == 0
    assert source.api_calls - calls < 40
    source.probe_answer = Probe(False, "quiet")
    assert decide(source, store, NOON + timedelta(days=1, hours=2)).run
    SyncRun(ME, source, store, now=lambda: NOON + timedelta(days=1, hours=2)).drain()
    status = store.status(ME.endpoint_id)
    assert status is not None
    assert (status.failures, status.message) == (0, "")


def test_s44_a_first_sync_that_fails_is_not_repeated_every_tick(store: Store) -> None:
    source = ScriptedConnector()
    dead = ReconnectError("revoked")
    source.sweep_script, source.check_answer = [dead], dead
    with pytest.raises(ReconnectError):
        SyncRun(ME, source, store, now=lambda: NOON).drain()
    ticks = [NOON + timedelta(minutes=m) for m in range(5, 24 * 60, 5)]
    assert not any(decide(source, store, now).run for now in ticks)
    source.check_answer = None
    assert decide(source, store, NOON + timedelta(days=1, hours=1)).run


def test_s45_after_an_outage_one_tick_decides_on_one_run(
    store: Store, source: ScriptedConnector
) -> None:
    source.probe_answer = Probe(True, "changes")
    assert decide(source, store, NOON + timedelta(minutes=29)).run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sweep": {"at": 1}}, "the sweep goes on"),
        ({"confirmed": True}, "sweep is due"),
        ({"scope": "elsewhere"}, "scope changed"),
        ({"principal": "somebody"}, "another account"),
        ({"user_id": "bo"}, "user changed"),
        ({"cursor": None}, "first sync"),
        ({"cursor": None, "sweep": {"at": 1}}, "first listing goes on"),
    ],
)
def test_pending_work_runs_without_asking_the_provider(
    store: Store, source: ScriptedConnector, change: dict[str, object], words: str
) -> None:
    state = store.state(ME.endpoint_id)
    assert store.advance(replace(state, **change))  # type: ignore[arg-type]
    calls = source.api_calls
    decision = decide(source, store, SOON)
    assert decision.run
    assert words in decision.why
    assert source.api_calls == calls


def test_s20_blind_spots_are_tried_again_twice_at_once_then_less_and_less(
    store: Store, source: ScriptedConnector
) -> None:
    for _ in range(plan.BLIND_TRIES):
        source.change_scripts = [[Batch(blind=[Blind("x", "X", "403")])]]
        SyncRun(ME, source, store, now=lambda: NOON).drain()
        again = decide(source, store, SOON)
    assert not again.run
    source.probe_answer = Probe(True, "a change elsewhere")
    assert decide(source, store, SOON).run, "one forbidden folder does not slow down the rest"
    source.probe_answer = Probe(False, "quiet")
    now = NOON
    for hours in (1, 2):
        assert not decide(source, store, now + timedelta(hours=hours, minutes=-1)).run
        now += timedelta(hours=hours)
        assert "could not be seen" in decide(source, store, now).why
        source.change_scripts = [[Batch(blind=[Blind("x", "X", "403")])]]
        SyncRun(ME, source, store, now=repeat(now).__next__).drain()


class TestSweepSlots:
    def state(self, swept_at: datetime | None, held_back: int = 0) -> SyncState:
        return SyncState("plans", swept_at=swept_at, held_back=held_back)

    def test_never_more_than_a_day_and_spread_over_it(self) -> None:
        slots = set()
        for i in range(200):
            due = plan.next_sweep_at(f"endpoint_{i}", self.state(NOON))
            assert due is not None
            assert NOON < due <= NOON + timedelta(days=1)
            slots.add(due.hour)
        assert len(slots) == 24

    def test_once_a_day(self) -> None:
        due = plan.next_sweep_at("plans", self.state(NOON))
        assert due is not None
        assert not plan.sweep_due("plans", self.state(NOON), due - timedelta(seconds=1))
        assert plan.sweep_due("plans", self.state(NOON), due)
        late = due + timedelta(minutes=10)
        assert plan.next_sweep_at("plans", self.state(late)) == due + timedelta(days=1)

    def test_a_held_back_pass_is_repeated_within_the_hour(self) -> None:
        assert plan.next_sweep_at("plans", self.state(NOON, 1)) == NOON + timedelta(hours=1)

    def test_none_before_the_first(self) -> None:
        assert not plan.sweep_due("plans", self.state(None), NOON)


def test_back_off_doubles_to_an_hour() -> None:
    assert [int(plan.backoff(n).total_seconds() // 60) for n in (1, 2, 3, 4, 5, 50)] == [
        5,
        10,
        20,
        40,
        60,
        60,
    ]


@pytest.mark.parametrize("failing", [False, True])
def test_s43_our_own_budget_is_nobody_s_failure(
    store: Store, source: ScriptedConnector, failing: bool
) -> None:
    """Other endpoints of the same sign-in use it up: nothing is wrong with this one."""
    due = failed_once(source, store, TransientError("502")) if failing else SOON
    before = store.status(ME.endpoint_id)
    spent = BudgetError("our own budget is used up.", remedy="It goes on by itself.")
    source.probe_answer = source.check_answer = spent
    why = "not asked: our own budget is used up. It goes on by itself."
    assert decide(source, store, due) == Decision(False, why)
    assert store.status(ME.endpoint_id) == before
    source.probe_answer, source.check_answer = Probe(True, "3 changes"), None
    assert decide(source, store, due) == Decision(True, "3 changes")


def test_a_passing_probe_failure_tells_its_story_in_a_run(
    store: Store, source: ScriptedConnector
) -> None:
    source.probe_answer = TransientError("the provider sleeps")
    decision = decide(source, store, SOON)
    assert (decision.run, decision.failed) == (True, True)
    assert "the provider sleeps" in decision.why
