"""Over the real PostgREST: the contract suite once more (the same tests, another ``place``), then
answers that get lost, and keys that may not come in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests

from file_connector.deployment import Deployment
from file_connector.destination.open import open_store
from file_connector.destination.rest import RestStore
from file_connector.errors import ConfigurationError, ConflictError
from file_connector.models import Commit, Mode, Outcome, SyncState
from file_connector_tests.builders import NOON, a_file, an_identity
from file_connector_tests.destination import (
    test_change_seq,
    test_histories,
    test_lent,
    test_owed,
    test_rows,
    test_store,
)
from file_connector_tests.destination.helpers import Writer, folders
from file_connector_tests.destination.proxy import CuttingProxy
from file_connector_tests.destination.rest import (
    KEY,
    RestPlace,
    never,
    told,
)
from file_connector_tests.destination.test_faults import saying
from file_connector_tests.postgrest import NOT_RUN, Project, find_postgrest, key_of

if find_postgrest() is None:
    pytest.skip(NOT_RUN, allow_module_level=True)

for _module in (test_store, test_rows, test_owed, test_lent, test_histories, test_change_seq):
    for _name, _test in vars(_module).items():
        if _name.startswith("test_"):
            assert _name not in globals(), f"{_name} is in two modules"
            globals()[_name] = _test


@pytest.fixture
def place(project: Project, tmp_path: Path) -> Iterator[RestPlace]:
    here = RestPlace(project, tmp_path)
    yield here
    here.close()


# -- lost calls and lost answers, with the real PostgREST -----------------------------------------


def through_a_cut(
    place: RestPlace, function: str, work: Callable[[RestStore], Any], cut_after: bool
) -> Any:
    word = f"rpc/file_connector_{function}?".encode()
    project = place.project
    with (
        CuttingProxy(project.url, saying(word), cut_after=cut_after) as proxy,
        closing(RestStore(proxy.url, project.key, sleep=lambda _: None)) as store,
    ):
        result = work(store)
        assert proxy.cuts == 1
        return result


@pytest.mark.parametrize("cut_after", [False, True], ids=["call", "answer"])
def test_s17_a_lost_call_or_answer_is_stored_once(place: RestPlace, cut_after: bool) -> None:
    direct = place.open()
    identity = an_identity()
    through_a_cut(
        place, "begin_run", lambda s: s.begin_run(identity, Mode.SWEEP, "run-1"), cut_after
    )
    writer = Writer(direct, begin=False)
    writer.commit(a_file("f1", parent_id="b"), folders=folders("a", "a/b"))
    files = [a_file("f1", parent_id="b", title="new"), a_file("f2"), a_file("f3")]
    commit = Commit(identity, "run-1", writer.state, records=files, mark_seen=True)
    result = through_a_cut(place, "commit", lambda s: s.commit(commit), cut_after)
    assert (result.inserted, result.updated, result.unchanged) == (2, 1, 0)
    assert result.changed_ids == {"f1", "f2", "f3"}
    assert result.state == direct.state("plans")
    assert [row["change_seq"] for row in place.files().values()] == [4, 2, 3]
    counts = direct.runs("plans")[0].counts
    assert (counts.inserted, counts.updated) == (3, 1)

    stamped = through_a_cut(
        place, "change_tenant", lambda s: s.restamp(an_identity(user_id="ben"), "run-1"), cut_after
    )
    assert stamped == 3
    through_a_cut(
        place, "finish_run", lambda s: s.finish_run("run-1", Outcome.COMPLETE, "", 1, 0), cut_after
    )
    state = direct.state("plans")
    advanced = through_a_cut(place, "put_state", lambda s: s.advance(state), cut_after)
    assert advanced == direct.state("plans")
    noted = through_a_cut(
        place, "note", lambda s: s.note_failure(identity, NOON, "bad", NOON), cut_after
    )
    assert noted.failures == 1
    assert direct.note_failure(identity, NOON, "bad", NOON).failures == 2


def test_a_commit_in_between_is_a_conflict(place: RestPlace) -> None:
    writer = Writer(place.open())
    writer.commit(a_file("f1"))
    late = Commit(writer.identity, "run-1", SyncState("plans"), records=[a_file("f2")])
    with pytest.raises(ConflictError, match="at version 1, this run started from 0"):
        place.opened[0].commit(late)
    assert list(place.files()) == ["f1"]


# -- who may come in -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (key_of("anon"), "lacks a permission"),
        (key_of("authenticated", sub="ana"), "lacks a permission"),
        (key_of("service_role", exp="1"), "refuses the key"),
        (key_of("nobody"), "refuses the key"),
        ("sb_secret_canary-4711", "refuses the key"),
        (key_of("service_role")[:-4] + "AAAA", "refuses the key"),
    ],
    ids=["anon", "user", "expired", "unknown role", "no token", "forged"],
)
def test_a_wrong_key_is_named_and_never_shown(project: Project, key: str, words: str) -> None:
    with closing(RestStore(project.url, key, sleep=never)) as store:
        for work in (
            lambda: store.state("plans"),
            lambda: Writer(store),
            lambda: store.commit(Commit(an_identity(), "run", SyncState("plans"))),
        ):
            error = told(work)
            assert type(error) is ConfigurationError, error
            assert "SUPABASE_SECRET_KEY" in str(error)
            assert words in str(error)


def test_closed_tables_stay_closed_to_the_secret_key(place: RestPlace) -> None:
    Writer(place.open()).commit(a_file("f1"), folders=folders("a"))
    for table in ("sync_state", "sync_folders", "sync_leases", "tokens", "change_counter"):
        answer = requests.get(
            f"{place.project.url}/{table}",
            headers={"Authorization": f"Bearer {place.project.key}"},
            timeout=10,
        )
        assert answer.json()["code"] == "42501", table


def test_both_generations_of_keys_travel_in_both_headers(project: Project, tmp_path: Path) -> None:
    """Supabase's gateway knows the new keys and hands PostgREST a token in their place."""
    seen: list[tuple[str | None, str | None]] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((self.headers["apikey"], self.headers["Authorization"]))
            answer = requests.post(
                f"{project.url}{self.path.removeprefix('/rest/v1')}",
                data=self.rfile.read(int(self.headers["Content-Length"])),
                headers={
                    "Authorization": f"Bearer {key_of('service_role')}",
                    "Content-Type": "application/json",
                    "Content-Profile": self.headers.get("Content-Profile", "public"),
                },
                timeout=10,
            )
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            with closing(open_store(None, Path(), rest_url=root, rest_key=KEY)) as store:
                assert store.state("nobody").version == 0
                assert store.migrate() == []
            environ = {
                "FILE_CONNECTOR_SOURCE": "control_plane",
                "SUPABASE_URL": root,
                "SUPABASE_SECRET_KEY": KEY,
            }
            catalog = Deployment.from_environ(environ, tmp_path).catalog()
            assert (catalog.readable, catalog.problems) == (True, ())
        finally:
            server.shutdown()
    assert set(seen) == {(KEY, f"Bearer {KEY}")}


def test_a_database_without_the_functions_asks_for_the_migration(project: Project) -> None:
    with closing(RestStore(project.url, project.key, sleep=lambda _: None)) as store:
        error = told(lambda: store._call("of_a_later_version", endpoint="x"))
    assert isinstance(error, ConfigurationError)
    assert "supabase db push" in str(error)
    assert "PGRST202" in str(error)
