"""The call budget and the token vault that the store lends to connectors."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta

import pytest
from cryptography.fernet import Fernet

from file_connector.destination.sql_store import SqlStore
from file_connector.errors import (
    BudgetError,
    ConfigurationError,
    ConflictError,
    TransientError,
)
from file_connector_tests.destination.conftest import Clock, Place

KEY = Fernet.generate_key().decode()


# -- call budget -----------------------------------------------------------------------------------


def times_of_calls(store: SqlStore, clock: Clock, calls: int, per_minute: int) -> list[datetime]:
    limiter = store.limiter()
    times = []
    for _ in range(calls):
        limiter.acquire("client-1", per_minute)
        times.append(clock.now)
    return times


def busiest_minute(times: list[datetime]) -> int:
    return max(sum(t <= u < t + timedelta(minutes=1) for u in times) for t in times)


@pytest.mark.parametrize("per_minute", [1, 2, 7, 60, 300])
def test_s43_no_minute_sees_more_calls_than_allowed(
    store: SqlStore, clock: Clock, per_minute: int
) -> None:
    times = times_of_calls(store, clock, min(3 * per_minute, 400) + 1, per_minute)
    assert busiest_minute(times) <= per_minute
    if per_minute <= 60:
        minutes = (times[-1] - times[0]).total_seconds() / 60
        assert minutes <= 3.4  # and the budget is used, not just kept


def test_a_few_calls_after_a_rest_do_not_wait(store: SqlStore, clock: Clock) -> None:
    for _ in range(3):
        times_of_calls(store, clock, 6, 60)
        clock.pass_by(60)
    assert clock.slept == []


def test_budgets_are_shared_by_processes_and_apart_by_key(place: Place, clock: Clock) -> None:
    one, two = (place.open(clock=clock, sleep=clock.sleep) for _ in range(2))
    one.limiter().acquire("client-1", 2)
    two.limiter().acquire("client-2", 2)
    assert clock.slept == []
    two.limiter().acquire("client-1", 2)
    assert clock.slept == [30.0]


def test_s43_slots_are_given_in_the_order_of_asking(place: Place, clock: Clock) -> None:
    """Nobody's sleep ends early enough to overtake an earlier asker."""
    waits: list[float] = []
    stores = [place.open(clock=clock, sleep=waits.append) for _ in range(3)]
    for i in range(9):
        stores[i % 3].limiter().acquire("client-1", 10)
    assert waits == sorted(waits)
    assert len(set(waits)) == len(waits) == 8


def test_a_wait_too_long_is_refused_and_reserves_nothing(store: SqlStore, clock: Clock) -> None:
    waits: list[float] = []
    store._sleep = waits.append
    limiter = store.limiter()
    for _ in range(3):
        limiter.acquire("client-1", 1)
    for _ in range(3):
        with pytest.raises(BudgetError, match="used up for the next 180 s") as error:
            limiter.acquire("client-1", 1)
        assert error.value.retry_after == 180
    clock.pass_by(60)
    limiter.acquire("client-1", 1)
    assert waits == [60, 120, 120]


def test_who_is_in_a_hurry_waits_less(store: SqlStore, clock: Clock) -> None:
    waits: list[float] = []
    store._sleep = waits.append
    patient, hasty = store.limiter(), store.limiter(patience_seconds=9)
    for _ in range(5):
        patient.acquire("client-1", 6)
    with pytest.raises(BudgetError, match="used up for the next 50 s"):
        hasty.acquire("client-1", 6)
    patient.acquire("client-1", 6)
    clock.pass_by(51)
    hasty.acquire("client-1", 6)
    assert waits == [10, 20, 30, 40, 50, 9]


def test_a_clock_set_back_does_not_block_for_ever(store: SqlStore, clock: Clock) -> None:
    times_of_calls(store, clock, 3, 60)
    clock.pass_by(-86_400)
    times_of_calls(store, clock, 3, 60)
    assert sum(clock.slept) < 5


def test_many_threads_share_one_budget(place: Place) -> None:
    waits: list[float] = []
    store = place.open(sleep=waits.append)
    limiter = store.limiter()

    def ask() -> None:
        for _ in range(5):
            limiter.acquire("client-1", 20)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(waits) == 18  # twenty calls, two of them at once
    assert 45 < max(waits) <= 60


# -- vault -----------------------------------------------------------------------------------------


def test_without_a_key_there_is_no_vault(store: SqlStore) -> None:
    assert store.vault(None) is None


def test_s48_tokens_rest_encrypted(place: Place, clock: Clock) -> None:
    store = place.open(clock=clock, encryption_key=KEY)
    vault = store.vault(None)
    assert vault is not None
    assert vault.load("acme") is None
    vault.save("acme", {"refresh_token": "canary-4711", "n": 1})
    vault.save("acme", {"refresh_token": "canary-4712", "n": 2})
    again = place.open().vault(KEY)
    assert again is not None
    assert again.load("acme") == {"refresh_token": "canary-4712", "n": 2}
    (row,) = place.query("select * from tokens")
    assert "canary" not in str(row)
    if place.url is None:
        for file in place.home.iterdir():
            assert b"canary-47" not in file.read_bytes()


def test_another_key_cannot_read(store: SqlStore) -> None:
    vault, stranger = store.vault(KEY), store.vault(Fernet.generate_key().decode())
    assert vault is not None
    assert stranger is not None
    vault.save("acme", {"refresh_token": "canary"})
    with pytest.raises(ConfigurationError, match="encrypted with another key"):
        stranger.load("acme")
    with pytest.raises(ConfigurationError, match="not a Fernet key") as error:
        store.vault("hunter2-hunter2")
    assert "hunter2" not in str(error.value)


def test_s34_one_refresh_at_a_time(place: Place) -> None:
    """Twenty endpoints wake together; whoever comes second finds the new token."""
    refreshes: list[str] = []

    def refresh(store: SqlStore) -> None:
        vault = store.vault(KEY)
        assert vault is not None
        with vault.locked("acme"):
            held = vault.load("acme") or {"n": 0}
            if held["n"] == 0:
                refreshes.append("call")
                vault.save("acme", {"n": 1})

    threads = [
        threading.Thread(target=refresh, args=(place.open(sleep=lambda _: time.sleep(0.01)),))
        for _ in range(4)
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refreshes == ["call"]


def test_s34_a_dead_holder_frees_the_token(store: SqlStore, place: Place, clock: Clock) -> None:
    dead, next_one = store.vault(KEY), place.open(clock=clock, sleep=clock.sleep).vault(KEY)
    assert dead is not None
    assert next_one is not None
    dead.save("acme", {"n": 0})
    began = clock.now
    with dead.locked("acme"):
        with next_one.locked("acme"):
            assert 89 < (clock.now - began).total_seconds() < 91
            next_one.save("acme", {"n": 2})
        # The first was only slow: its older token must not replace the newer one.
        with pytest.raises(ConflictError, match="newer token"):
            dead.save("acme", {"n": 1})
    assert dead.load("acme") == {"n": 2}


def test_s34_a_lock_taken_by_a_clock_that_was_wrong_is_not_waited_for(
    store: SqlStore, place: Place, clock: Clock
) -> None:
    dead, next_one = store.vault(KEY), place.open(clock=clock, sleep=clock.sleep).vault(KEY)
    assert dead is not None
    assert next_one is not None
    clock.pass_by(86_400)
    with dead.locked("acme"):
        clock.pass_by(-86_400)
        with next_one.locked("acme"):
            assert clock.slept == []


def test_s34_a_slow_holder_may_save_what_nobody_replaced(
    store: SqlStore, place: Place, clock: Clock
) -> None:
    slow, other = store.vault(KEY), place.open(clock=clock, sleep=clock.sleep).vault(KEY)
    assert slow is not None
    assert other is not None
    slow.save("acme", {"n": 0})
    clock.pass_by(1)
    with slow.locked("acme"):
        with other.locked("acme"):
            pass
        slow.save("acme", {"n": 1})
    assert slow.load("acme") == {"n": 1}


def test_s34_a_token_held_for_ever_is_reported(store: SqlStore, place: Place) -> None:
    waits: list[float] = []
    holder, waiter = store.vault(KEY), place.open(clock=store._clock, sleep=waits.append).vault(KEY)
    assert holder is not None
    assert waiter is not None
    with holder.locked("acme"):
        with pytest.raises(TransientError, match="for 90 s") as waited, waiter.locked("acme"):
            pass
        assert type(waited.value) is TransientError, "BusyError is about an endpoint's lease"
        assert 80 < sum(waits) < 100
        waits.clear()
        with pytest.raises(TransientError, match="for 2 s"), waiter.locked("acme", 2.0):
            pass
        assert sum(waits) == 2
