"""A reader that polls ``change_seq > N`` never misses a row, whoever writes meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, text

from file_connector.destination.postgres import PostgresStore
from file_connector.destination.sql_store import SqlStore
from file_connector.destination.sqlite import SqliteStore
from file_connector.errors import BusyError, ConflictError
from file_connector.models import Folder, FolderGone, Gone, GoneReason, Mode, Outcome
from file_connector_tests.builders import a_file, an_identity
from file_connector_tests.destination.conftest import Place
from file_connector_tests.destination.helpers import Writer

WRITERS, COMMITS, FILES = 4, 12, 20


class Reader:
    """What a SaaS does: remembers the last number it saw and asks for more."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        store.state("any")  # tables are made on first use
        self.last = 0
        self.seen: dict[tuple[str, str], int] = {}

    def poll(self) -> int:
        with self._store._engine.connect() as conn:
            rows = conn.execute(
                text(
                    "select endpoint_id, external_id, change_seq from files "
                    "where change_seq > :last order by change_seq"
                ),
                {"last": self.last},
            ).all()
        for row in rows:
            assert row.change_seq > self.last
            self.last = row.change_seq
            self.seen[row.endpoint_id, row.external_id] = row.change_seq
        return len(rows)


def scribble(store: SqlStore, endpoint_id: str) -> None:
    chance = random.Random(endpoint_id)
    writer = Writer(store, an_identity(endpoint_id), f"run-{endpoint_id}")
    for number in range(COMMITS):
        some = chance.sample(range(FILES), 6)
        writer.commit(
            *[a_file(f"f{i:02}", version=number, parent_id=f"d{i % 3}") for i in some[:4]],
            folders=[Folder("a", None, "A"), Folder(f"d{number % 3}", "a", f"D{number}")],
            folders_gone=[FolderGone("d2", GoneReason.TRASHED)] if number % 5 == 4 else [],
            gone=[Gone(f"f{i:02}", GoneReason.DELETED) for i in some[4:]],
        )


def test_a_polling_reader_misses_nothing(place: Place) -> None:
    writers = [
        threading.Thread(target=scribble, args=(place.open(), f"e{i}")) for i in range(WRITERS)
    ]
    reader = Reader(place.open())
    for writer in writers:
        writer.start()
    polls = 0
    while any(writer.is_alive() for writer in writers):
        reader.poll()
        polls += 1
        writers[0].join(0.005)
    reader.poll()
    assert polls > 3
    rows = place.query("select endpoint_id, external_id, change_seq from files")
    assert {(r["endpoint_id"], r["external_id"]): r["change_seq"] for r in rows} == reader.seen
    assert len({r["change_seq"] for r in rows}) == len(rows) > WRITERS * FILES / 2


class Dawdling:
    """A store that stops between taking its numbers and committing, until told to go on."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.inside, self.go_on = threading.Event(), threading.Event()

    def _insert_files(self, conn: Connection, rows: Iterable[dict[str, Any]]) -> None:
        super()._insert_files(conn, rows)  # type: ignore[misc]
        self.inside.set()
        assert self.go_on.wait(30)


class DawdlingSqlite(Dawdling, SqliteStore):
    pass


class DawdlingPostgres(Dawdling, PostgresStore):
    pass


def test_a_slow_writer_is_not_overtaken(place: Place) -> None:
    slow: DawdlingSqlite | DawdlingPostgres = (
        DawdlingSqlite(place.home / "supabase.db")
        if place.url is None
        else DawdlingPostgres(place.url)
    )
    place.opened.append(slow)
    early = Writer(slow, an_identity("early"), "run-early")
    late = Writer(place.open(), an_identity("late"), "run-late")
    reader = Reader(place.open())
    first = threading.Thread(target=early.commit, args=(a_file("f"),))
    second = threading.Thread(target=late.commit, args=(a_file("f"),))
    first.start()
    assert slow.inside.wait(30)
    second.start()
    second.join(0.3)
    assert second.is_alive()
    assert reader.poll() == 0
    slow.go_on.set()
    first.join()
    second.join()
    reader.poll()
    assert reader.seen == {("early", "f"): 1, ("late", "f"): 2}


def test_six_writers_over_three_endpoints_never_deadlock(place: Place) -> None:
    """Overlapping keys, opposite orders, statuses noted in between."""
    problems: list[BaseException] = []
    done: list[str] = []

    def work(store: SqlStore, number: int) -> None:
        chance = random.Random(number)
        for turn in range(8):
            identity = an_identity(f"e{chance.randrange(3)}")
            run_id = f"run-{number}-{turn}"
            try:
                writer = Writer(store, identity, run_id)
                keys = chance.sample(range(60), 50)
                writer.commit(*[a_file(f"f{k:02}", version=turn, title=run_id) for k in keys])
                store.finish_run(run_id, Outcome.COMPLETE, "", 0, 0)
                store.note_success(
                    identity, writer.state.synced_at or store.runs("e0")[0].started_at
                )
                done.append(run_id)
            except (BusyError, ConflictError):
                pass
            except BaseException as error:  # noqa: BLE001 - reported below
                problems.append(error)

    Writer(place.open(), an_identity("e0"), "first")
    place.opened[0].finish_run("first", Outcome.COMPLETE, "", 0, 0)
    threads = [threading.Thread(target=work, args=(place.open(), i)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(done) > 6
    if place.url is not None:
        found = place.query(
            "select deadlocks from pg_stat_database where datname = current_database()"
        )
        assert found[0]["deadlocks"] == 0
    assert all(run.mode is Mode.INCREMENTAL for run in place.opened[0].runs("e1"))
