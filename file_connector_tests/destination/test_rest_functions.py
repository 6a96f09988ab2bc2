"""The functions behind REST, called in the database by the role that may: whatever happens, they
leave the same tables and say the same as the store that speaks SQL."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from operator import methodcaller
from typing import Any

import psycopg2
import pytest
from psycopg2.extras import Json as AsJson
from sqlalchemy import create_engine

from file_connector.destination.base import EndpointStatus
from file_connector.destination.postgres import PostgresStore, driver_url
from file_connector.destination.rest import RestStore
from file_connector.destination.tables import metadata
from file_connector.errors import ConflictError, FileConnectorError
from file_connector.models import (
    Commit,
    FileRecord,
    Folder,
    FolderGone,
    Gone,
    GoneReason,
    Json,
    Mode,
    Outcome,
    SyncState,
)
from file_connector_tests.builders import a_file, an_identity, at
from file_connector_tests.destination.conftest import Clock
from file_connector_tests.postgres import PostgresServer
from file_connector_tests.postgrest import ROLES, make_project

STEPS = 70
PIECE = 3
"""More files than these follow their folder, or their tenant, in several transactions."""
OURS_ALONE = {"sync_state": {"commit_id", "answer"}}
"""Columns in which the two may differ."""
PARTS = {
    *("locked", "hold", "reserve", "tally", "put", "below", "prefixes", "bury", "answer"),
    *("mirrored", "store", "sift", "unmet", "living"),
    *("parts", "owe", "misplaced", "live_in"),
}
"""Functions that only other functions call."""


class FunctionCalls:
    """Calls the functions where they are, as ``service_role``."""

    def __init__(self, connection: Any) -> None:
        self._cursor = connection.cursor()
        self._cursor.execute("set role service_role")

    def call(self, function: str, arguments: Mapping[str, Json], *, tell: bool = False) -> Json:
        given = {
            name: AsJson(value) if isinstance(value, dict) or name == "listed" else value
            for name, value in {**arguments, **({"again": False} if tell else {})}.items()
        }
        named = ", ".join(f"{name} => %({name})s" for name in given)
        try:
            self._cursor.execute(f"select public.file_connector_{function}({named})", given)
        except psycopg2.Error as error:
            if error.pgcode == "PT409":
                raise ConflictError(error.diag.message_primary or "") from None
            raise
        (answer,) = self._cursor.fetchone()
        if isinstance(answer, datetime):
            return answer.isoformat()
        return float(answer) if isinstance(answer, Decimal) else answer

    def close(self) -> None:
        self._cursor.connection.close()


class Both:
    """The same endpoint in two databases: one written with SQL, one by calling the functions."""

    def __init__(self, server: PostgresServer, clock: Clock) -> None:
        self.server = server
        self.names = [make_project(server), make_project(server)]
        options: dict[str, Any] = {"piece": PIECE, "clock": clock, "sleep": clock.sleep}
        self.sql = PostgresStore(server.url(self.names[0]), **options)
        self.rest = RestStore("http://nowhere.invalid", "key", **options)
        self.rest._calls.close()
        self._engines = [create_engine(driver_url(server.url(name))) for name in self.names]
        self.rest._calls = FunctionCalls(server.connect(self.names[1]))  # type: ignore[assignment]

    def do(self, ask: Callable[[Any], object]) -> Any:
        """What both answer, or the error both raise."""
        answers = []
        for store in (self.sql, self.rest):
            try:
                answers.append(ask(store))
            except FileConnectorError as error:
                answers.append((type(error), str(error)))
        assert answers[0] == answers[1]
        return answers[0]

    def tables(self) -> list[dict[str, list[dict[str, Any]]]]:
        found = []
        for engine in self._engines:
            with engine.connect() as conn:
                found.append(
                    {
                        table.name: [
                            {
                                k: v
                                for k, v in row.items()
                                if k not in OURS_ALONE.get(table.name, ())
                            }
                            for row in conn.execute(
                                table.select().order_by(*table.primary_key)
                            ).mappings()
                        ]
                        for table in metadata.sorted_tables
                    }
                )
        return found

    def agree(self) -> dict[str, list[dict[str, Any]]]:
        one, two = self.tables()
        for name, rows in one.items():
            assert rows == two[name], name
        return one

    def close(self) -> None:
        self.sql.close()
        self.rest.close()
        for engine in self._engines:
            engine.dispose()
        for name in self.names:
            self.server.drop(name)


@pytest.fixture(params=["postgres_server", "postgres_16"])
def both(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Both]:
    pair = Both(request.getfixturevalue(request.param), clock)
    yield pair
    pair.close()


def a_record(chance: random.Random, external_id: str) -> FileRecord:
    """Half of them differ in nothing but their version from what may be stored."""
    version = chance.choice([None, 1, 2, 3, 4])
    counts = chance.random() < 0.5
    if chance.random() < 0.5:
        return a_file(external_id, version=version, version_is_content=counts)
    return a_file(
        external_id,
        title=chance.choice(["x", "y", "z\x00", "ü/\ud800", "\U0001f600" * 3]),
        parent_id=chance.choice([*(f"d{i}" for i in range(7)), "a", "nowhere", None]),
        version=version,
        size_bytes=chance.choice([None, 1, 2**62, 2**70]),
        updated_at=chance.choice([None, at(4), at(4) + timedelta(microseconds=1)]),
        link=chance.choice([None, "https://files.example/1", "javascript:alert(1)"]),
        raw=chance.choice([{}, {"n": [1, 1.5, None]}, {"n": [1.0, 1.5, None]}, {"t": "ü"}]),
        version_is_content=counts,
    )


def random_commit(chance: random.Random, state: SyncState, run_id: str) -> Commit:
    def an_id() -> str:
        return f"f{chance.randrange(14):02}"

    def folder() -> str:
        return f"d{chance.randrange(7)}"

    def reason() -> GoneReason:
        return chance.choice(list(GoneReason))

    def maybe(likely: float, make: Callable[[], Any], most: int = 4) -> list[Any]:
        return [make() for _ in range(chance.randrange(most))] if chance.random() < likely else []

    return Commit(
        an_identity(state.endpoint_id, user_id=chance.choice(["ana", "ana", "ana", "ben"])),
        run_id,
        replace(
            state,
            version=state.version if chance.random() < 0.93 else state.version + 3,
            cursor=chance.choice([None, "c", {"a": [1, None]}, 0, [], False]),
            sweep=chance.choice([None, {"stack": ["x"]}]),
            pass_no=state.pass_no + (chance.random() < 0.2),
            swept_at=chance.choice([None, at(3)]),
            held_back=chance.randrange(3),
            blind=chance.choice([(), ({"folder_id": "b", "name": "B", "why": "403"},)]),
            scope=chance.choice([None, "scope\u2028"]),
        ),
        records=[
            a_record(chance, external_id)
            for external_id in sorted({an_id() for _ in range(chance.randrange(9))})
        ],
        folders=[
            *maybe(
                0.5,
                lambda: Folder(
                    folder(),
                    chance.choice(["a", folder(), folder()]),
                    chance.choice(["P", "Q", "R/\x00"]),
                    {"seen": chance.randrange(2)},
                ),
            ),
            *maybe(0.3, lambda: Folder("a", None, "A"), 2),
        ],
        folders_gone=maybe(0.25, lambda: FolderGone(folder(), reason()), 3),
        gone=maybe(0.5, lambda: Gone(an_id(), reason()), 5),
        seen=maybe(0.3, an_id),
        mark_seen=chance.random() < 0.4,
        forget_folders=chance.random() < 0.05,
    )


def step(both: Both, chance: random.Random, clock: Clock, number: int) -> None:
    """Something that may happen, mostly a commit."""
    endpoint_id = chance.choice(["plans", "plans", "other"])
    identity = an_identity(
        endpoint_id, user_id=chance.choice(["ana", "ben"]), name=chance.choice(["", "N"])
    )
    state = both.do(lambda s: s.state(endpoint_id))
    runs = both.do(lambda s: s.runs(endpoint_id, 3))
    run_id = (
        chance.choice(runs).run_id
        if runs and chance.random() < 0.1
        else (runs[0].run_id if runs else "none")
    )
    clock.pass_by(chance.choice([0, 0, 1, 40, 100]))
    what = chance.random()
    if what < 0.6:
        commit = random_commit(chance, state, run_id)
        both.do(lambda s: s.commit(commit))
    elif what < 0.72:
        both.do(lambda s: s.begin_run(identity, Mode.SWEEP, f"run-{number}"))
    elif what < 0.76:
        both.do(lambda s: s.finish_run(run_id, Outcome.PARTIAL, "why\x00", 3, 1))
    elif what < 0.80:
        both.do(lambda s: s.renew(endpoint_id, run_id))
    elif what < 0.84:
        both.do(lambda s: s.restamp(identity, run_id))
    elif what < 0.88:
        both.do(lambda s: s.advance(replace(state, cursor="later")))
    elif what < 0.90:
        both.do(lambda s: s.reset(endpoint_id))
    elif what < 0.91:
        both.do(lambda s: s.forget_seen(endpoint_id))
    elif what < 0.95:
        listed = [
            EndpointStatus(
                e,
                chance.choice("NM"),
                *("google_drive", "tower-42", "ana"),
                status=chance.choice(["new", "disabled", "quarantined"]),
                message=chance.choice(["", "line 7"]),
            )
            for e in ("plans", "other", "third")
            if chance.random() < 0.8
        ]
        both.do(lambda s: s.mirror(listed))
    elif what < 0.97:
        both.do(lambda s: s.note_success(identity, clock.now) and None)
    else:
        retry_at = chance.choice([None, clock.now])
        both.do(lambda s: s.note_failure(identity, clock.now, "bad\x00", retry_at))
    both.do(lambda s: s.status(endpoint_id))
    both.do(lambda s: s.turn(endpoint_id))
    if number % 7 == 0:
        read(both, endpoint_id, chance)


def read(both: Both, endpoint_id: str, chance: random.Random) -> None:
    pass_no, folder = chance.randrange(4), f"d{chance.randrange(7)}"
    both.do(lambda s: s.unseen(endpoint_id, pass_no, "f03", 5))
    both.do(lambda s: s.unseen_count(endpoint_id, pass_no))
    both.do(lambda s: list(s.live_between(endpoint_id, at(4), at(5))))
    both.do(lambda s: s.newest(endpoint_id, 3))
    both.do(lambda s: s.row(endpoint_id, "f05"))
    both.do(lambda s: list(s.known(endpoint_id).folders()))
    both.do(lambda s: s.known(endpoint_id).folder(folder))
    both.do(lambda s: s.known(endpoint_id).subfolders(folder))
    both.do(lambda s: s.known(endpoint_id).files(["f01", "f02", "nope"]))
    both.do(lambda s: s.known(endpoint_id).files_in(folder))
    both.do(lambda s: s.known(endpoint_id).live_count())


def test_random_histories_end_the_same(both: Both, clock: Clock) -> None:
    chance = random.Random(4)
    for number in range(STEPS):
        step(both, chance, clock, number)
        both.agree()
    tables = both.agree()
    assert len(tables["files"]) > 15
    assert {row["gone_reason"] for row in tables["files"]} > {None, "trashed"}
    assert tables["change_counter"][0]["value"] > 60
    assert sum(row["updated"] for row in tables["sync_runs"]) > 10


def test_s17_a_commit_that_landed_says_the_same_when_asked_again(both: Both) -> None:
    """Whatever a lost answer makes the caller repeat is found out, not done twice."""
    told: list[tuple[str, Mapping[str, Json], Json]] = []

    class Twice:
        def __init__(self, calls: Any) -> None:
            self._calls = calls

        def call(self, function: str, arguments: Mapping[str, Json], *, tell: bool = False) -> Json:
            first = self._calls.call(function, arguments, tell=tell)
            before = both.tables()[1]
            if tell:
                arguments = {**arguments, "again": True}
            told.append((function, first, self._calls.call(function, arguments)))
            assert both.tables()[1] == before, function
            return first

        def close(self) -> None:
            self._calls.close()

    both.rest._calls = Twice(both.rest._calls)  # type: ignore[assignment]
    identity = an_identity()
    both.do(lambda s: s.begin_run(identity, Mode.SWEEP, "run"))
    both.do(
        lambda s: s.commit(
            Commit(
                identity,
                "run",
                SyncState("plans"),
                records=[a_file(f"f{i}", parent_id="b") for i in range(4)],
                folders=[Folder("a", None, "A"), Folder("b", "a", "B")],
            )
        )
    )
    result = both.do(
        lambda s: s.commit(
            Commit(
                identity,
                "run",
                SyncState("plans", version=1),
                records=[
                    a_file("f0", parent_id="b", title="new"),
                    a_file("f4", parent_id="a"),
                    a_file("f5", parent_id="a"),
                ],
                folders=[Folder("b", "a", "NEW")],
                gone=[Gone("f1", GoneReason.DELETED), Gone("f4", GoneReason.TRASHED)],
            )
        )
    )
    # f0 follows its folder in a piece, and is told.
    assert (result.inserted, result.updated, result.tombstoned) == (2, 5, 2)
    assert result.changed_ids == {f"f{i}" for i in range(6)}
    both.do(lambda s: s.restamp(an_identity(user_id="ben"), "run"))
    both.do(lambda s: s.renew("plans", "run"))
    both.do(lambda s: s.finish_run("run", Outcome.COMPLETE, "", 1, 0))
    both.do(lambda s: s.advance(replace(s.state("plans"), cursor="c")))
    both.do(lambda s: s.reset("plans"))
    for _ in range(2):
        both.do(lambda s: s.note_failure(identity, at(1), "bad", at(2)))
    both.do(lambda s: s.note_success(identity, at(1)) and None)
    both.agree()
    names = {"begin_run", "commit", "settle", "change_tenant", "put_state", "note"}
    assert names < {name for name, _, _ in told}
    for name, first, second in told:
        assert first == second, name


def test_s37_restamp_leaves_rows_of_an_earlier_tenant(both: Both) -> None:
    ana, ben, cy = (an_identity(user_id=user) for user in ("ana", "ben", "cy"))
    both.do(lambda s: s.begin_run(ana, Mode.SWEEP, "run"))
    for version, who in enumerate((ana, ben)):
        state = SyncState("plans", version, project_id=who.project_id, user_id=who.user_id)
        commit = Commit(who, "run", state, records=[a_file(who.user_id)])
        both.do(methodcaller("commit", commit))
    assert both.do(lambda s: s.restamp(cy, "run")) == 1
    both.agree()


def test_functions_are_closed_to_everybody_but_the_service(both: Both) -> None:
    """A new function that somebody else may call, or that resolves names where callers may put
    theirs, fails here."""
    found = both.server.execute(
        "select proname, prosecdef, array_to_string(proconfig, ' '), "
        f"array(select r from unnest(array{list(ROLES)}) r "
        "where has_function_privilege(r, p.oid, 'execute')) "
        "from pg_proc p where pronamespace = 'public'::regnamespace",
        both.names[0],
    )
    assert len(found) > 30
    for name, definer, settings, roles in found:
        assert name.startswith("file_connector_")
        assert definer
        assert 'search_path=""' in settings
        inner = name.removeprefix("file_connector_") in PARTS
        assert roles == ([] if inner else ["service_role"]), name
